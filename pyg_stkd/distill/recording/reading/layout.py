"""The order of axes: batch, time, nodes and channels, brought to that of this package."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor

__all__ = ["arrange", "check_layout"]

_ORDER = "BTNC"


def check_layout(name: str, layout: Any) -> str:
    """Return an order of axes that names nodes, and each axis once.

    Example:
        >>> check_layout("layout", "BCT")
        Traceback (most recent call last):
        ValueError: 'layout' must name N and others of B, T and C, each once, such as 'BNCT'
        (got 'BCT')
    """
    known = isinstance(layout, str) and set(layout) <= set(_ORDER) and "N" in layout
    if not known or len(set(layout)) != len(layout):
        raise ValueError(
            f"'{name}' must name N and others of B, T and C, each once, such as 'BNCT' "
            f"(got {layout!r})"
        )
    return layout


def arrange(value: Tensor, layout: str, where: Hashable = "tensor") -> Tensor:
    """Return a tensor with its axes in the order B, T, N, C; without a C it gets one channel.

    The default, :obj:`"BTNC"`, stands for any number of axes: the channels are last, the nodes
    before them.

    Example:
        >>> import torch
        >>> arrange(torch.ones(2, 9, 3, 5), "BNCT").shape, arrange(torch.ones(4, 9), "TN").shape
        (torch.Size([2, 5, 9, 3]), torch.Size([4, 9, 1]))
    """
    if layout == _ORDER:
        return value
    if value.dim() != len(layout):
        raise ValueError(
            f"The {where} must have the {len(layout)} axes of layout={layout!r} "
            f"(got shape {list(value.shape)})"
        )
    order = [layout.index(axis) for axis in _ORDER if axis in layout]
    value = value.permute(order)  # in the order B, T, N, C, as far as they are there
    return value if "C" in layout else value.unsqueeze(-1)  # [*, N, 1]
