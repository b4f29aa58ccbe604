from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.graph import Graph
from pyg_stkd.graph.unordered import unordered


@given(st.integers(1, 6), st.integers(1, 30))
def test_one_edge_for_each_pair(num_nodes: int, num_edges: int) -> None:
    graph = Graph(torch.randint(num_nodes, (2, num_edges)), num_nodes)
    ends = {(min(e), max(e)) for e in graph.edge_index.t().tolist()}
    pairs, place = unordered(graph)
    if len(ends) > 0.9 * num_edges:
        assert pairs is None
        return
    assert pairs is not None
    assert {(a, b) for a, b in pairs.edge_index.t().tolist()} == ends
    assert pairs.num_edges == len(ends)
    assert pairs.size == graph.size
    low, high = graph.edge_index.sort(dim=0).values
    assert pairs.edge_index[:, place].equal(torch.stack([low, high]))
    assert unordered(graph)[0] is pairs


def test_more_nodes_than_have_a_square_in_32_bits() -> None:
    ends = torch.tensor([[0, 69_999, 3, 5], [69_999, 0, 5, 3]])
    pairs, place = unordered(Graph(ends, 70_000))
    assert pairs is not None
    assert pairs.edge_index.tolist() == [[3, 0], [5, 69_999]]
    assert place.tolist() == [1, 0, 0, 1]  # of the edges by target: 69999 to 0, 5 to 3, ...


def test_a_graph_without_edges_or_nodes() -> None:
    for num_nodes in (0, 3):
        graph = Graph(torch.empty(2, 0, dtype=torch.long), num_nodes)
        pairs, place = unordered(graph)
        assert place.numel() == 0
        assert pairs is None or pairs.num_edges == 0
