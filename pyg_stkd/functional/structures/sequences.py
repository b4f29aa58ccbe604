"""Checks of sequences [B, T, N, C] that spatial and temporal correlations share."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

__all__ = ["Direction", "check_direction", "check_pair", "check_sequence"]

Direction = Literal["student", "teacher"]


def check_sequence(name: str, h: Tensor, steps: int = 2) -> None:
    """Raise unless a tensor is [B, T, N, C] of enough steps."""
    if not isinstance(h, Tensor) or not h.is_floating_point():
        kind = h.dtype if isinstance(h, Tensor) else type(h).__name__
        raise TypeError(f"'{name}' must be a tensor of real floating point numbers (got {kind})")
    if h.dim() != 4:
        raise ValueError(f"'{name}' must have shape [B, T, N, C] (got {list(h.shape)})")
    if h.size(1) < steps:
        raise ValueError(
            f"'{name}' [B, T, N, C] must have at least {steps} time steps (got {h.size(1)})"
        )


def check_pair(
    h_student: Tensor, h_teacher: Tensor | None, teacher_structure: Tensor | None, steps: int = 2
) -> tuple[Tensor, Tensor | None]:
    """Return the sequences of both over the steps that they share, the last ones."""
    check_sequence("h_student", h_student, steps)
    if (h_teacher is None) == (teacher_structure is None):
        raise ValueError("Exactly one of 'h_teacher' and 'teacher_structure' must be given")
    if h_teacher is None:
        return h_student, None
    check_sequence("h_teacher", h_teacher, steps)
    (batch, length, num_nodes, _), theirs = h_student.shape, h_teacher.shape
    if (batch, num_nodes) != (theirs[0], theirs[2]):
        raise ValueError(
            "'h_student' and 'h_teacher' [B, T, N, C] must have the same batch and nodes "
            f"(got {list(h_student.shape)} and {list(theirs)})"
        )
    common = min(length, theirs[1])
    return h_student[:, length - common :], h_teacher[:, theirs[1] - common :]


def check_direction(direction: str) -> None:
    """Raise unless a direction is known."""
    if direction not in ("student", "teacher"):
        raise ValueError(f"'direction' must be one of ('student', 'teacher') (got {direction!r})")
