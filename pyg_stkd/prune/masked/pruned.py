"""The report of a pruner."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pruned"]


@dataclass(frozen=True)
class Pruned:
    r"""What one stage left.

    Args:
        stage (int): The stage, from 1.
        target (float): The share of the parameters that it may keep.
        num_parameters (int): The number of parameters left.
        share (float): The same as a share of all parameters at first.
        prunable_share (float): The share left of the parameters that can be pruned.
        widths (dict): The number of channels (or weights) left in each group.
    """

    stage: int
    target: float
    num_parameters: int
    share: float
    prunable_share: float
    widths: dict[str, int]
