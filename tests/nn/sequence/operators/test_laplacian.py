from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import ChebConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_dense_adj

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators.laplacian import Rule, normalized_edges

EDGES = torch.cat([torch.randint(9, (2, 30)), torch.tensor([[2, 2, 5], [2, 2, 5]])], dim=1)
WEIGHT = torch.rand(33, dtype=torch.float64)  # among them loops and duplicates


def dense(graph: Graph, value: Tensor) -> Tensor:
    return to_dense_adj(graph.edge_index, edge_attr=value, max_num_nodes=10)[0]


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("lambda_max", [2.0, 1.3, None])
def test_equals_the_laplacian_of_pyg(normalization: str, lambda_max: float | None) -> None:
    rule = (normalization, lambda_max)
    given = dense(*normalized_edges(EDGES, WEIGHT, 10, torch.float64, rule))
    conv = ChebConv(1, 1, 2, normalization)
    most = None if lambda_max is None else torch.tensor(lambda_max, dtype=torch.float64)
    edges, value = conv.__norm__(EDGES, 10, WEIGHT, normalization, most, torch.float64)
    torch.testing.assert_close(given, dense(Graph(edges, 10), Graph(edges, 10).sort_edges(value)))


def test_equals_the_adjacency_of_pyg() -> None:
    given = dense(*normalized_edges(EDGES, WEIGHT, 10, torch.float64, ("gcn", 0.0)))
    edges, value = gcn_norm(EDGES, WEIGHT, 10, dtype=torch.float64)
    torch.testing.assert_close(given, dense(Graph(edges, 10), Graph(edges, 10).sort_edges(value)))


def test_matrices_bring_their_values() -> None:
    matrix = torch.sparse_coo_tensor(EDGES.flip(0), WEIGHT, (10, 10), check_invariants=False)
    rule = ("sym", 2.0)
    given = dense(*normalized_edges(matrix, None, None, torch.float64, rule))
    expected = dense(*normalized_edges(EDGES, WEIGHT, 10, torch.float64, rule))
    torch.testing.assert_close(given, expected)
    with pytest.raises(ValueError, match="'edge_weight' must be None where 'edge_index' is a sp"):
        normalized_edges(matrix, WEIGHT, None, torch.float64, rule)


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (WEIGHT[1:], r"must have shape \[33\], one weight for each edge \(got \[32\]\)"),
        (WEIGHT.view(-1, 1), r"must have shape \[33\]"),
        (-WEIGHT, "must be finite and not negative"),
        (WEIGHT / 0, "must be finite and not negative"),
    ],
)
def test_weights_that_are_none(weight: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        normalized_edges(EDGES, weight, 10, torch.float64, ("sym", 2.0))


def test_half_precision_sums_degrees_in_single() -> None:
    edges = torch.stack([torch.zeros(4096, dtype=torch.long), torch.arange(4096)])
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    value = normalized_edges(edges, None, 4096, torch.float16, ("sym", 2.0))[1]
    assert value.dtype == torch.float32
    assert value.abs().max() <= 1


@pytest.mark.parametrize("rule", [("sym", 2.0), ("rw", 1.5), (None, None), ("gcn", 0.0)])
def test_weights_of_zero_have_gradients(rule: Rule) -> None:
    edges = torch.tensor([[0, 1, 2], [1, 0, 0]])  # all of node 2 is an edge of weight 0
    weight = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    normalized_edges(edges, weight, 4, torch.float32, rule)[1].sum().backward()
    assert weight.grad is not None
    assert bool(weight.grad.isfinite().all())
