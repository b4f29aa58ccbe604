"""Which unit each index of a tensor's dimensions belongs to, while a model runs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels

__all__ = ["Axis", "Labels"]


class Axis(NamedTuple):
    """A dimension of units.

    Args:
        channels: The unit of each index.
        zero: Whether what belongs to a masked unit is 0.
        same: Whether it is as in the whole model, as in a buffer. It may be anything else.
    """

    channels: Channels
    zero: bool
    same: bool = False


class Labels:
    """The axes of all tensors that a run has met.

    Args:
        ports (Ports): The units.
    """

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self._axes: dict[int, dict[int, Axis]] = {}
        self._alive: dict[int, Tensor] = {}  # so that no id is used twice

    def knows(self, tensor: Tensor) -> bool:
        """Tell whether it is known where a tensor comes from."""
        return id(tensor) in self._alive

    def of(self, tensor: Tensor) -> dict[int, Axis]:
        """Return the axes of a tensor that are not kept as a whole, by dimension."""
        found = self._axes.get(id(tensor), {})
        return {dim: axis for dim, axis in found.items() if self.ports.is_free(axis.channels)}

    def put(self, tensor: Tensor, axes: dict[int, Axis]) -> None:
        """Set the axes of a tensor."""
        self._alive[id(tensor)] = tensor
        self._axes[id(tensor)] = {d: axis for d, axis in axes.items() if tensor.size(d) > 1}
        for dim, axis in axes.items():
            if tensor.size(dim) == 1:  # the only channel of its dimension
                self.ports.freeze(axis.channels)
