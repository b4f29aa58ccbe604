from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.utils import add_self_loops, remove_self_loops

from pyg_stkd.graph import Graph
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.graph.head_blocks import head_blocks
from pyg_stkd.graph.looped import with_self_loops
from pyg_stkd.graph.slices import slice_blocks
from pyg_stkd.nn import GATConv


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    count = draw(st.integers(0, 25))
    return torch.stack([torch.randint(n, (count,)) for n in size]), size


def assert_transposed(graph: Graph, num_src: int) -> None:
    """Checks a transpose against the graph it belongs to, whatever the order within a source."""
    _, col, row = graph.csr()
    pointer, targets, perm = graph.csc()
    assert pointer.tolist() == [int((col < j).sum()) for j in range(num_src + 1)]
    assert sorted(perm.tolist()) == list(range(col.numel()))
    assert torch.equal(col[perm.long()], col.sort()[0])
    assert torch.equal(row[perm.long()], targets)


@given(graphs(), st.booleans())
def test_loops_are_those_of_pyg(case: tuple[Tensor, tuple[int, int]], warm: bool) -> None:
    edge_index, size = case
    graph = Graph(edge_index, size)
    if warm:
        graph.csc()
    looped = with_self_loops(graph)
    given_edges = add_self_loops(remove_self_loops(edge_index)[0], num_nodes=min(size))[0]
    expected = Graph(given_edges, size)
    for name in ("edge_index", "perm", "rowptr", "size", "num_edges"):
        a, b = getattr(looped, name), getattr(expected, name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, name
    assert [z.dtype for z in looped.csr()] == [z.dtype for z in expected.csr()]
    assert_transposed(looped, size[0])


def test_derived_graphs_are_kept_but_do_not_change_devices_or_copies() -> None:
    graph = Graph(torch.tensor([[0, 1, 1], [1, 1, 0]]))
    looped = with_self_loops(graph)
    assert with_self_loops(graph) is looped
    assert head_blocks(looped, 2) is head_blocks(looped, 2)
    assert head_blocks(looped, 2) is not head_blocks(looped, 3)
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert torch.equal(with_self_loops(other).edge_index, looped.edge_index)
        assert with_self_loops(other) is not looped


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


@pytest.mark.parametrize("kind", ["graph", "looped", "slices", "looped slices"])
@pytest.mark.parametrize("warm", [False, True])
def test_nothing_stays_on_the_old_device(kind: str, warm: bool) -> None:
    graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 1, 0, 0]]))
    if "looped" in kind:
        graph = with_self_loops(graph)
    if "slices" in kind:
        graph = slice_blocks(graph, 2)
    if warm:
        graph.csc()
        head_blocks(graph, 2).csc()
        both_ways(graph)
    moved = graph.to("meta")
    assert moved.device.type == "meta"
    assert moved.num_edges == graph.num_edges
    if "slices" not in kind or not warm:
        assert head_blocks(moved, 2).csr()[0].device.type == "meta"
    assert {tensor.device.type for tensor in tensors_of(moved)} == {"meta"}


@pytest.mark.parametrize("warm", [False, True])
def test_what_an_evaluation_builds_serves_training(warm: bool) -> None:
    edge_index = torch.tensor([[0, 1, 1], [1, 1, 0]])
    graph, fresh = Graph(edge_index), Graph(edge_index)
    if warm:
        graph.csc()
    with torch.inference_mode():
        looped = with_self_loops(graph)
        blocks = head_blocks(looped, 2)
        for kept in (looped, blocks):
            kept.csc()
        slices = slice_blocks(graph, 2)
        parts = [slices.edge_index, slices.rowptr, slices.perm]
    parts += [looped.edge_index, looped.rowptr, looped.perm, blocks.order]
    parts += [part for kept in (looped, blocks) for part in (*kept.csr(), *kept.csc())]
    assert not any(part.is_inference() for part in parts)
    x = torch.randn(2, 2, 3)
    layers = GATConv(3, 4, heads=2), GATConv(3, 4, heads=2)
    layers[1].load_state_dict(layers[0].state_dict())
    for layer, edges in zip(layers, (graph, fresh), strict=True):
        with torch.inference_mode():
            if edges is graph:
                layer(x[0], edges)
        layer(x[0], edges).square().sum().backward()
    for a, b in zip(*(layer.parameters() for layer in layers), strict=True):
        assert torch.equal(a.grad, b.grad)
