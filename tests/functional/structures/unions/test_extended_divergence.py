"""The divergence on a union of graphs: by the definition, dense and in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.functional.structures.divergences.local_divergence import structure_of_scores
from pyg_stkd.functional.structures.unions import extended_divergence as module
from pyg_stkd.functional.structures.unions.extended_divergence import extended_divergence
from pyg_stkd.functional.structures.unions.extended_structure import extended_scores
from pyg_stkd.graph import Graph
from pyg_stkd.graph.extended import ExtendedGraph, simple
from pyg_stkd.kernels import RBF

N = 30
_HALF = torch.randint(N - 1, (2, 100))  # the last node has no edge
KNOWN = {
    "pairs": simple(Graph(torch.cat([_HALF, _HALF.flip(0)], dim=1), N)),
    "one way": simple(Graph(torch.stack([_HALF.amin(0), _HALF.amax(0)]), N)),
    "nothing": simple(Graph(torch.empty(2, 0, dtype=torch.long), N)),
}
OTHER = {
    "more": Graph(torch.randint(N - 1, (2, 60)), N),
    "nothing": KNOWN["nothing"],
}
KERNELS = [RBF("median"), RBF(0.5)]
DIRECTIONS = ["student", "teacher"]


def edges_of(graph: ExtendedGraph) -> Tensor:
    return torch.cat([graph.known.edge_index, graph.more.edge_index], dim=1)


def dense(z: Tensor, q: Tensor, graph: ExtendedGraph, kernel: RBF, direction: str) -> Tensor:
    """The definition, over matrices of all nodes."""
    source, target = edges_of(graph)
    unit = z / z.norm(dim=1, keepdim=True)
    square = (unit[target] - unit[source]).square().sum(1)
    width = square.detach().median() if kernel.sigma == "median" else kernel.sigma**2
    score = torch.full((N, N), -torch.inf, dtype=z.dtype)
    score[target, source] = torch.exp(-square / (2 * width))
    rows = target.unique()
    log_p = score[rows].log_softmax(1)[torch.searchsorted(rows, target), source]
    return ((log_p.exp() * (log_p - q)) if direction == "student" else q.exp() * (q - log_p)).sum()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("other", OTHER)
@pytest.mark.parametrize("known", KNOWN)
def test_is_the_definition(known: str, other: str, kernel: RBF, direction: Any) -> None:
    graph = ExtendedGraph(KNOWN[known], OTHER[other])
    parts = graph.known, graph.more
    z = torch.randn(N, 7, requires_grad=True)
    q = structure_of_scores(parts, torch.rand(graph.num_edges), bounded=True)
    ours = extended_divergence(z, q, graph, kernel, direction)
    if graph.num_edges == 0:
        assert ours.item() == 0
        assert not torch.autograd.grad(ours, z)[0].any()
        return
    wide = z.detach().double().requires_grad_()
    expected = dense(wide, q.double(), graph, kernel, direction)
    torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-5)
    found = [torch.autograd.grad(3 * out, x)[0] for out, x in ((ours, z), (expected, wide))]
    torch.testing.assert_close(found[0], found[1].float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_derivatives_of_any_order(direction: Any) -> None:
    graph = ExtendedGraph(KNOWN["pairs"], OTHER["more"])
    q = structure_of_scores((graph.known, graph.more), torch.rand(graph.num_edges).double())

    def call(z: Tensor) -> Tensor:
        return extended_divergence(z, q, graph, RBF(0.7), direction)

    z = torch.randn(N, 2, dtype=torch.double, requires_grad=True)
    assert gradcheck(call, z)
    assert gradgradcheck(call, z)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_divergence_from_itself(direction: Any) -> None:
    graph = ExtendedGraph(KNOWN["pairs"], OTHER["more"])
    z = torch.randn(N, 5)
    q = structure_of_scores((graph.known, graph.more), extended_scores(z, graph, RBF()), True)
    assert extended_divergence(z, q, graph, RBF(), direction).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("case", ["zeros", "equal", "parallel", "far", "small"])
def test_odd_features(case: str) -> None:
    """Rows of no length, equal ones, nearly parallel ones: as in double precision."""
    graph, kernel = ExtendedGraph(KNOWN["pairs"], OTHER["more"]), RBF(0.5)
    z = torch.randn(N, 6)
    if case == "zeros":
        z[:4] = 0
    elif case == "equal":
        z[:12] = z[12]
    elif case == "parallel":
        z = 1 + 1e-3 * z
    else:
        z *= 1e15 if case == "far" else 1e-20
    z.requires_grad_()
    wide = z.detach().double().requires_grad_()
    q = structure_of_scores((graph.known, graph.more), torch.rand(graph.num_edges), True)
    values = [extended_divergence(x, q.to(x.dtype), graph, kernel).double() for x in (z, wide)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)
    grads = [torch.autograd.grad(v, x)[0].double() for v, x in zip(values, (z, wide), strict=True)]
    scale = float(grads[1].abs().max())
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4 * scale)
    if case == "zeros":
        assert not grads[0][:4].any()


def test_composed_where_others_derive(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ExtendedGraph(KNOWN["pairs"], OTHER["more"])
    q = structure_of_scores((graph.known, graph.more), torch.rand(graph.num_edges), True)
    z = torch.randn(N, 6)
    expected = extended_divergence(z, q, graph, RBF())
    monkeypatch.setattr(module, "composes", lambda: True)
    torch.testing.assert_close(extended_divergence(z, q, graph, RBF()), expected)
