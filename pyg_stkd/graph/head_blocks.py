"""The graph of (node, head) rows, derived by index arithmetic alone, without a sort."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays, Index
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.order import fits_int32

__all__ = ["HeadBlocks", "head_blocks"]


class HeadBlocks(Arrays):
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
        num_src, num_dst = graph.size
        if not fits_int32(*(count * heads for count in (num_src, num_dst, graph.num_edges))):
            pointer, col, row = pointer.long(), col.long(), row.long()
        self._base, self.heads = graph.arrays, heads
        pointer, row, edge = _split(pointer, heads, col.numel())
        head = row % heads
        col = col.index_select(0, edge) * heads + head
        self.order = edge.mul_(heads).add_(head)
        self._csr, self._csc = (pointer, col, row), None

    # A product that is kept is an output of a compiled graph, where Inductor loses its symbol.
    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        """The numbers of source and target rows."""
        num_src, num_dst = self._base.size
        return num_src * self.heads, num_dst * self.heads

    def _transpose(self) -> Index:
        heads, dtype = self.heads, self.csr()[1].dtype
        pointer, row, perm = self._base.csc()
        pointer, bag, edge = _split(pointer.to(dtype), heads, row.numel())
        head = bag.remainder_(heads)
        row = row.to(dtype).index_select(0, edge)
        perm = perm.to(dtype).index_select(0, edge)
        # Edge e of head h lies behind the rows before its own, and h times its own row.
        start = self._base.csr()[0].to(dtype)
        place = start.index_select(0, row).mul_(heads - 1).add_(perm)
        place += start.diff().index_select(0, row).mul_(head)
        return pointer, row.mul_(heads).add_(head), place


def head_blocks(graph: Graph, heads: int) -> HeadBlocks:
    """Return the :class:`HeadBlocks` of a graph, kept with it."""
    return graph.derived("heads", lambda: HeadBlocks(graph, heads), heads)


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
