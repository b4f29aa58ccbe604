"""Checks of sequences [B, T, N, C] that spatial and temporal correlations share."""

from __future__ import annotations

from torch import Tensor

from pyg_stkd import checks

__all__ = ["check_pair"]


def check_pair(
    h_student: Tensor, h_teacher: Tensor | None, teacher_structure: Tensor | None, steps: int = 2
) -> tuple[Tensor, Tensor | None]:
    """Return the sequences of both over the steps that they share, the last ones."""
    checks.sequence("h_student", h_student, steps)
    if (h_teacher is None) == (teacher_structure is None):
        raise ValueError("Exactly one of 'h_teacher' and 'teacher_structure' must be given")
    if h_teacher is None:
        return h_student, None
    checks.sequence("h_teacher", h_teacher, steps)
    (batch, length, num_nodes, _), theirs = h_student.shape, h_teacher.shape
    if (batch, num_nodes) != (theirs[0], theirs[2]):
        raise ValueError(
            "'h_student' and 'h_teacher' [B, T, N, C] must have the same batch and nodes "
            f"(got {list(h_student.shape)} and {list(theirs)})"
        )
    common = min(length, theirs[1])
    return h_student[:, length - common :], h_teacher[:, theirs[1] - common :]
