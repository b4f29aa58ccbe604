"""Edges sorted by target and by source: the part of a graph that what is made of it shares."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph.exporting import is_exporting
from pyg_stkd.graph.order import pointers, sort, usable_in_training

__all__ = ["Arrays", "Index"]

# Pointers, ends in the order of the edges, and: the ends that these are sorted by (CSR), or each
# edge's place in the graph (CSC).
Index = tuple[Tensor, Tensor, Tensor]


class Arrays:
    """The arrays of sparse kernels, of which the transpose is made when it is first asked for.

    A graph keeps what is made of it. That must not hold the graph, or the memory of both would
    wait for the garbage collector: it holds the arrays, which know nothing of what is kept.

    Args:
        size ((int, int)): The numbers of sources and targets.
        csr (tuple of Tensor): Pointers, sources and targets of edges sorted by target.
        csc (tuple of Tensor, optional): Pointers per source, targets, and each edge's place in the
            graph. (default: made when asked for)

    Example:
        >>> csr = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0, 0])
        >>> Arrays((2, 1), csr).csc()[2].tolist()
        [1, 0]
    """

    def __init__(self, size: tuple[int, int], csr: Index, csc: Index | None = None) -> None:
        self.size, self._csr, self._csc = size, csr, csc

    def csr(self) -> Index:
        """Return pointers, sources and targets."""
        return self._csr

    def csc(self) -> Index:
        """Return the transpose: pointers per source, targets, each edge's place in the graph."""
        if self._csc is None:
            with usable_in_training():
                transposed = self._transpose()
            if is_exporting():  # which must not leave its stand-ins for tensors behind
                return transposed
            self._csc = transposed
        return self._csc

    def to(self, device: torch.device | str) -> Arrays:
        """Return the arrays on a device, by themselves whatever they were made of."""
        kept = None if self._csc is None else _moved(self._csc, device)
        return Arrays(self.size, _moved(self._csr, device), kept)

    def _transpose(self) -> Index:
        _, col, row = self._csr
        by_source, perm = sort(col)
        return pointers(by_source, self.size[0]), row.index_select(0, perm), perm


def _moved(index: Index, device: torch.device | str) -> Index:
    pointer, ends, other = index
    return pointer.to(device), ends.to(device), other.to(device)
