"""A graph with a self-loop at each node, derived by index arithmetic alone, without a sort."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays, Index
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.order import pointers

__all__ = ["with_self_loops"]


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
    return graph.derived("loops", lambda: LoopedGraph(graph))


class LoopedGraph(Graph):
    """A graph whose loops close the rows of its base, on the side of the sources too."""

    def __init__(self, base: Graph) -> None:
        pointer, col, row = base.csr()
        size = base.size
        keep = row != col
        every = not torch.compiler.is_compiling() and bool(keep.all())
        perm = base.perm
        if not every:
            given = torch.empty_like(keep)
            given[perm] = keep
            perm = (given.cumsum(0) - 1)[perm[keep]]
            col, row = col[keep], row[keep]
            pointer = pointers(row, size[1])
        num_loops = min(size)
        loops = torch.arange(num_loops, dtype=col.dtype, device=col.device)
        place, at, pointer = _places(pointer, row, loops)
        perm = _merge(place, perm, at, loops.long() + row.numel())
        csr = pointer, _merge(place, col, at, loops), _merge(place, row, at, loops)
        edge_index = torch.stack([csr[1], csr[2]]).long()
        arrays = LoopedArrays(base.arrays, csr, None if every else keep, place, at)
        self._fill(arrays, perm=perm, edge_index=edge_index)


class LoopedArrays(Arrays):
    """The arrays of a graph with loops, whose transpose is made of that of its base.

    Args:
        base (Arrays): The arrays without loops, or with those that were there.
        csr (tuple of Tensor): The arrays with a loop at each node.
        keep (Tensor, optional): Which edges of the base are no loops. (default: all)
        place (Tensor): Where those went.
        loops (Tensor): Where the loops went.
    """

    def __init__(
        self, base: Arrays, csr: Index, keep: Tensor | None, place: Tensor, loops: Tensor
    ) -> None:
        super().__init__(base.size, csr)
        self._base, self._keep, self._loops = base, keep, loops
        if keep is None:
            self._place = place
        else:
            self._place = place.new_empty(keep.numel())
            self._place[keep] = place

    def _transpose(self) -> Index:
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
