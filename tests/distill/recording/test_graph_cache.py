from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import Tensor

from pyg_stkd.distill.recording.graph_cache import GraphCache, LayeredCache
from pyg_stkd.graph import Graph, union_edges


def edges(shift: int = 0) -> Tensor:
    return (torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]) + shift) % 9


def test_a_graph_is_found_by_equal_edges() -> None:
    cache, given = GraphCache(), edges()
    graph = cache.get(given, 4)
    assert graph.edge_index.tolist() == Graph(given, 4).edge_index.tolist()
    assert cache.get(given, 4) is cache.get(edges(), 4) is cache.find(edges(), 4) is graph
    for other, size in (
        (edges(), 5),
        (edges().int(), 4),
        (edges()[:, :3], 4),
        (edges()[:, [1, 0, 2, 3]], 4),
    ):
        assert cache.find(other, size) is None
    given[0, 0] = 2  # the caller's tensor, not the copy that is kept
    assert cache.find(given, 4) is None
    assert cache.find(edges(), 4) is graph


def test_a_sparse_matrix_is_found_by_being_it() -> None:
    cache = GraphCache()
    matrix = torch.sparse_coo_tensor(edges(), torch.ones(4), (4, 4), check_invariants=False)
    graph = cache.get(matrix, 4)
    assert cache.get(matrix, 4) is graph
    assert cache.get(matrix.clone(), 4) is not graph
    kept = cache.get(matrix, 4)
    matrix.add_(matrix)
    assert cache.find(matrix, 4) is not kept


def test_a_graph_is_itself() -> None:
    cache, graph = GraphCache(), Graph(edges(), 4)
    assert cache.get(graph, 4) is graph
    assert not cache.holds(graph)
    with pytest.raises(ValueError, match="the number of rows of the features"):
        cache.get(graph, 5)


def test_the_graph_that_was_used_longest_ago_goes() -> None:
    cache = GraphCache(size=2)
    first, second = cache.get(edges(0), 9), cache.get(edges(1), 9)
    assert cache.get(edges(0), 9) is first
    third = cache.get(edges(2), 9)
    assert [cache.holds(graph) for graph in (first, second, third)] == [True, False, True]
    assert cache.find(edges(1), 9) is None


def test_what_is_derived_is_made_once_of_the_same_graphs() -> None:
    cache, made = GraphCache(size=2), []

    def build(*graphs: Graph) -> Graph:
        made.append(len(graphs))
        return union_edges(graphs[0], graphs[-1])

    a, b = Graph(edges(0), 9), Graph(edges(1), 9)
    union = cache.derive("union", build, a, b)
    assert cache.derive("union", build, a, b) is union
    assert cache.holds(union)
    assert cache.derive("other", build, a, b) is not union
    assert cache.derive("union", build, a, b) is union  # used again: the next one takes the other's
    cache.derive("union", build, b, a)
    assert cache.derive("union", build, a, b) is union
    assert made == [2, 2, 2]
    cache.derive("other", build, a, b)
    assert made == [2, 2, 2, 2]


def test_sources_live_as_long_as_what_is_made_of_them() -> None:
    cache = GraphCache(size=1)
    source = Graph(edges(), 9)
    seen = weakref.ref(source)
    cache.derive("same", lambda graph: Graph(graph.edge_index, 9), source)
    del source
    gc.collect()
    assert seen() is not None  # else its id could be that of another graph
    cache.derive("same", lambda graph: Graph(graph.edge_index, 9), Graph(edges(1), 9))
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("make", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_are_empty(make: object) -> None:
    cache = GraphCache(size=3)
    cache.get(edges(), 4)
    for one in (cache, LayeredCache(GraphCache(), cache)):
        other = make(one)  # type: ignore[operator]
        assert type(other) is GraphCache
        assert other.size == 3
        assert other.find(edges(), 4) is None


def test_layers() -> None:
    known, own = GraphCache(), GraphCache()
    fixed = known.get(edges(0), 9)
    both = LayeredCache(known, own)
    assert both.get(edges(0), 9) is both.find(edges(0), 9) is fixed
    new = both.get(edges(1), 9)
    assert both.find(edges(1), 9) is new
    assert (known.holds(new), own.holds(new), both.holds(new)) == (False, True, True)
    of_known = both.derive("union", union_edges, fixed, fixed)
    of_both = both.derive("union", union_edges, fixed, new)
    assert (known.holds(of_known), own.holds(of_known)) == (True, False)
    assert (known.holds(of_both), own.holds(of_both)) == (False, True)
    assert not both.holds(Graph(edges(0), 9))
