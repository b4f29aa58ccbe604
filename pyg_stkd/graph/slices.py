"""Many time slices of one graph as one graph."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays, Index
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.lazy import LazyGraph
from pyg_stkd.graph.order import fits_int32, usable_in_training

__all__ = ["SliceBlocks", "slice_blocks"]


class SliceBlocks(LazyGraph):
    r"""Disjoint copies of a graph, one for each of :math:`S` slices, made without a sort.

    Features :math:`(S, N, F)` are :math:`(S \cdot N, F)` rows to it, and edge values
    :math:`(S \cdot |\mathcal{E}|)` are those of slice after slice, each in the order of the base.
    Values of a weighted graph are dropped.

    Args:
        base (Graph): The graph of one slice.
        num_slices (int): The number of slices :math:`S`.
    """

    def __init__(self, base: Graph, num_slices: int) -> None:
        self._fill(SlicedArrays(base.arrays, num_slices))
        self.lasting = base.lasting
        # Not the graph itself, which keeps what is made here.
        self._base, self._num_slices = base.without_derived(), num_slices

    @property
    def base(self) -> Graph:
        """The graph of one slice."""
        return self._base

    @property
    def num_slices(self) -> int:
        """The number of slices."""
        return self._num_slices

    @cached_property
    def perm(self) -> Tensor:  # type: ignore[override]
        """Places of the edges in the given ones, slice after slice."""
        with usable_in_training():
            return _tile(self._base.perm, self._base.num_edges, self._num_slices)

    def to(self, device: torch.device | str) -> Graph:
        base = self._base.to(device)
        return self if base is self._base else slice_blocks(base, self._num_slices)


class SlicedArrays(Arrays):
    """The arrays of all slices, made of those of one."""

    def __init__(self, base: Arrays, num_slices: int) -> None:
        pointer, col, row = base.csr()
        (num_src, num_dst), num_edges = base.size, col.numel()
        if not fits_int32(*(count * num_slices for count in (*base.size, num_edges))):
            pointer, col, row = pointer.long(), col.long(), row.long()
        csr = (
            _tile_pointer(pointer, num_edges, num_slices),
            _tile(col, num_src, num_slices),
            _tile(row, num_dst, num_slices),
        )
        self._base, self._num_slices = base, num_slices
        self._csr, self._csc = csr, None

    # A product that is kept is an output of a compiled graph, where Inductor loses its symbol.
    @property
    def size(self) -> tuple[int, int]:  # type: ignore[override]
        """The numbers of sources and targets in all slices."""
        num_src, num_dst = self._base.size
        return num_src * self._num_slices, num_dst * self._num_slices

    def _transpose(self) -> Index:
        pointer, row, perm = self._base.csc()
        num_edges, dtype = row.numel(), self.csr()[1].dtype
        return (
            _tile_pointer(pointer.to(dtype), num_edges, self._num_slices),
            _tile(row.to(dtype), self._base.size[1], self._num_slices),
            _tile(perm, num_edges, self._num_slices),
        )


def slice_blocks(graph: Graph, num_slices: int) -> Graph:
    r"""Return the :class:`SliceBlocks` of a graph, kept with it for the numbers used last.

    Args:
        graph (Graph): The graph of one slice.
        num_slices (int): The number of slices, not negative.

    Raises:
        ValueError: If :obj:`num_slices` is negative.

    Example:
        >>> graph = slice_blocks(Graph(torch.tensor([[1, 0], [0, 1]])), 2)
        >>> graph.edge_index.tolist()
        [[1, 0, 3, 2], [0, 1, 2, 3]]
    """
    if num_slices < 0:
        raise ValueError(f"'num_slices' must not be negative (got {num_slices})")
    if num_slices == 1:
        return graph
    # Full batches, and the last one of an epoch.
    return graph.derived("slices", lambda: SliceBlocks(graph, num_slices), num_slices, most=2)


def _tile(index: Tensor, step: int, count: int) -> Tensor:
    offset = torch.arange(count, dtype=index.dtype, device=index.device) * step
    return (index + offset[:, None]).flatten()


def _tile_pointer(pointer: Tensor, num_edges: int, count: int) -> Tensor:
    end = pointer.new_tensor([num_edges * count])
    return torch.cat([_tile(pointer[:-1], num_edges, count), end])
