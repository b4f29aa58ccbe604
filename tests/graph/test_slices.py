from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_stkd.functional import sddmm, segment_log_softmax, spmm
from pyg_stkd.graph import Graph
from pyg_stkd.graph.slices import SliceBlocks, slice_blocks

EMPTY = torch.empty(2, 0, dtype=torch.long)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int], int]:
    size = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    count = draw(st.integers(0, 20))
    edge_index = torch.stack([torch.randint(n, (count,)) for n in size])
    return edge_index, size, draw(st.integers(2, 5))


def copies(edge_index: Tensor, size: tuple[int, int], count: int) -> Graph:
    """Builds the graph of all slices by a sort."""
    parts = [edge_index + torch.tensor(size)[:, None] * s for s in range(count)]
    return Graph(torch.cat(parts, dim=1), (size[0] * count, size[1] * count))


@given(graphs())
def test_blocks_are_disjoint_copies(case: tuple[Tensor, tuple[int, int], int]) -> None:
    edge_index, size, count = case
    blocks, expected = SliceBlocks(Graph(edge_index, size), count), copies(*case)
    assert (blocks.size, blocks.num_edges) == (expected.size, expected.num_edges)
    for name in ("edge_index", "perm", "rowptr", "degree"):
        assert torch.equal(getattr(blocks, name), getattr(expected, name)), name
    for ours, theirs in zip(
        blocks.csr() + blocks.csc(), expected.csr() + expected.csc(), strict=True
    ):
        assert torch.equal(ours.long(), theirs.long())


@given(graphs())
def test_primitives_work_slice_by_slice(case: tuple[Tensor, tuple[int, int], int]) -> None:
    edge_index, size, count = case
    graph = Graph(edge_index, size)
    blocks = slice_blocks(graph, count)
    a = torch.randn(count, size[1], 3, dtype=torch.double, requires_grad=True)
    b = torch.randn(count, size[0], 3, dtype=torch.double, requires_grad=True)
    score = sddmm(blocks, a.flatten(0, 1), b.flatten(0, 1))
    out = spmm(blocks, segment_log_softmax(blocks, score), b.flatten(0, 1))
    expected = []
    for s in range(count):
        weight = segment_log_softmax(graph, sddmm(graph, a[s], b[s]))
        expected.append(spmm(graph, weight, b[s]))
    grad = torch.randn_like(out)
    ours = torch.autograd.grad(out, (a, b), grad)
    theirs = torch.autograd.grad(torch.cat(expected), (a, b), grad)
    for x, y in zip((out, *ours), (torch.cat(expected), *theirs), strict=True):
        torch.testing.assert_close(x, y)


def test_blocks_are_kept_for_two_numbers_of_slices() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    full, last = slice_blocks(graph, 8), slice_blocks(graph, 3)
    assert slice_blocks(graph, 8) is full
    assert slice_blocks(graph, 3) is last
    slice_blocks(graph, 5)  # the number that was not asked for the longest goes
    assert slice_blocks(graph, 3) is last
    assert slice_blocks(graph, 8) is not full


def test_one_slice_is_the_graph_itself() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    assert slice_blocks(graph, 1) is graph
    with pytest.raises(ValueError, match=r"'num_slices' must not be negative \(got -1\)"):
        slice_blocks(graph, -1)


def test_no_slices() -> None:
    blocks, empty = slice_blocks(Graph(torch.tensor([[0, 1], [1, 0]])), 0), Graph(EMPTY, 0)
    assert (blocks.size, blocks.num_edges) == ((0, 0), 0)
    for a, b in zip((*blocks.csr(), *blocks.csc()), (*empty.csr(), *empty.csc()), strict=True):
        assert torch.equal(a, b)


def test_blocks_of_an_evaluation_serve_training() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    x = torch.randn(4, 3, requires_grad=True)
    with torch.inference_mode():
        sddmm(slice_blocks(graph, 2), x, x)
        slice_blocks(graph, 2).csc()
    sddmm(slice_blocks(graph, 2), x, x).sum().backward()
    expected = 2 * torch.cat([x[1:2], x[:1], x[3:], x[2:3]])
    torch.testing.assert_close(x.grad, expected.detach())


def test_to_moves_the_base(device: torch.device) -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    moved = slice_blocks(graph, 2).to(device)
    assert moved.device.type == device.type
    assert moved.edge_index.tolist() == [[1, 0, 3, 2], [0, 1, 2, 3]]
    assert moved.to(device) is moved


def test_slices_last_as_long_as_their_graph() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    assert slice_blocks(graph, 2).lasting
    once = Graph(torch.tensor([[0, 1], [1, 0]]))
    once.lasting = False
    assert not slice_blocks(once, 2).lasting
