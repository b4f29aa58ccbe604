"""Sequences of two models, brought to the same time steps."""

from __future__ import annotations

from torch import Tensor

from pyg_stkd.distill.recording.capture import Capture

__all__ = ["align_steps"]


def align_steps(student: Capture, teacher: Capture) -> tuple[Tensor, Tensor]:
    r"""Return the sequences of both over the steps they share, in the student's precision.

    Args:
        student (Capture): The student's capture :math:`(B, T_s, N, C_s)`.
        teacher (Capture): The teacher's capture :math:`(B, T_t, N, C_t)`.

    Raises:
        ValueError: If a capture has other axes, or batch, nodes or devices differ.

    Example:
        >>> import torch
        >>> s, t = align_steps(Capture(torch.ones(1, 3, 2, 4)), Capture(torch.ones(1, 5, 2, 8)))
        >>> s.shape[1] == t.shape[1] == 3
        True
    """
    s, t = student.features, teacher.features
    for capture, h in ((student, s), (teacher, t)):
        if h.dim() != 4:
            raise ValueError(
                f"The {capture.where} must be a sequence [B, T, N, C] (got {list(h.shape)})"
            )
    both = f"The {student.where} and the {teacher.where}"
    if (s.size(0), s.size(2)) != (t.size(0), t.size(2)):
        raise ValueError(
            f"{both} must have the same batch and nodes in [B, T, N, C] "
            f"(got shapes {list(s.shape)} and {list(t.shape)})"
        )
    if s.device != t.device:
        raise ValueError(f"{both} must be on one device (got {s.device} and {t.device})")
    steps = min(s.size(1), t.size(1))
    return s[:, s.size(1) - steps :], t[:, t.size(1) - steps :].to(s.dtype)
