"""A graph that has its kernels' arrays, and makes what only some ask for when they do."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.order import usable_in_training

__all__ = ["LazyGraph", "SortedGraph"]


class LazyGraph(Graph):
    """A graph made of another's arrays: edges as 64-bit integers are built when asked for.

    A sub-class fills in its arrays, and says what :attr:`perm` is.
    """

    @cached_property
    def edge_index(self) -> Tensor:  # type: ignore[override]
        """Edges, in the order of the arrays."""
        with usable_in_training():
            return torch.stack(self.csr()[1:]).long()

    @cached_property
    def rowptr(self) -> Tensor:  # type: ignore[override]
        """Pointers as 64-bit integers."""
        with usable_in_training():
            return self.csr()[0].long()

    @property
    def num_edges(self) -> int:
        return self.csr()[1].numel()

    @property
    def device(self) -> torch.device:
        return self.csr()[1].device

    @property
    def degree(self) -> Tensor:
        return self.csr()[0].diff().long()


class SortedGraph(LazyGraph):
    """A graph of arrays that are sorted already, in the order of which its edges were given.

    Args:
        arrays (Arrays): The arrays.

    Example:
        >>> csr = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0, 0])
        >>> graph = SortedGraph(Arrays((2, 1), csr))
        >>> graph.edge_index.tolist(), graph.perm.tolist()
        ([[1, 0], [0, 0]], [0, 1])
    """

    def __init__(self, arrays: Arrays) -> None:
        self._fill(arrays)

    @cached_property
    def perm(self) -> Tensor:  # type: ignore[override]
        """The identity."""
        with usable_in_training():
            return torch.arange(self.num_edges, device=self.device)
