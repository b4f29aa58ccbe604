from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.graph.head_blocks import HeadBlocks


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    count = draw(st.integers(0, 25))
    return torch.stack([torch.randint(n, (count,)) for n in size]), size


def assert_transposed(graph: HeadBlocks, num_src: int) -> None:
    """Checks a transpose against the graph it belongs to, whatever the order within a source."""
    _, col, row = graph.csr()
    pointer, targets, perm = graph.csc()
    assert pointer.tolist() == [int((col < j).sum()) for j in range(num_src + 1)]
    assert sorted(perm.tolist()) == list(range(col.numel()))
    assert torch.equal(col[perm.long()], col.sort()[0])
    assert torch.equal(row[perm.long()], targets)


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
