from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.on_steps import check_each_step, last_steps, on_each_step, on_steps
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
WEIGHT = torch.rand(5)
X = torch.randn(2, 3, 4, 6)


def one_by_one(conv: Any, *edges: Any) -> Tensor:
    steps = [conv(x, *edges) for x in X.flatten(0, 1)]
    return torch.stack(steps).view(2, 3, 4, -1)


def test_equals_the_layer_step_by_step() -> None:
    for conv, edges in (
        (torch_geometric.nn.SAGEConv(6, 5), (EDGES,)),
        (torch_geometric.nn.GraphConv(6, 5), (EDGES, WEIGHT)),
    ):
        weight = edges[1] if len(edges) > 1 else None
        torch.testing.assert_close(on_steps(conv, X, EDGES, weight), one_by_one(conv, *edges))
        torch.testing.assert_close(on_steps(conv, X, Graph(EDGES), None), one_by_one(conv, EDGES))


def test_the_values_of_a_matrix_are_its_weights() -> None:
    conv = torch_geometric.nn.GraphConv(6, 5)
    matrix = torch.sparse_coo_tensor(EDGES.flip(0), WEIGHT, (4, 4), check_invariants=False)
    expected = one_by_one(conv, EDGES, WEIGHT)
    torch.testing.assert_close(on_steps(conv, X, matrix, None), expected)


def test_a_step_must_not_reach_into_the_next() -> None:
    conv = torch_geometric.nn.SAGEConv(6, 5)
    with pytest.raises(IndexError, match="below the 4 source nodes"):
        on_steps(conv, X, torch.tensor([[4], [0]]), None)
    with pytest.raises(ValueError, match="'edge_weight' must be None for SAGEConv"):
        on_steps(conv, X, EDGES, WEIGHT)
    operator = GraphOperator(Graph(EDGES), WEIGHT)
    with pytest.raises(TypeError, match=r"must hold edges for SAGEConv.*got a GraphOperator"):
        on_steps(conv, X, operator, None)


def test_each_step_on_its_own_graph_and_equal_ones_at_once() -> None:
    calls: list[int] = []

    def run(x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
        calls.append(x.size(1))
        return x * edges + (0 if weight is None else weight)

    a, b = torch.tensor(2.0), torch.tensor(3.0)
    w = torch.tensor(1.0)
    out = on_each_step(run, X, [a, b, a], None)
    assert calls == [2, 1]
    torch.testing.assert_close(out, X * torch.tensor([2.0, 3.0, 2.0]).view(3, 1, 1))
    out = on_each_step(run, X, [a, b, a], [w, w, 0 * w])
    assert calls == [2, 1, 1, 1, 1]
    shift = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1)
    torch.testing.assert_close(out, X * torch.tensor([2.0, 3.0, 2.0]).view(3, 1, 1) + shift)


def test_an_item_for_each_step() -> None:
    check_each_step([EDGES] * 3, None, 3)
    check_each_step([EDGES] * 3, (WEIGHT,) * 3, 3)
    with pytest.raises(ValueError, match=r"'edge_index' must have one item .* 3 steps.*got 2"):
        check_each_step([EDGES] * 2, None, 3)
    with pytest.raises(ValueError, match=r"'edge_weight' must have one item .*got Tensor"):
        check_each_step([EDGES] * 3, WEIGHT, 3)
    assert last_steps([1, 2, 3], 2) == [2, 3]
    assert last_steps(EDGES, 2) is EDGES
