from __future__ import annotations

import pytest
import torch

from pyg_stkd.functional.structures.similarities import slice_distance
from pyg_stkd.functional.structures.similarities.slice_distance import (
    slice_distances,
    slices_innermost,
)
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.kernels import RBF, Cosine

GRAPHS = {
    "both ways, loops, duplicates": [[0, 1, 2, 3, 3, 1, 4, 4, 4], [1, 0, 1, 3, 2, 3, 0, 0, 4]],
    "one way": [[0, 1, 1, 2], [1, 2, 3, 4]],
}


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return Graph(torch.tensor(GRAPHS[request.param]), 6)  # the last node is alone


def naive(graph: Graph, z: torch.Tensor) -> torch.Tensor:
    source, target = graph.edge_index
    return (z[:, target] - z[:, source]).square().sum(-1).t()


@pytest.mark.parametrize("alive", [1, 1 << 18], ids=["in parts", "at once"])
def test_distances_and_their_gradient_in_each_slice(graph, alive, monkeypatch) -> None:
    monkeypatch.setattr(slice_distance, "_ALIVE", alive)
    z = torch.randn(6, 37, 3, dtype=torch.float64).transpose(0, 1).requires_grad_()
    weight = torch.rand(graph.num_edges, 37, dtype=torch.float64)
    found, expected = slice_distances(graph, z), naive(graph, z)
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad((found * weight).sum(), z)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), z)
    torch.testing.assert_close(ours, theirs)


def test_derivatives_of_any_order(graph) -> None:
    z = torch.randn(17, 6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: slice_distances(graph, z), z)
    assert torch.autograd.gradgradcheck(lambda z: slice_distances(graph, z), z)


def test_far_from_the_origin_nothing_cancels(graph) -> None:
    z = torch.randn(16, 6, 3)
    torch.testing.assert_close(slice_distances(graph, z + 4096), naive(graph, z + 4096))


def test_what_an_evaluation_built_serves_training(graph) -> None:
    z = torch.randn(16, 6, 3)
    with torch.inference_mode():
        slice_distances(graph, z)
    z.requires_grad_()
    slice_distances(graph, z).sum().backward()
    (expected,) = torch.autograd.grad(naive(graph, z).sum(), z)
    torch.testing.assert_close(z.grad, expected)


def test_what_is_measured_so(graph) -> None:
    z = torch.randn(16 * 6, 3)
    assert slices_innermost(slice_blocks(graph, 16), z, RBF())
    assert not slices_innermost(slice_blocks(graph, 15), z[: 15 * 6], RBF())  # in too short runs
    assert not slices_innermost(slice_blocks(graph, 16), z, Cosine())
    assert not slices_innermost(graph, z[:6], RBF())
    assert not slices_innermost(slice_blocks(graph, 16), torch.randn(16 * 6, 1 << 17), RBF())
    alone = Graph(torch.empty(2, 0, dtype=torch.long), 6)
    assert not slices_innermost(slice_blocks(alone, 16), z, RBF())
