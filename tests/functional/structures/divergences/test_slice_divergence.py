from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional import lsp, spatial_correlation
from pyg_stkd.functional.structures import local
from pyg_stkd.functional.structures.divergences import slice_divergence
from pyg_stkd.functional.structures.local import by_edge
from pyg_stkd.functional.structures.similarities import slice_distance
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.kernels import RBF

GRAPHS = {
    "both ways, loops, duplicates": [[0, 1, 2, 3, 3, 1, 4, 4, 4], [1, 0, 1, 3, 2, 3, 0, 0, 4]],
    "one way": [[0, 1, 1, 2, 0], [1, 2, 3, 4, 4]],
}
KERNELS = [RBF(sigma=0.7), RBF(sigma="median")]


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return Graph(torch.tensor(GRAPHS[request.param]), 6)  # the last node is alone


def naive(graph: Graph, z: Tensor, teacher: Tensor, kernel: RBF, direction: str) -> Tensor:
    """The definition, slice by slice and node by node; the width is a constant."""
    source, target = graph.edge_index
    square = (z[:, target] - z[:, source]).square().sum(-1)  # [S, |E|]
    sigma = kernel.sigma
    if isinstance(sigma, str):
        sigma = square.detach().flatten().sort().values[(square.numel() - 1) // 2].sqrt()
    score, total = torch.exp(-square / (2 * sigma**2)), torch.zeros(())
    for node in range(graph.num_nodes):
        edges = (target == node).nonzero().flatten()
        if edges.numel() > 0:
            ours, theirs = score[:, edges].log_softmax(-1), teacher[edges].t()
            gap = ours - theirs
            term = ours.exp() * gap if direction == "student" else -theirs.exp() * gap
            total = total + term.sum()
    return total


def inputs(
    graph: Graph, slices: int = 37, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    z = torch.randn(6, slices, 3, dtype=dtype).transpose(0, 1).requires_grad_()
    score = torch.randn(graph.num_edges, slices, dtype=dtype).exp()
    total = torch.zeros(6, slices, dtype=dtype).index_add(0, graph.edge_index[1], score)
    return z, (score / total[graph.edge_index[1]]).log()


@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("alive", [1, 100, 1 << 18], ids=["in parts", "in some", "at once"])
def test_value_and_gradient_are_the_definition(
    graph, kernel, direction, alive, monkeypatch
) -> None:
    monkeypatch.setattr(slice_divergence, "_ALIVE", alive)
    monkeypatch.setattr(slice_distance, "_ALIVE", alive)
    z, teacher = inputs(graph)
    found = slice_divergence.slice_divergence(graph, z, teacher, kernel, direction)
    expected = naive(graph, z, teacher, kernel, direction)
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad(3 * found, z)
    (theirs,) = torch.autograd.grad(3 * expected, z)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_derivatives_of_any_order(graph, direction) -> None:
    z, teacher = inputs(graph, 17)

    def loss(z: Tensor) -> Tensor:
        return slice_divergence.slice_divergence(graph, z, teacher, RBF(sigma=0.7), direction)

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


def test_without_gradient_and_for_a_teacher_of_another_precision(graph) -> None:
    z, teacher = inputs(graph)
    with torch.no_grad():
        found = slice_divergence.slice_divergence(graph, z.float(), teacher, RBF())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, naive(graph, z.float().double(), teacher, RBF(), "student"))


def test_single_precision_far_from_the_origin(graph) -> None:
    z, teacher = (x.detach().float() for x in inputs(graph))
    far = (z + 4096).requires_grad_()
    exact = far.detach().double().requires_grad_()
    found = slice_divergence.slice_divergence(graph, far, teacher, RBF())
    expected = naive(graph, exact, teacher.double(), RBF(), "student")
    torch.testing.assert_close(found, expected.float())
    found.backward()
    expected.backward()
    torch.testing.assert_close(far.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


def test_a_kernel_of_ones_own_is_asked(graph) -> None:
    class Twice(RBF):
        def __call__(self, value: Tensor) -> Tensor:
            return 2 * super().__call__(value)

    s, t = torch.randn(16, 6, 3).double(), torch.randn(16, 6, 3).double()
    known = [local.local_structure(x, graph, Twice()) for x in t]  # no one warns that it is blind
    each = [
        lsp(x, None, graph, Twice(), teacher_structure=y) for x, y in zip(s, known, strict=True)
    ]
    found = spatial_correlation(s[None], None, graph, Twice(), teacher_structure=torch.cat(known))
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_a_structure_may_lie_by_edge(graph) -> None:
    s, t = torch.randn(1, 16, 6, 3), torch.randn(1, 16, 6, 3)
    blocks = slice_blocks(graph, 16)
    for kernel in KERNELS:
        known = local.local_structure(t.flatten(0, 2), blocks, kernel)
        expected = lsp(s.flatten(0, 2), None, blocks, kernel, teacher_structure=known)
        rows = by_edge(blocks, known)
        assert rows.shape == (graph.num_edges, 16)
        assert rows.is_contiguous()
        found = lsp(s.flatten(0, 2), None, blocks, kernel, teacher_structure=rows)
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="'teacher_structure' must have shape"):
        lsp(s.flatten(0, 2), None, blocks, KERNELS[0], teacher_structure=rows.t())
