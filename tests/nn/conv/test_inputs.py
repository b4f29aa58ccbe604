from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex

from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv.inputs import (
    check_edge_attr,
    check_features,
    given_edges,
    is_sparse,
    num_edges,
    num_nodes,
)

EDGES = torch.tensor([[3, 0, 2, 1], [1, 1, 0, 0]])
MATRIX = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(4), (2, 4), check_invariants=False)


def test_edges_come_back_in_the_order_they_were_given() -> None:
    graph = Graph(EDGES, (4, 2))
    assert not graph.edge_index.equal(EDGES)
    assert given_edges(graph).equal(EDGES)


def test_edges_are_counted_in_all_formats() -> None:
    for adj in (EDGES, EdgeIndex(EDGES), Graph(EDGES), MATRIX, MATRIX.to_sparse_csr()):
        assert num_edges(adj) == 4
    assert [is_sparse(adj) for adj in (EDGES, Graph(EDGES), MATRIX)] == [False, False, True]
    with pytest.raises(TypeError, match=r"\(got list\)"):
        num_edges([[0], [1]])
    with pytest.raises(ValueError, match=r"sources then targets \(got \[3, 4\]\)"):
        num_edges(torch.ones(3, 4))


@pytest.mark.parametrize(
    ("x_dst", "adj", "size", "expected"),
    [
        (None, EDGES, None, (4, 4)),
        (2, EDGES, None, (4, 2)),
        (None, EDGES, (4, 2), (4, 2)),
        (None, MATRIX, None, (4, 2)),
        (None, EdgeIndex(EDGES, sparse_size=(4, 2)), None, (4, 2)),
        (2, Graph(EDGES, (4, 2)), (4, 2), (4, 2)),
    ],
)
def test_numbers_of_nodes(x_dst: int, adj: Any, size: Any, expected: tuple[int, int]) -> None:
    targets = None if x_dst is None else torch.ones(x_dst, 3)
    assert num_nodes(torch.ones(4, 3), targets, adj, size) == expected


@pytest.mark.parametrize(
    ("x_dst", "adj", "size", "match"),
    [
        (3, MATRIX, None, r"'edge_index' must be of 4 source and 3 target nodes.*got \(4, 2\)"),
        (2, EDGES, (4, 3), r"'size' must be of 4 source and 2 target nodes.*got \(4, 3\)"),
        (None, Graph(EDGES, (5, 2)), None, "'edge_index' must be of 4 source and 2"),
    ],
)
def test_numbers_that_disagree(x_dst: int, adj: Any, size: Any, match: str) -> None:
    targets = None if x_dst is None else torch.ones(x_dst, 3)
    with pytest.raises(ValueError, match=match):
        num_nodes(torch.ones(4, 3), targets, adj, size)


def test_features_and_their_projections() -> None:
    lin = nn.Linear(3, 2)
    lin.in_channels = 3  # type: ignore[assignment]
    x = torch.ones(4, 3)
    for pair in (x, (x, None), [x, x]):
        assert check_features(pair, lin, lin)[0] is x
    assert check_features((x, None), lin, lin)[1] is None
    for bad, match in (
        ((x, x, x), r"a pair of tensors \(got 3 items\)"),
        (None, "must be a tensor or a pair"),
        (x.long(), "'x' must be a tensor of real floating"),
    ):
        with pytest.raises(TypeError, match=match):
            check_features(bad, lin, lin)
    for bad, match in (
        (x[:, :2], r"of the sources must have shape \[\*, N, 3\] \(got \[4, 2\]\)"),
        ((x, x[:, :1]), "of the targets must have shape"),
        ((x[None], x[None].expand(2, -1, -1)), "agree in the dimensions before the nodes"),
    ):
        with pytest.raises(ValueError, match=match):
            check_features(bad, lin, lin)


def test_edge_features() -> None:
    attr = torch.randn(4, 3)
    assert check_edge_attr(attr, 4, 3, torch.float64) is attr
    whole = check_edge_attr(torch.arange(4), 4, 1, torch.float64)
    assert whole.dtype == torch.float64
    assert whole.tolist() == [0.0, 1.0, 2.0, 3.0]
    for bad, match in (
        (attr[:3], r"a row for each of the 4 edges \(got \[3, 3\]\)"),
        (attr[:, :2], r"3 channels, the 'edge_dim' \(got 2\)"),
        (attr.to(torch.complex64), "must be of real numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            check_edge_attr(bad, 4, 3, torch.float32)
