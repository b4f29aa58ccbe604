"""The union of an edge set that lasts and one that is seen once, and what is new in it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.lazy import LazyGraph
from pyg_stkd.graph.order import fits_int32, places, pointers, usable_in_training
from pyg_stkd.graph.union import union_edges

__all__ = ["ExtendedGraph", "simple"]


class ExtendedGraph(LazyGraph):
    r"""The union of two graphs on the same nodes, as :func:`~pyg_stkd.graph.union_edges` makes it.

    The edges of the first are not sorted again, and it is known where they are: what was computed
    of them need be computed of the new ones only. It is for one use, see :attr:`Graph.lasting`.

    Args:
        known (Graph): A graph of :func:`simple`.
        other (Graph): Another graph on the same nodes.

    Attributes:
        known: The first graph.
        more: The graph of the edges that it lacks.
        of_known: The places of its edges in the union.
        of_more: The places of the others.

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
        num_src, num_dst = known.size
        ours = _keys(other).sort().values.unique_consecutive()
        theirs = known.derived("keys", lambda: _keys(known))
        before = _before(theirs, ours)
        if theirs.numel() > 0:
            same = theirs.index_select(0, before.clamp(max=theirs.numel() - 1)) == ours
            new = places(~same)
            ours, before = ours.index_select(0, new), before.index_select(0, new)
        self.known = known
        self.of_more = before + torch.arange(ours.numel(), device=ours.device)
        is_known = torch.ones(theirs.numel() + ours.numel(), dtype=torch.bool, device=ours.device)
        is_known[self.of_more] = False
        self.of_known = places(is_known)
        row = torch.div(ours, max(num_src, 1), rounding_mode="floor")
        self.more = Graph.__new__(Graph)
        more = (pointers(row, num_dst), ours - row * max(num_src, 1), row)
        place = torch.arange(row.numel(), device=row.device)
        edge_index = torch.stack([more[1], row]).long()
        self.more._fill(Arrays(known.size, more), perm=place, edge_index=edge_index)
        self.more.lasting = False
        pointer, *ends = known.csr()
        both = [self.merge(*pair) for pair in zip(ends, more[1:], strict=True)]
        csr = pointer + more[0].to(pointer.dtype), both[0], both[1]
        self._fill(Arrays(known.size, csr))

    def merge(self, of_known: Tensor, of_more: Tensor) -> Tensor:
        """Return values of all edges, given those of the known ones and of the others."""
        out = of_known.new_empty(of_known.numel() + of_more.numel())
        out.index_copy_(0, self.of_known, of_known)
        return out.index_copy_(0, self.of_more, of_more.to(out.dtype))

    @cached_property
    def perm(self) -> Tensor:  # type: ignore[override]
        """The identity."""
        with usable_in_training():
            return torch.arange(self.num_edges, device=self.device)


def simple(graph: Graph) -> Graph:
    """Return the same edges, each once, sorted by target and source; kept with the graph.

    Example:
        >>> simple(Graph(torch.tensor([[2, 1, 2], [0, 0, 0]]))).edge_index.tolist()
        [[1, 2], [0, 0]]
    """
    return graph.derived("simple", lambda: union_edges(graph, graph, graph.size))


def _keys(graph: Graph) -> Tensor:
    """Return a number for each edge, which orders them by target and source."""
    _, col, row = graph.csr()
    num_src, num_dst = graph.size
    if not fits_int32(num_src * num_dst):
        col, row = col.long(), row.long()
    return row * max(num_src, 1) + col


def _before(known: Tensor, other: Tensor) -> Tensor:
    """Return how many of some sorted numbers are below each of others, which are sorted too.

    Of which NumPy makes use: on CPU it takes half the time.
    """
    if known.device.type != "cpu":
        return torch.searchsorted(known, other)
    return torch.from_numpy(np.searchsorted(known.numpy(), other.numpy()))
