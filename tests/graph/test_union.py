from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_stkd.graph import Graph, union_edges
from pyg_stkd.graph.union import same_edges

Edges = list[tuple[int, int]]
EDGES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20)


def tensor(edges: Edges) -> Tensor:
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t()


@given(a=EDGES, b=EDGES)
def test_equals_the_union_of_sets(a: Edges, b: Edges) -> None:
    graph = union_edges(tensor(a), tensor(b), 7)
    expected = sorted({*a, *b}, key=lambda edge: edge[::-1])
    assert graph.edge_index.t().tolist() == [list(edge) for edge in expected]
    assert graph.perm.tolist() == list(range(len(expected)))


def test_bipartite_graphs_keep_both_numbers() -> None:
    a, b = Graph(tensor([(4, 0)]), (5, 2)), Graph(tensor([(0, 1)]), (5, 2))
    assert union_edges(a, b).size == (5, 2)
    assert union_edges(a, Graph(tensor([]), (9, 1))).size == (9, 2)


@given(edges=EDGES, seed=st.integers(0, 99))
def test_same_edges_whatever_the_order(edges: Edges, seed: int) -> None:
    given = tensor(edges)
    order = torch.randperm(given.size(1), generator=torch.manual_seed(seed))
    graph = Graph(given, 7)
    assert same_edges(graph, Graph(given[:, order], 7))
    if edges:
        assert not same_edges(graph, Graph(given[:, 1:], 7))
        other = given.clone()
        other[0, 0] = 7
        assert not same_edges(Graph(given, 8), Graph(other, 8))


@pytest.mark.parametrize("other", [[(0, 1), (0, 1), (2, 1)], [(0, 1), (2, 1), (2, 1)]])
def test_edges_must_be_there_as_often(other: Edges) -> None:
    graph = Graph(tensor([(0, 1), (1, 1), (2, 1)]), 3)
    assert not same_edges(graph, Graph(tensor(other), 3))
