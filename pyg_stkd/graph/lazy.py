"""A graph that has its kernels' arrays, and makes what only some ask for when they do."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.order import usable_in_training

__all__ = ["LazyGraph"]


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
