"""What need not be computed again: the outputs of a fixed teacher."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures

__all__ = ["TeacherCache"]


class TeacherCache:
    r"""The captures of a fixed teacher for each of a fixed set of inputs.

    A frozen teacher says the same of the same graph in every epoch: run it once.

    Args:
        distiller (Distiller): The distiller whose teacher is asked.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Distiller, SoftTargetLoss
        >>> teacher, student = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        >>> distiller = Distiller(teacher, student, [SoftTargetLoss()])
        >>> cache, x = TeacherCache(distiller), torch.ones(4, 2)
        >>> for epoch in range(2):
        ...     out, losses = distiller(x, teacher=cache("train", x))
        >>> len(cache)
        1
    """

    def __init__(self, distiller: Distiller) -> None:
        self._distiller = distiller
        self._captures: dict[Hashable, TeacherCaptures] = {}

    def __call__(self, key: Hashable, *args: Any, **kwargs: Any) -> TeacherCaptures:
        """Return the captures of the input named :obj:`key`; the first call runs the teacher."""
        if key not in self._captures:
            self._captures[key] = self._distiller.capture_teacher(*args, **kwargs)
        return self._captures[key]

    def clear(self) -> None:
        """Forget all captures, for example after the teacher's weights were changed."""
        self._captures.clear()

    def __len__(self) -> int:
        return len(self._captures)
