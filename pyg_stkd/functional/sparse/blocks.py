"""Graphs derived from a graph by index arithmetic alone, without a sort, and kept with it."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph import Graph, is_exporting
from pyg_stkd.graph.order import fits_int32, pointers, usable_in_training

__all__ = ["HeadBlocks", "head_blocks", "with_self_loops"]


def with_self_loops(graph: Graph) -> Graph:
    r"""Replace the self-loops of a graph by one at each node, as PyG's layers do.

    The result is :obj:`Graph(torch.cat([edges_without_loops, loops], dim=1))`, loops in the order
    of the nodes, and is kept with the graph. A bipartite graph gets loops at the nodes that are
    both sources and targets. Values of a weighted graph are dropped.

    Args:
        graph (Graph): The graph.

    Returns:
        Graph: The graph with loops; its :attr:`Graph.perm` counts the given edges that are no
        loops, then the loops.

    Example:
        >>> graph = with_self_loops(Graph(torch.tensor([[1, 1, 0], [0, 1, 1]])))
        >>> graph.edge_index.tolist(), graph.perm.tolist()
        ([[1, 0, 0, 1], [0, 0, 1, 1]], [0, 2, 1, 3])
    """
    out = graph._derived.get("loops")
    if out is None:
        with usable_in_training():
            out = LoopedGraph(graph)
        if not is_exporting():  # which must not leave its stand-ins for tensors behind
            graph._derived["loops"] = out
    return out


class LoopedGraph(Graph):
    """A graph whose loops close the rows of its base, on the side of the sources too."""

    def __init__(self, base: Graph) -> None:
        pointer, col, row = base.csr()
        self.size, self.value = base.size, None
        self._base, self._derived, self._transposed = base, {}, None
        keep = row != col
        every = not torch.compiler.is_compiling() and bool(keep.all())
        perm = base.perm
        if not every:
            given = torch.empty_like(keep)
            given[perm] = keep
            perm = (given.cumsum(0) - 1)[perm[keep]]
            col, row = col[keep], row[keep]
            pointer = pointers(row, self.size[1])
        num_loops = min(self.size)
        loops = torch.arange(num_loops, dtype=col.dtype, device=col.device)
        place, self._loops, self._rowptr = _places(pointer, row, loops)
        self._col = _merge(place, col, self._loops, loops)
        self._row = _merge(place, row, self._loops, loops)
        self.perm = _merge(place, perm, self._loops, loops.long() + row.numel())
        self.edge_index = torch.stack([self._col, self._row]).long()
        self.rowptr = self._rowptr.long()
        if every:
            self._place, self._keep = place, None
        else:
            self._place, self._keep = place.new_empty(keep.numel()), keep
            self._place[keep] = place

    def csc(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._transposed is None:
            with usable_in_training():
                self._transposed = self._transpose()
        return self._transposed

    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        pointer, row, perm = self._base.csc()
        if self._keep is not None:
            keep = self._keep.index_select(0, perm)
            row, perm = row[keep], perm[keep]
            col = self._base.csr()[1].index_select(0, perm)
            pointer = pointers(col, self.size[0])
        else:
            col = torch.repeat_interleave(pointer.diff(), output_size=row.numel())
        loops = torch.arange(min(self.size), dtype=row.dtype, device=row.device)
        place, at, pointer = _places(pointer, col.to(row.dtype), loops)
        perm = _merge(place, self._place.index_select(0, perm), at, self._loops)
        return pointer, _merge(place, row, at, loops), perm


def _places(pointer: Tensor, row: Tensor, loops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where edges and loops go when a loop closes each of the first rows, and pointers."""
    num_loops = loops.numel()
    before = torch.arange(pointer.numel(), dtype=pointer.dtype, device=pointer.device)
    before.clamp_(max=num_loops)  # loops in front of each row
    place = torch.arange(row.numel(), dtype=row.dtype, device=row.device)
    place += before.index_select(0, row)
    return place.long(), (pointer[1 : num_loops + 1] + loops).long(), pointer + before


def _merge(place: Tensor, value: Tensor, loop_place: Tensor, loop_value: Tensor) -> Tensor:
    out = value.new_empty(value.numel() + loop_value.numel())
    out[place] = value
    out[loop_place] = loop_value.to(value.dtype)
    return out


class HeadBlocks:
    r"""The graph of (node, head) rows: an edge :math:`(j, h) \to (i, h)` for each edge and head.

    Features :math:`(N, H, F)` are :math:`(N \cdot H, F)` rows to it, so that one call of a
    sparse kernel serves all heads. Edges are sorted by node, then head.

    Args:
        graph (Graph): The edges.
        heads (int): The number of heads.

    Attributes:
        order: Place :math:`e \cdot H + h` in an :math:`(|\mathcal{E}|, H)` array, for each edge
            of the blocks.
    """

    def __init__(self, graph: Graph, heads: int) -> None:
        pointer, col, row = graph.csr()
        if not fits_int32(*(count * heads for count in (*graph.size, graph.num_edges))):
            pointer, col, row = pointer.long(), col.long(), row.long()
        self.graph, self.heads = graph, heads
        self._pointer, self._row, edge = _split(pointer, heads, col.numel())
        head = self._row % heads
        self._col = col.index_select(0, edge) * heads + head
        self.order = edge.mul_(heads).add_(head)
        self._transposed: tuple[Tensor, Tensor, Tensor] | None = None

    def csr(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return pointers, source rows and target rows."""
        return self._pointer, self._col, self._row

    def csc(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the transpose: pointers, target rows and the place of each edge in the blocks."""
        if self._transposed is None:
            with usable_in_training():
                self._transposed = self._transpose()
        return self._transposed

    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        heads, dtype = self.heads, self._col.dtype
        pointer, row, perm = self.graph.csc()
        pointer, bag, edge = _split(pointer.to(dtype), heads, row.numel())
        head = bag.remainder_(heads)
        row = row.to(dtype).index_select(0, edge)
        perm = perm.to(dtype).index_select(0, edge)
        # Edge e of head h lies behind the rows before its own, and h times its own row.
        start = self.graph.csr()[0].to(dtype)
        place = start.index_select(0, row).mul_(heads - 1).add_(perm)
        place += start.diff().index_select(0, row).mul_(head)
        return pointer, row.mul_(heads).add_(head), place


def head_blocks(graph: Graph, heads: int) -> HeadBlocks:
    """Return the :class:`HeadBlocks` of a graph, kept with it."""
    out = graph._derived.get(heads)
    if out is None:
        with usable_in_training():
            out = graph._derived[heads] = HeadBlocks(graph, heads)
    return out


def _split(pointer: Tensor, heads: int, num_edges: int) -> tuple[Tensor, Tensor, Tensor]:
    """Repeat each row once a head; return pointers, and of each edge its new row and old place."""
    degree = pointer.diff()
    head = torch.arange(heads, dtype=pointer.dtype, device=pointer.device)
    start = (pointer[:-1, None] * heads + degree[:, None] * head).flatten()
    total = num_edges * heads
    row = torch.repeat_interleave(degree.repeat_interleave(heads), output_size=total)
    row = row.to(pointer.dtype)
    shift = start - pointer[:-1].repeat_interleave(heads)
    edge = torch.arange(total, dtype=pointer.dtype, device=pointer.device)
    edge -= shift.index_select(0, row)
    return torch.cat([start, start.new_tensor([total])]), row, edge
