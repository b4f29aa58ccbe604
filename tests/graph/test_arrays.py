"""The arrays that a graph shares, and that nothing holds a graph but its owner."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional import lsp, spatial_correlation
from pyg_stkd.graph import Graph
from pyg_stkd.graph.arrays import Arrays
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.graph.head_blocks import head_blocks
from pyg_stkd.graph.looped import with_self_loops
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import ChebConv, GATConv, GCNConv

EDGES = torch.tensor([[0, 1, 1, 2, 3], [1, 1, 0, 0, 2]])  # one is a loop
KERNEL = RBF("median")


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def tensors_of(value: Any, seen: set[int] | None = None) -> list[Tensor]:
    """Lists all tensors that an object reaches through attributes and containers."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        parts = [*value.values()]
    elif isinstance(value, (tuple, list)):
        parts = [*value]
    else:
        parts = [vars(value)] if hasattr(value, "__dict__") else []
    return [tensor for part in parts for tensor in tensors_of(part, seen)]


def make_all(graph: Graph) -> None:
    """Makes everything that is kept with a graph, and of what is kept with it."""
    for each in (graph, with_self_loops(graph), slice_blocks(graph, 3)):
        with_self_loops(slice_blocks(each, 2)).csc()
        slice_blocks(slice_blocks(with_self_loops(each), 2), 3).csc()
        head_blocks(each, 2).csc()
        both_ways(each)
        assert each.perm.numel() == each.edge_index.size(1) == each.rowptr[-1]


def run_layers(graph: Graph) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    for layer in (GATConv(3, 2, heads=2), ChebConv(3, 4), GCNConv(3, 4)):
        layer(x, graph).sum().backward()


def run_losses(graph: Graph) -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    spatial_correlation(x, x.detach().flip(0), graph, KERNEL).backward()
    lsp(x[0, 0], x[1, 0].detach(), graph, KERNEL).backward()


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("use", [make_all, run_layers, run_losses])
def test_memory_is_free_without_the_collector(use: Any) -> None:
    graph = Graph(EDGES, 4)
    use(graph)
    seen = [weakref.ref(tensor) for tensor in tensors_of(graph)]
    assert len(seen) > 8
    del graph
    assert [ref() for ref in seen if ref() is not None] == []


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("make", [with_self_loops, lambda g: slice_blocks(g, 3)], ids=["a", "b"])
def test_what_is_made_outlives_its_graph(make: Any) -> None:
    graph, twin = Graph(EDGES, 4), Graph(EDGES, 4)
    twin.csc()
    made, expected = make(graph), make(twin)
    seen = weakref.ref(graph)
    del graph
    assert seen() is None
    for a, b in zip((*made.csr(), *made.csc()), (*expected.csr(), *expected.csc()), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(made.perm, expected.perm)


def test_a_transpose_is_made_once_for_all() -> None:
    graph = Graph(EDGES, 4)
    looped, heads, slices = with_self_loops(graph), head_blocks(graph, 2), slice_blocks(graph, 2)
    looped.csc()
    made = graph.csc()
    heads.csc()
    slices.csc()
    assert graph.csc() is made
    assert graph.without_derived().csc() is made
    assert graph.without_derived().arrays is graph.arrays


def test_arrays_move_with_their_transpose() -> None:
    arrays = Graph(EDGES, 4).arrays
    assert arrays.to("meta")._csc is None
    arrays.csc()
    moved = arrays.to("meta")
    assert {x.device.type for x in (*moved.csr(), *moved.csc())} == {"meta"}
    assert moved.size == (4, 4)


def test_the_transpose_of_a_bipartite_graph() -> None:
    pointer, source, target = torch.tensor([0, 2, 3]), torch.tensor([2, 0, 2]), [0, 0, 1]
    arrays = Arrays((3, 2), (pointer, source, torch.tensor(target)))
    assert [x.tolist() for x in arrays.csc()] == [[0, 1, 1, 3], [0, 0, 1], [1, 0, 2]]
