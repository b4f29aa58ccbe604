"""Whether a model is being exported."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["is_exporting"]


def is_exporting() -> bool:
    """Tell whether :func:`torch.export.export` (or :func:`torch.onnx.export`, by it) is at work.

    Sizes are symbols then, of which nothing may be asked, and operators must be such as every
    runtime has.

    Example:
        >>> is_exporting()
        False
    """
    return _is_exporting()


# torch 2.6 cannot tell.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)
