"""The union of an edge set that lasts and one that is seen once, and what is new in it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.lazy import SortedGraph
from pyg_stkd.graph.order import fits_int32, places, pointers, usable_in_training

__all__ = ["ExtendedGraph", "simple"]


class ExtendedGraph(SortedGraph):
    r"""The union of two graphs on the same nodes, as :func:`~pyg_stkd.graph.union_edges` makes it.

    The edges of the first are not sorted again, and it is known where they are: what was computed
    of them need be computed of the new ones only. What takes both parts one after another needs no
    arrays of the union, which are made when asked for. It is for one use, see
    :attr:`Graph.lasting`.

    Args:
        known (Graph): A graph of :func:`simple`.
        other (Graph): Another graph on the same nodes.

    Attributes:
        known: The first graph.
        more: The graph of the edges that it lacks.

    Example:
        >>> known = simple(Graph(torch.tensor([[0, 1], [1, 0]]), 3))
        >>> union = ExtendedGraph(known, Graph(torch.tensor([[0, 2], [1, 1]]), 3))
        >>> union.edge_index.tolist(), union.more.edge_index.tolist(), union.of_more.tolist()
        ([[1, 0, 2], [0, 1, 1]], [[2], [1]], [2])
    """

    lasting = False

    def __init__(self, known: Graph, other: Graph) -> None:
        if known.size != other.size:
            raise ValueError(
                f"'other' must be on the {known.size} nodes of 'known' (got {other.size})"
            )
        # Few are not found at a look: those are sorted, and searched for.
        ours = _keys(other).index_select(0, places(~_found(known, other)))
        ours = ours.sort().values.unique_consecutive()
        theirs = known.derived("keys", lambda: _keys(known))
        before = _before(theirs, ours)
        if theirs.numel() > 0:
            same = theirs.index_select(0, before.clamp(max=theirs.numel() - 1)) == ours
            new = places(~same)
            ours, before = ours.index_select(0, new), before.index_select(0, new)
        self.known, self.more, self._before = known, _of_keys(ours, known), before
        self.more.lasting = False
        self.value, self._derived = None, {}

    @cached_property
    def arrays(self) -> Arrays:  # type: ignore[override]
        """The arrays of the union."""
        with usable_in_training():
            pointer, *ends = self.known.csr()
            more, *others = self.more.csr()
            both = [self.merge(*pair) for pair in zip(ends, others, strict=True)]
            return Arrays(self.size, (pointer + more.to(pointer.dtype), both[0], both[1]))

    @cached_property
    def of_more(self) -> Tensor:
        """The places of the edges that the first graph lacks."""
        return self._before + torch.arange(self._before.numel(), device=self.device)

    @cached_property
    def of_known(self) -> Tensor:
        """The places of the edges of the first graph."""
        is_known = torch.ones(self.num_edges, dtype=torch.bool, device=self.device)
        is_known[self.of_more] = False
        return places(is_known)

    def merge(self, of_known: Tensor, of_more: Tensor) -> Tensor:
        """Return values of all edges, given those of the known ones and of the others."""
        out = of_known.new_empty(of_known.numel() + of_more.numel())
        out.index_copy_(0, self.of_known, of_known)
        return out.index_copy_(0, self.of_more, of_more.to(out.dtype))

    @property
    def size(self) -> tuple[int, int]:
        return self.known.size

    @property
    def num_edges(self) -> int:
        return self.known.num_edges + self.more.num_edges

    @property
    def device(self) -> torch.device:
        return self.known.device

    @property
    def degree(self) -> Tensor:
        return self.known.degree + self.more.degree


def simple(graph: Graph) -> Graph:
    """Return the same edges, each once, sorted by target and source; kept with the graph.

    Example:
        >>> simple(Graph(torch.tensor([[2, 1, 2], [0, 0, 0]]))).edge_index.tolist()
        [[1, 2], [0, 0]]
    """
    return graph.derived(
        "simple", lambda: _of_keys(_keys(graph).sort().values.unique_consecutive(), graph)
    )


def _of_keys(key: Tensor, like: Graph) -> Graph:
    """Return the graph of some numbers of :func:`_keys`, which are sorted, on another's nodes."""
    num_src, num_dst = like.size
    row = torch.div(key, max(num_src, 1), rounding_mode="floor")
    col = key - row * max(num_src, 1)
    pointer, *_ = like.csr()
    row, col = row.to(pointer.dtype), col.to(pointer.dtype)
    return SortedGraph(Arrays(like.size, (pointers(row, num_dst), col, row)))


def _keys(graph: Graph) -> Tensor:
    """Return a number for each edge, which orders them by target and source."""
    _, col, row = graph.csr()
    num_src, num_dst = graph.size
    if not fits_int32(num_src * num_dst):
        col, row = col.long(), row.long()
    return row * max(num_src, 1) + col


def _found(known: Graph, other: Graph) -> Tensor:
    """Tell for some edges of another graph that they are there; of others it is not known."""
    table = known.derived("slots", lambda: _slots(known))
    _, col, row = other.csr()
    return table.view(-1).index_select(0, _slot(table, col, row)) == col


def _slots(graph: Graph) -> Tensor:
    """Return a source of each target for each remainder of sources, -1 where there is none.

    With twice as many slots as edges or more, most edges have one for themselves.
    """
    _, col, row = graph.csr()
    degree = -(-graph.num_edges // max(graph.num_nodes, 1))
    table = col.new_full((graph.num_nodes, 1 << (2 * degree).bit_length()), -1)
    table.view(-1)[_slot(table, col, row)] = col
    return table


def _slot(table: Tensor, col: Tensor, row: Tensor) -> Tensor:
    width = table.size(1)
    row = row if fits_int32(table.numel()) else row.long()
    return row * width + (col & (width - 1))


def _before(known: Tensor, other: Tensor) -> Tensor:
    """Return how many of some sorted numbers are below each of others, which are sorted too.

    Of which NumPy makes use: on CPU it takes half the time.
    """
    if known.device.type != "cpu":
        return torch.searchsorted(known, other)
    return torch.from_numpy(np.searchsorted(known.numpy(), other.numpy()))
