from __future__ import annotations

import copy
import pickle

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.utils import add_self_loops, remove_self_loops

from pyg_stkd.functional.blocks import HeadBlocks, head_blocks, with_self_loops
from pyg_stkd.graph import Graph


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    count = draw(st.integers(0, 25))
    return torch.stack([torch.randint(n, (count,)) for n in size]), size


def assert_transposed(graph: Graph | HeadBlocks, num_src: int) -> None:
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


@given(graphs(), st.integers(1, 4))
def test_blocks_are_the_graph_of_nodes_and_heads(
    case: tuple[Tensor, tuple[int, int]], heads: int
) -> None:
    edge_index, size = case
    graph = Graph(edge_index, size)
    blocks = HeadBlocks(graph, heads)
    rows = graph.edge_index[:, :, None] * heads + torch.arange(heads)
    expected = Graph(rows.view(2, -1), (size[0] * heads, size[1] * heads))
    for a, b in zip(blocks.csr(), expected.csr(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(blocks.order.long(), expected.perm)
    assert_transposed(blocks, size[0] * heads)


def test_derived_graphs_are_kept_but_do_not_change_devices_or_copies() -> None:
    graph = Graph(torch.tensor([[0, 1, 1], [1, 1, 0]]))
    looped = with_self_loops(graph)
    assert with_self_loops(graph) is looped
    assert head_blocks(looped, 2) is head_blocks(looped, 2)
    assert head_blocks(looped, 2) is not head_blocks(looped, 3)
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert torch.equal(with_self_loops(other).edge_index, looped.edge_index)
        assert with_self_loops(other) is not looped
    meta = looped.to("meta")
    assert meta.device.type == "meta"
    assert head_blocks(meta, 2).csr()[0].device.type == "meta"
