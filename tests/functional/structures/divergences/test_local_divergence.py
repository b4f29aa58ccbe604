from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.functional.structures.divergences import local_divergence as module
from pyg_stkd.functional.structures.divergences.local_divergence import (
    local_divergence,
    structure_of_scores,
)
from pyg_stkd.graph import Graph

N = 6
# Loops, duplicates, a node without edges (5) and one with a single edge (4).
EDGES = torch.cat([torch.randint(4, (2, 20)), torch.tensor([[0, 0, 2], [0, 0, 4]])], dim=1)
GRAPH = Graph(EDGES, N)


def naive(graph: Graph, score: Tensor, teacher: Tensor, direction: str) -> Tensor:
    """The definition, a node at a time."""
    out = []
    for i in range(graph.num_nodes):
        edges = slice(int(graph.rowptr[i]), int(graph.rowptr[i + 1]))
        p = score[edges].exp() / score[edges].exp().sum()
        q = teacher[edges].exp()
        out.append(
            (p * (p / q).log()).sum() if direction == "student" else (q * (q / p).log()).sum()
        )
    return torch.stack(out)


def draws(graph: Graph = GRAPH) -> tuple[Tensor, Tensor]:
    """Return scores in [0, 1], with gradients, and a structure."""
    score = torch.rand(graph.num_edges, dtype=torch.double, requires_grad=True)
    return score, structure_of_scores(graph, torch.randn(graph.num_edges, dtype=torch.double))


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_values_and_gradients_are_the_definition(direction: Any, bounded: bool) -> None:
    score, teacher = draws()
    expected = naive(GRAPH, score, teacher, direction)
    ours = local_divergence(GRAPH, score, teacher, direction, bounded=bounded, total=False)
    torch.testing.assert_close(ours, expected)
    weight = torch.rand(N).double()
    for each in (weight, 3 * torch.ones(N).double()):
        gradients = [torch.autograd.grad((x * each).sum(), score, retain_graph=True)[0]
                     for x in (ours, expected)]  # fmt: skip
        torch.testing.assert_close(*gradients)
    total = local_divergence(GRAPH, score, teacher, direction, bounded=bounded)
    torch.testing.assert_close(total, expected.sum())
    # of the weight 3 above, the last one
    torch.testing.assert_close(torch.autograd.grad(3 * total, score)[0], gradients[1])


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_derivatives_of_any_order(direction: Any, bounded: bool, total: bool) -> None:
    score, teacher = draws()

    def call(score: Tensor) -> Tensor:
        return local_divergence(GRAPH, score, teacher, direction, bounded=bounded, total=total)

    assert gradcheck(call, score)
    assert gradgradcheck(call, score)


@given(st.integers(1, 6), st.integers(0, 20), st.booleans())
def test_a_structure_is_at_no_distance_from_itself(nodes: int, edges: int, bounded: bool) -> None:
    graph = Graph(torch.randint(nodes, (2, edges)), nodes)
    score = torch.rand(edges)  # in single precision too: both are computed alike
    teacher = structure_of_scores(graph, score, bounded)
    total = torch.zeros(nodes).index_add(0, graph.edge_index[1], teacher.exp())
    torch.testing.assert_close(total, (graph.degree > 0).float())
    for direction in ("student", "teacher"):
        assert local_divergence(graph, score, teacher, direction, bounded=bounded).item() == 0


def test_large_scores_that_have_no_bound() -> None:
    score = torch.tensor([1e4, 2e4, 0.0])
    graph = Graph(torch.tensor([[0, 1, 2], [0, 0, 0]]), 3)
    teacher = torch.full((3,), 1 / 3).log()
    loss = local_divergence(graph, score, teacher)
    torch.testing.assert_close(loss, torch.tensor(3.0).log())


def test_the_wider_precision_and_constants() -> None:
    score, teacher = draws()
    before = score.detach().clone(), teacher.clone()
    teacher.requires_grad_()
    loss = local_divergence(GRAPH, score.float(), teacher)
    assert loss.dtype == torch.double
    loss.backward(retain_graph=True)
    first = score.grad.clone()  # type: ignore[union-attr]
    loss.backward()
    torch.testing.assert_close(score.grad, 2 * first)  # what is kept was not written to
    assert teacher.grad is None
    assert score.equal(before[0])
    assert teacher.equal(before[1])


@pytest.mark.parametrize(("direction", "sums"), [("student", 2), ("teacher", 3)])
def test_the_gradient_sums_nothing_again(
    direction: Any, sums: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    reduce = module.reduce_segments

    def count(*args: Any) -> Tensor:
        calls.append(args)
        return reduce(*args)

    monkeypatch.setattr(module, "reduce_segments", count)
    score, teacher = draws()
    loss = local_divergence(GRAPH, score, teacher, direction, bounded=True)
    assert len(calls) == sums
    loss.backward()
    assert len(calls) == sums


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_edges_of_several_graphs(direction: Any, bounded: bool, total: bool) -> None:
    """As if all were of one: those of one after another."""
    parts = Graph(EDGES[:, ::3], N), Graph(EDGES[:, :0], N), Graph(EDGES[:, 1::3], N)
    whole = Graph(torch.cat([part.edge_index for part in parts], dim=1), N)
    options: Any = {"bounded": bounded, "total": total}
    score, other = (torch.rand(whole.num_edges, dtype=torch.double) for _ in range(2))
    score.requires_grad_()
    teacher = structure_of_scores(parts, other, bounded)
    torch.testing.assert_close(
        teacher[whole.perm], structure_of_scores(whole, other[whole.perm], bounded)
    )
    derived = structure_of_scores(parts, other.clone().requires_grad_(), bounded)
    torch.testing.assert_close(derived, teacher)
    ours = local_divergence(parts, score, teacher, direction, **options)
    theirs = local_divergence(whole, score[whole.perm], teacher[whole.perm], direction, **options)
    torch.testing.assert_close(ours, theirs)

    def call(score: Tensor) -> Tensor:
        return local_divergence(parts, score, teacher, direction, **options)

    assert gradcheck(call, score)
    assert gradgradcheck(call, score)
    assert local_divergence(parts, other, teacher, direction, bounded=bounded).item() == 0


@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_as_many_edges_at_each_node(direction: Any) -> None:
    """Which are added in another way: not where the numbers alone would fit."""
    source = torch.arange(12) % 5
    for target in (torch.arange(4).repeat_interleave(3), torch.tensor([0] * 5 + [1] + [2] * 6)):
        graph = Graph(torch.stack([source, target]), (5, 4))
        score, teacher = draws(graph)
        ours = local_divergence(graph, score, teacher, direction, bounded=True)
        expected = naive(graph, score, teacher, direction).nan_to_num().sum()
        torch.testing.assert_close(ours, expected)
        found = [torch.autograd.grad(x, score)[0] for x in (ours, expected)]
        torch.testing.assert_close(*found)
