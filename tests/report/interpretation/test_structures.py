"""The share of a structure that is kept, against the naive formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF, Linear
from pyg_stkd.report.interpretation.structures import local_agreement, temporal_agreement

EDGES = torch.tensor([[1, 2, 3, 0, 2, 0], [0, 0, 0, 1, 1, 2]])  # node 2 has one neighbour, 3 none


def hidden(seed: int, channels: int, steps: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, steps, 4, channels, generator=draw, dtype=torch.float64)


def naive(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is lost and what there is to lose, [B, T, N]."""
    batch, steps, nodes, _ = teacher.shape
    lost, whole = torch.zeros(2, batch, steps, nodes, dtype=torch.float64)
    for b in range(batch):
        for t in range(steps):
            for i in range(nodes):
                near = EDGES[0, EDGES[1] == i]
                if len(near) == 0:
                    continue
                p, q = (
                    torch.exp(-0.5 * (h[b, t, near] - h[b, t, i]).square().sum(-1)).softmax(0)
                    for h in (teacher, student)
                )
                lost[b, t, i] = (p * (p / q).log()).sum()
                whole[b, t, i] = (p * (p * len(near)).log()).sum()
    return lost, whole


def test_local_structures_agree_as_the_formula_says() -> None:
    teacher, student = hidden(0, 5), hidden(1, 2)
    found = local_agreement(teacher, student, Graph(EDGES, 4), RBF())
    lost, whole = naive(teacher, student)
    assert found.total == pytest.approx(float(1 - lost.sum() / whole.sum()))
    expected = 1 - lost.sum((0, 1)) / whole.sum((0, 1))
    torch.testing.assert_close(found.nodes[:2], expected[:2])
    assert found.nodes[2:].isnan().all()  # nothing can be weighed there
    torch.testing.assert_close(found.steps, 1 - lost.sum((0, 2)) / whole.sum((0, 2)))


def test_weights_of_edges_are_against_those_of_the_same_target() -> None:
    teacher = hidden(0, 5)
    graph = Graph(EDGES, 4)
    found = local_agreement(teacher, teacher, graph, RBF())
    target = graph.edge_index[1]
    mean = torch.zeros(3, dtype=torch.float64).index_add(0, target, found.teacher)
    torch.testing.assert_close(mean, torch.bincount(target).double())
    assert found.teacher[target == 2].item() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["same", "uniform", "opposite"])
def test_one_is_the_teachers_and_zero_is_none(kind: str) -> None:
    teacher = hidden(0, 5)
    student = {"same": teacher, "uniform": 0 * teacher, "opposite": -3 * teacher}[kind]
    graph = Graph(EDGES, 4)
    local = local_agreement(teacher, student, graph, Linear())
    temporal = temporal_agreement(teacher, student, Linear())
    assert temporal is not None
    if kind == "opposite":  # z.z' is the same for -z, and three times as large: another structure
        assert local.total < 1
        return
    expected = 1.0 if kind == "same" else 0.0
    assert local.total == pytest.approx(expected)
    assert temporal.total == pytest.approx(expected)
    torch.testing.assert_close(temporal.nodes, torch.full((4,), expected).double())


def test_temporal_structures_agree_as_the_formula_says() -> None:
    teacher, student = hidden(0, 5), hidden(1, 2)
    found = temporal_agreement(teacher, student, RBF())
    assert found is not None
    lost = whole = 0.0
    pairs = torch.zeros(3, 3, dtype=torch.float64)
    for b in range(2):
        for n in range(4):
            for t in range(3):
                others = [u for u in range(3) if u != t]
                p, q = (
                    torch.exp(-0.5 * (h[b, others, n] - h[b, t, n]).square().sum(-1)).softmax(0)
                    for h in (teacher, student)
                )
                lost += float((p * (p / q).log()).sum())
                whole += float((p * (2 * p).log()).sum())
                pairs[t, others] += p / 4  # twice the mean over 2 sequences and 4 nodes
    assert found.total == pytest.approx(1 - lost / whole)
    assert found.teacher.diagonal().isnan().all()
    torch.testing.assert_close(found.teacher.nan_to_num(0.0), pairs)


def test_a_single_step_has_no_temporal_structure() -> None:
    assert temporal_agreement(hidden(0, 5, 1), hidden(1, 2, 1), RBF()) is None


def test_a_graph_without_edges_has_nothing_to_keep() -> None:
    found = local_agreement(hidden(0, 5), hidden(1, 2), Graph(EDGES[:, :0], 4), RBF())
    assert math.isnan(found.total)
    assert found.nodes.isnan().all()
    assert found.teacher.shape == (0,)
