from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd import kernels
from pyg_stkd.functional import local_structure
from pyg_stkd.functional.structures.unions.extended_structure import (
    can_extend,
    extended_scores,
    extended_structure,
    measured,
)
from pyg_stkd.graph import Graph, union_edges
from pyg_stkd.graph.extended import ExtendedGraph, simple

N = 40
KNOWN = simple(Graph(torch.randint(N, (2, 200)), N))
OTHER = Graph(torch.randint(N, (2, 150)), N)
RBF = kernels.RBF(sigma="median")


def both(z: Tensor, kernel: kernels.Kernel = RBF) -> tuple[Tensor, Tensor]:
    """Return the structure on the union, and as it is without what was measured before."""
    graph = ExtendedGraph(KNOWN, OTHER)
    ours = extended_structure(z, measured(z, KNOWN), graph, kernel)
    ours = graph.merge(*ours.split([KNOWN.num_edges, graph.more.num_edges]))
    return ours, local_structure(z.double(), union_edges(KNOWN, OTHER), kernel, "l2")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kernel", [RBF, kernels.RBF(0.5)], ids=repr)
def test_is_the_structure_on_the_union(kernel: kernels.RBF, dtype: torch.dtype) -> None:
    ours, expected = both(torch.randn(N, 7, dtype=dtype), kernel)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, expected.to(dtype))


@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1e9, 1e20])
def test_no_scale_changes_it(scale: float) -> None:
    z = torch.randn(N, 7)
    z[::3] *= scale
    ours, expected = both(z)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-4)


def test_vectors_of_no_length_and_equal_ones() -> None:
    z = torch.randn(N, 7)
    z[:5] = 0.0
    z[5:20] = z[20]
    ours, expected = both(z)
    torch.testing.assert_close(ours, expected.float())


def test_nearly_parallel_vectors_keep_their_digits() -> None:
    z = 1 + 1e-3 * torch.randn(N, 7)
    ours, expected = both(z)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-3, atol=1e-3)


def test_what_can_be_extended() -> None:
    z = torch.ones(2, 3)
    assert can_extend(z, RBF, "l2")
    assert not can_extend(z, RBF, None)
    assert not can_extend(z, RBF, "layer")
    assert not can_extend(z, kernels.Laplacian(), "l2")
    assert not can_extend(z, kernels.SquaredEuclidean(), "l2")  # its scores have no bound
    assert not can_extend(z.half(), RBF, "l2")


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("kernel", [RBF, kernels.RBF(0.5)], ids=repr)
def test_scores_are_those_of_the_union(kernel: kernels.RBF, offset: float) -> None:
    """By the definition, with their gradients; far from the origin vectors are nearly parallel."""
    graph = ExtendedGraph(KNOWN, OTHER)
    z = (torch.randn(N, 450) + offset).requires_grad_()  # no few numbers
    wide = z.detach().double().requires_grad_()
    edges = torch.cat([KNOWN.edge_index, graph.more.edge_index], dim=1)
    unit = wide / wide.norm(dim=1, keepdim=True)
    square = (unit[edges[0]] - unit[edges[1]]).square().sum(1)
    width = square.detach().median() if kernel.sigma == "median" else 0.5**2
    expected = torch.exp(-square / (2 * width))
    ours = extended_scores(z, graph, kernel)
    torch.testing.assert_close(ours, expected.to(ours.dtype), rtol=1e-4, atol=1e-5)
    weight = torch.randn(graph.num_edges)
    found = [
        torch.autograd.grad((out * weight).sum(), x)[0] for out, x in ((ours, z), (expected, wide))
    ]
    scale = found[1].abs().max().item()
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-3, atol=1e-4 * scale)
