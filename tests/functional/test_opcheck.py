"""Every operator of the package keeps the promises that a compiler relies on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import pyg_stkd.nn  # noqa: F401 - every module that defines an operator
from pyg_stkd.graph import Graph
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.graph.head_blocks import head_blocks
from pyg_stkd.nn.sequence.gated_conv import PARTS

OPS = torch.ops.pyg_stkd
# Bipartite, with a duplicate edge, a node that nothing enters and one that nothing leaves.
EDGES = torch.tensor([[0, 1, 5, 2, 2, 3, 1, 6], [0, 2, 0, 3, 3, 0, 2, 3]])
EMPTY = EDGES[:, :0]
SIZE = (7, 4)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)

# Memory formats that a compiler hands over where a user's code has views.
STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT if x.dim() > 1 else x,
    "sliced": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "expanded": lambda x: x[:1].expand_as(x) if x.dim() and x.numel() else x,
}


def graph_of(edges: Tensor, wide: bool, square: bool = False) -> Any:
    graph = Graph(edges, (7, 7) if square else SIZE)
    return graph if not wide else Graph64(graph)


class Graph64:
    """A graph whose arrays are of 64 bits, as those of huge graphs are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def csr(self) -> tuple[Tensor, ...]:
        return tuple(part.long() for part in self.graph.csr())

    def csc(self) -> tuple[Tensor, ...]:
        return tuple(part.long() for part in self.graph.csc())


def primitives(edges: Tensor, dtype: torch.dtype, wide: bool) -> Iterator[tuple[Any, list[Any]]]:
    graph = graph_of(edges, wide)
    index = [*graph.csr(), *graph.csc()]
    for head in ((), (3,)):
        x, y = (torch.randn(n, *head, 4).to(dtype) for n in SIZE)
        weight = torch.randn(edges.size(1), *head).to(dtype)
        yield OPS.sddmm, [index, y, x]
        yield OPS.spmm, [index, weight, x, False]
        yield OPS.spmm, [index, weight, y, True]
        yield OPS.segment_sum, [index[0], weight]
        yield OPS.segment_log_softmax, [index[0], index[2], weight]
    weight = torch.randn(edges.size(1)).to(dtype)
    for num_slices in (0, 1, 3):
        slices = [torch.randn(num_slices, n, 4).to(dtype) for n in SIZE]
        yield OPS.spmm_slices, [index, weight, slices[0], False]
        yield OPS.spmm_slices, [index, weight, slices[1], True]
    for argmax in (False, True):
        yield OPS.neighbour_max, [torch.randn(7, 4).to(dtype), index[0], index[1], argmax]


def distances(edges: Tensor, dtype: torch.dtype, wide: bool) -> Iterator[tuple[Any, list[Any]]]:
    graph = graph_of(edges, wide, square=True)
    _, col, row = graph.csr()
    if dtype != torch.bfloat16:  # which is compared in single precision
        grad, lost = torch.randn(edges.size(1)).to(dtype), torch.tensor(True)
        z, pairs = torch.randn(7, 4).to(dtype), torch.randn(2, 5, 4).to(dtype)
        index, shift = [*graph.csr(), *graph.csc()], z.mean(dim=0)
        yield OPS.square_distance, [index, z]
        both = [part.to(index[0].dtype) for part in both_ways(Graph(edges, (7, 7)))]
        for ways in ([], both):
            yield OPS.square_distance_backward, [index, ways, grad, z, shift, lost]
        yield OPS.squared_distances, [pairs]
        yield OPS.squared_distances_backward, [torch.randn(2, 5, 5).to(dtype), pairs, lost]
    z, v = torch.randn(2, 7, 4).to(dtype)
    yield OPS.manhattan, [z, v, col, row]
    yield OPS.manhattan_backward, [torch.randn(edges.size(1)).to(dtype), z, col, row]


def structures(_edges: Tensor, dtype: torch.dtype, _wide: bool) -> Iterator[tuple[Any, list[Any]]]:
    if dtype != torch.float32:  # the only one that is looked at
        return
    for num_nodes, cosine, doubt in itertools.product((1, 7), (True, False), (True, False)):
        s, t = torch.randn(num_nodes, 3), torch.randn(num_nodes, 4)
        for slope in (torch.randn(num_nodes, 3), torch.empty(0, 3)):
            found = torch.randn(()), slope, torch.tensor(doubt)
            yield OPS.gram_gap_again, [s, t, cosine, *found]


