"""Tests of pyg_stkd/graph/lazy.py: what is built when it is asked for is what a sort would give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pyg_stkd.graph import Graph
from pyg_stkd.graph.extended import ExtendedGraph, simple
from pyg_stkd.graph.lazy import LazyGraph
from pyg_stkd.graph.slices import SliceBlocks

EDGES = torch.tensor([[1, 0, 2, 1], [0, 0, 1, 2]])
MADE = {
    "slices": lambda: SliceBlocks(Graph(EDGES, 4), 3),
    "extended": lambda: ExtendedGraph(simple(Graph(EDGES, 4)), Graph(EDGES.flip(0), 4)),
    "empty": lambda: SliceBlocks(Graph(EDGES[:, :0], 0), 3),
}
LATE = ("edge_index", "rowptr", "perm")


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_is_the_graph_of_its_edges(make: Callable[[], LazyGraph]) -> None:
    graph = make()
    assert not set(LATE) & set(vars(graph))
    edge_index = graph.edge_index[:, torch.randperm(graph.num_edges)]
    expected = Graph(edge_index, graph.size)
    for name in ("rowptr", "degree"):
        ours, theirs = getattr(graph, name), getattr(expected, name)
        assert (ours.dtype, ours.tolist()) == (torch.int64, theirs.tolist()), name
    assert (graph.num_edges, graph.device) == (expected.num_edges, expected.device)
    assert graph.edge_index.dtype == torch.int64
    assert all(getattr(graph, name) is getattr(graph, name) for name in LATE)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_what_an_evaluation_asks_for_serves_training(make: Callable[[], LazyGraph]) -> None:
    with torch.inference_mode():
        graph = make()
        assert not any(getattr(graph, name).is_inference() for name in LATE)
    x = torch.ones(graph.num_edges, requires_grad=True)
    (x * graph.edge_index[0]).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == graph.edge_index[0].tolist()
