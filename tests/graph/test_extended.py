from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_stkd.graph import Graph, union_edges
from pyg_stkd.graph.extended import ExtendedGraph, simple


def edges(num_nodes: int, count: int) -> Tensor:
    return torch.randint(num_nodes, (2, count))


@given(st.integers(1, 6), st.integers(0, 15), st.integers(0, 15))
def test_is_the_union_and_knows_where_its_parts_are(nodes: int, few: int, more: int) -> None:
    known, other = simple(Graph(edges(nodes, few), nodes)), Graph(edges(nodes, more), nodes)
    union, expected = ExtendedGraph(known, other), union_edges(known, other, nodes)
    assert union.edge_index.equal(expected.edge_index)
    assert union.rowptr.equal(expected.rowptr)
    assert union.perm.equal(expected.perm)
    assert union.num_edges == expected.num_edges
    assert union.device == expected.device
    for ours, theirs in zip(union.csc(), expected.csc(), strict=True):
        assert ours.equal(theirs)
    assert union.edge_index[:, union.of_known].equal(known.edge_index)
    assert union.edge_index[:, union.of_more].equal(union.more.edge_index)
    assert union.more.rowptr.equal(Graph(union.more.edge_index, nodes).rowptr)
    merged = union.merge(known.edge_index[0], union.more.edge_index[0])
    assert merged.equal(union.edge_index[0])
    assert (union.lasting, known.lasting) == (False, True)


def test_many_nodes_and_two_sizes() -> None:
    known = simple(Graph(torch.tensor([[69_999, 1], [0, 69_999]]), 70_000))
    union = ExtendedGraph(known, Graph(torch.tensor([[2, 1], [69_999, 69_999]]), 70_000))
    assert union.edge_index.tolist() == [[69_999, 1, 2], [0, 69_999, 69_999]]
    with pytest.raises(
        ValueError, match=r"on the \(70000, 70000\) nodes of 'known' \(got \(3, 3\)\)"
    ):
        ExtendedGraph(known, Graph(edges(3, 2), 3))


def test_the_known_one_is_sorted_once() -> None:
    graph = Graph(torch.tensor([[2, 1, 2], [0, 0, 0]]), 3)
    assert simple(graph) is simple(graph)
    assert simple(graph).edge_index.tolist() == [[1, 2], [0, 0]]
    for _ in range(2):
        ExtendedGraph(simple(graph), Graph(edges(3, 4), 3))
    assert len([kind for kind in simple(graph)._derived if kind[0] == "keys"]) == 1


def test_sources_of_one_remainder() -> None:
    """Which share a slot of the table in which edges are looked up first."""
    source = torch.arange(0, 640, 64)
    known = simple(Graph(torch.stack([source, torch.zeros_like(source)]), 700))
    other = Graph(torch.tensor([[0, 64, 65, 576, 640, 640], [0, 0, 0, 0, 0, 1]]), 700)
    union = ExtendedGraph(known, other)
    assert union.more.edge_index.tolist() == [[65, 640, 640], [0, 0, 1]]
    assert union.edge_index.equal(union_edges(known, other).edge_index)