def attention(edges: Tensor, dtype: torch.dtype, wide: bool) -> Iterator[tuple[Any, list[Any]]]:
    heads, width = 3, 4
    for square in (False, True):
        blocks = head_blocks(Graph(edges, (7, 7) if square else SIZE), heads)
        index = [*blocks.csr(), *blocks.csc()]
        index = [part.long() for part in index] if wide else index
        num_dst = 7 if square else SIZE[1]
        x = torch.randn(7, heads, width).to(dtype)
        att = torch.randn(2 if square else 1, heads, width).to(dtype)
        score_dst = None if square else torch.randn(num_dst, heads).to(dtype)
        scores = torch.randn(edges.size(1) * heads).to(dtype)
        grad = torch.randn(num_dst, heads * width).to(dtype)
        for edge_score, noise in ((None, None), (scores, scores.abs())):
            args = [index, x, att, score_dst, edge_score, noise, 0.2]
            yield OPS.attention, args
            _, alpha, positive = OPS.attention(*args)
            for needed in ([True, True], [False, True], [True, False], [False, False]):
                yield (
                    OPS.attention_backward,
                    [index, grad, edge_score, x, att, alpha, positive, noise, 0.2, needed],
                )


def clouds(_edges: Tensor, dtype: torch.dtype, _wide: bool) -> Iterator[tuple[Any, list[Any]]]:
    for width in (3, 6):
        x = torch.randn(9, width).to(dtype)
        for batch in (None, torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3])):
            for loop in (False, True):
                yield OPS.knn_graph, [x, 2, batch, loop]
        y, few = torch.randn(4, width).to(dtype), torch.tensor([0, 1, 2, 3])
        yield OPS.knn_pair, [x, y, 2, None, None]
        yield OPS.knn_pair, [x, y, 2, batch, few]


def sequences(_edges: Tensor, dtype: torch.dtype, _wide: bool) -> Iterator[tuple[Any, list[Any]]]:
    if dtype == torch.bfloat16:  # which torch's own convolution runs in
        return
    for (gate, parts), taps in itertools.product(PARTS.items(), (1, 3)):
        for size in ((2, 5, 7, 4), (1, 3, 1, 1), (0, 3, 7, 4), (2, 3, 0, 4)):
            x = torch.randn(size).to(dtype)
            weight = torch.randn(parts * 6, size[3], taps, 1).to(dtype)
            args = [x, weight, torch.randn(parts * 6).to(dtype), gate]
            yield OPS.gated_conv, args
            out, *kept = OPS.gated_conv(*args)
            kept = [*kept, out] if kept else []
            for needed in ([True, True, True], [False, True, False], [True, False, False]):
                back = [torch.randn_like(out), x, weight, kept, gate, needed]
                yield OPS.gated_conv_backward, back


CALLS = (primitives, distances, structures, attention, clouds, sequences)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("calls", CALLS, ids=lambda calls: calls.__name__)
def test_operators(calls: Any, strides: str, dtype: torch.dtype) -> None:
    for edges, wide in ((EDGES, False), (EDGES, True), (EMPTY, False)):
        for op, args in calls(edges, dtype, wide):
            args = [
                STRIDES[strides](a) if isinstance(a, Tensor) and a.is_floating_point() else a
                for a in args
            ]
            torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.full
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("calls", CALLS, ids=lambda calls: calls.__name__)
def test_operators_in_dynamic_graphs(calls: Any, strides: str) -> None:
    for op, args in calls(EDGES, torch.float32, False):
        args = [
            STRIDES[strides](a) if isinstance(a, Tensor) and a.is_floating_point() else a
            for a in args
        ]
        torch.library.opcheck(op, args)


def test_no_operator_is_left_out() -> None:
    called = {str(op) for calls in CALLS for op, _ in calls(EDGES, torch.float32, False)}
    names = torch._C._dispatch_get_all_op_names()
    defined = {name.replace("::", ".") for name in names if name.startswith("pyg_stkd::")}
    assert called == defined
