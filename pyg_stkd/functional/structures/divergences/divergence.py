"""What losses between structures share: the divergence, and words for what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.sparse.sparse_ops import compute_dtype
from pyg_stkd.graph import is_transforming

__all__ = ["Direction", "check_finite", "common_dtype", "divergence", "given_structure"]

Direction = Literal["student", "teacher"]


def divergence(student: Tensor, teacher: Tensor, direction: Direction) -> Tensor:
    r"""Return the terms of a Kullback-Leibler divergence between logarithms of structures.

    Args:
        student (Tensor): Those of the student.
        teacher (Tensor): Those of the teacher, of the same shape.
        direction (str): :obj:`"student"` for :math:`\mathrm{KL}(s \Vert t)`, :obj:`"teacher"` for
            :math:`\mathrm{KL}(t \Vert s)`.

    Example:
        >>> s, t = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
        >>> round(divergence(s, t, "student").sum().item(), 4)
        0.1438
    """
    gap = student - teacher
    return student.exp() * gap if direction == "student" else teacher.exp() * -gap


def given_structure(structure: Tensor, shape: Sequence[int], axes: str) -> Tensor:
    """Return the teacher's structure that was given, a constant.

    Raises:
        TypeError: If it is no tensor of real floating point numbers.
        ValueError: If it has another shape.
    """
    checks.dense("teacher_structure", structure)
    if list(structure.shape) != list(shape):
        raise ValueError(
            f"'teacher_structure' must have shape {list(shape)}, {axes} "
            f"(got {list(structure.shape)})"
        )
    return structure.detach()


def common_dtype(*inputs: Tensor | None) -> torch.dtype:
    """Return the dtype of a loss of these inputs, single precision at least.

    Example:
        >>> common_dtype(torch.ones(1).half(), None, torch.ones(1).bfloat16())
        torch.float32
    """
    first, *others = (compute_dtype(x.dtype) for x in inputs if x is not None)
    for other in others:
        first = torch.promote_types(first, other)
    return first


def check_finite(loss: Tensor, what: str, **inputs: Tensor | None) -> None:
    """Raise where a loss is not finite, and say why; compiled code does not look at numbers.

    Raises:
        ValueError: If it is not.
    """
    if torch.compiler.is_compiling() or is_transforming() or math.isfinite(loss.item()):
        return
    for name, value in inputs.items():
        if value is not None and not bool(value.isfinite().all()):
            raise ValueError(f"'{name}' must be finite (got NaN or infinite values)")
    raise ValueError(f"The {what} structures overflow: normalise the features (got loss {loss})")
