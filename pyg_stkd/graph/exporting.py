"""Whether a model is being exported, or transformed by torch.func."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["is_exporting", "is_transforming", "wants_plain"]


def is_exporting() -> bool:
    """Tell whether :func:`torch.export.export` (or :func:`torch.onnx.export`, by it) is at work.

    Sizes are symbols then, of which nothing may be asked, and operators must be such as every
    runtime has.

    Example:
        >>> is_exporting()
        False
    """
    return _is_exporting()


def is_transforming() -> bool:
    """Tell whether a transform of :mod:`torch.func` is at work (``grad``, ``jvp``, ``vmap``, ...).

    Numbers cannot be looked at then, and derivatives are those of torch's own operators.

    Example:
        >>> torch.func.vmap(lambda x: x * is_transforming())(torch.ones(1)).tolist()
        [1.0]
    """
    if torch.compiler.is_compiling():  # which looks into transforms by itself
        return False
    return torch._C._are_functorch_transforms_active()


def wants_plain() -> bool:
    """Tell whether operators of torch alone may run: for export, and for torch.func.

    Example:
        >>> wants_plain()
        False
    """
    return is_exporting() or is_transforming()


# torch 2.6 cannot tell.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)
