"""Copies of a loss with parameters of its own: one for each teacher and each part of an output."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable

from torch import nn

from pyg_stkd.distill.losses.base import DistillationLoss

__all__ = ["copies_of", "has_parameters", "loss_of", "spread"]


def has_parameters(loss: DistillationLoss) -> bool:
    """Whether a loss learns something itself, which fits one width and one part only."""
    return next(loss.parameters(), None) is not None


def spread(loss: DistillationLoss, teachers: int) -> None:
    """Give a loss with parameters of its own a copy of itself for each further teacher and part.

    Parts are those that its :obj:`weights` name. The copies are sub-modules: they are trained,
    saved and pruned with it.

    Example:
        >>> from pyg_stkd.distill import HintLoss
        >>> loss = HintLoss("a", "a", in_channels=4, out_channels=8)
        >>> spread(loss, 3)
        >>> [loss_of(loss, k) is loss for k in range(3)]
        [True, False, False]
    """
    if not has_parameters(loss):
        return
    _spread(loss, "of_part", [_word(part) for part in list(loss.weights or ())[1:]])
    _spread(loss, "of_teacher", [str(k) for k in range(1, teachers)])


def loss_of(loss: DistillationLoss, teacher: int, part: Hashable = "") -> DistillationLoss:
    """Return the loss as :func:`spread` made it for a teacher and a part, else the loss itself."""
    if "of_teacher" not in loss._modules and "of_part" not in loss._modules:
        return loss
    for kind, name in (("of_teacher", str(teacher)), ("of_part", _word(part))):
        copies = loss._modules.get(kind)
        if isinstance(copies, nn.ModuleDict) and name in copies:
            loss = copies[name]  # type: ignore[assignment]
    return loss


def copies_of(loss: DistillationLoss) -> list[DistillationLoss]:
    """Return the loss and the copies of it that :func:`spread` made.

    Example:
        >>> from pyg_stkd.distill import HintLoss
        >>> loss = HintLoss("a", "a", in_channels=4, out_channels=8)
        >>> len(copies_of(loss)), spread(loss, 3), len(copies_of(loss))
        (1, None, 3)
    """
    kept = (loss._modules.get(kind) for kind in ("of_part", "of_teacher"))
    children = (child for copies in kept if copies is not None for child in copies.children())
    every = [loss]
    for child in children:
        assert isinstance(child, DistillationLoss)
        every += copies_of(child)
    return every


def _spread(loss: DistillationLoss, kind: str, names: list[str]) -> None:
    if not names:
        return
    copies = loss._modules.get(kind, nn.ModuleDict())
    assert isinstance(copies, nn.ModuleDict)
    loss._modules.pop(kind, None)
    added = {name: copy.deepcopy(loss) for name in names if name not in copies}
    copies.update(added)
    loss._modules[kind] = copies


def _word(part: Hashable) -> str:
    """Return the key of a part as the name of a module."""
    return "part_" + re.sub(r"\W", "_", str(part))
