"""What every distillation loss has: two layers, a weight, a name and a schedule."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.distill.recording.capture import Call, Capture
from pyg_stkd.distill.recording.reading.layout import check_layout
from pyg_stkd.distill.recording.reading.parts import Select

__all__ = [
    "DistillationLoss",
    "Schedule",
    "align",
    "default_name",
    "until_epoch",
]

Schedule: TypeAlias = Callable[[int], float]


class DistillationLoss(nn.Module):
    r"""Base class of all distillation losses: subclass it and write :meth:`forward`.

    A loss names one layer of the teacher and one of the student and compares what
    :class:`~pyg_stkd.distill.Distiller` captures there. It is a module: parameters of its own
    (adapters) are trained and saved with the student.

    Args:
        teacher_layer (str): The teacher's layer by its name in :obj:`named_modules()`, :obj:`""`
            for the output of the model. (default: :obj:`""`)
        student_layer (str): The student's layer. (default: :obj:`""`)
        weight (float): The factor of the loss in the total, not negative. (default: :obj:`1.0`)
        name (str, optional): The key of the loss in the results. (default: the name of the class
            in snake case, without :obj:`Loss`)
        schedule (callable, optional): Maps the epoch, an integer from 0 that
            :meth:`Distiller.set_epoch` sets, to a further factor. While it is 0 the loss is not
            computed. (default: :obj:`None`)
        call (int or str): Which call counts where a module is called several times in a forward:
            a number, :obj:`"last"`, or :obj:`"all"` for the mean over the calls, the k-th of the
            student against the k-th of the teacher. (default: :obj:`"last"`)
        teacher_call (int or str, optional): The same for the teacher. (default: :obj:`call`)
        select (optional): Which part of an output counts, where it has several: a key of a
            dictionary, a number in a tuple, the name in a named tuple or dataclass, or a function
            of the output. (default: all parts that both sides have, key by key)
        teacher_select (optional): The same for the teacher. (default: :obj:`select`)
        weights (dict, optional): The weight of each part by its key, in the mean over them; parts
            that are left out are not compared. (default: equal weights)
        layout (str): The order of the axes, of :obj:`"B"` (batch), :obj:`"T"` (time), :obj:`"N"`
            (nodes) and :obj:`"C"` (channels), such as :obj:`"BNCT"`. The default stands for any
            number of axes with the nodes before the channels. (default: :obj:`"BTNC"`)
        teacher_layout (str, optional): The same for the teacher. (default: :obj:`layout`)

    Raises:
        TypeError: If a layer name is not a string, :obj:`weight` is no number, or
            :obj:`schedule` is not callable.
        ValueError: If :obj:`weight`, :obj:`name`, :obj:`call`, :obj:`weights` or :obj:`layout` is
            not as said above.

    Example:
        >>> import torch
        >>> from pyg_stkd.distill import Capture
        >>> class MeanLoss(DistillationLoss):
        ...     def forward(self, student, teacher, target=None):
        ...         return (student.rows.mean() - teacher.rows.mean()) ** 2
        >>> loss = MeanLoss("convs.0", "convs.0", weight=10.0)
        >>> loss.name, loss(Capture(torch.zeros(3, 2)), Capture(torch.ones(3, 4))).item()
        ('mean', 1.0)
    """

    def __init__(
        self,
        teacher_layer: str = "",
        student_layer: str = "",
        weight: float = 1.0,
        name: str | None = None,
        schedule: Schedule | None = None,
        call: Call = "last",
        teacher_call: Call | None = None,
        *,
        select: Select = None,
        teacher_select: Select = None,
        weights: Mapping[Hashable, float] | None = None,
        layout: str = "BTNC",
        teacher_layout: str | None = None,
    ) -> None:
        super().__init__()
        for side, layer in (("teacher_layer", teacher_layer), ("student_layer", student_layer)):
            if not isinstance(layer, str):
                raise TypeError(f"'{side}' must be the name of a module (got {layer!r})")
        weight = checks.number("weight", weight, least=0)
        if schedule is not None and not callable(schedule):
            raise TypeError(f"'schedule' must map an epoch to a factor (got {schedule!r})")
        self.teacher_layer = teacher_layer
        self.student_layer = student_layer
        self.weight = weight
        self.name = default_name(type(self)) if name is None else name
        self.schedule = schedule
        self.call = _check_call("call", call)
        self.teacher_call = self.call
        if teacher_call is not None:
            self.teacher_call = _check_call("teacher_call", teacher_call)
        if "all" in (self.call, self.teacher_call) and self.call != self.teacher_call:
            raise ValueError(
                "'call' and 'teacher_call' must both be 'all' or neither "
                f"(got {call!r} and {teacher_call!r})"
            )
        self.select = select
        self.teacher_select = select if teacher_select is None else teacher_select
        self.weights = None if weights is None else _check_weights(weights)
        self.layout = self.teacher_layout = check_layout("layout", layout)
        if teacher_layout is not None:
            self.teacher_layout = check_layout("teacher_layout", teacher_layout)

    def forward(self, student: Capture, teacher: Capture, target: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar, before :attr:`weight` and :attr:`schedule`.

        Args:
            student (Capture): One call of the student's layer.
            teacher (Capture): One call of the teacher's layer, without gradients.
            target (Tensor, optional): The labels given to the distiller. (default: :obj:`None`)
        """
        raise NotImplementedError

    def parts_of_student(self, student: Capture) -> Mapping[Hashable, Capture]:
        """Return what is compared of one call of the student's layer, by part."""
        return student.parts(self.select, self.layout)

    def parts_of_teacher(self, teacher: Capture) -> Mapping[Hashable, Capture]:
        """Return what is compared of one call of the teacher's layer, by part."""
        return teacher.parts(self.teacher_select, self.teacher_layout)

    def student_maps(self) -> list[nn.Module]:
        """Return the modules with weights that the student's features are given to.

        When :func:`~pyg_stkd.prune.distill_and_prune` makes the student's layer smaller, the linear
        map that comes first in each of them loses the columns of the channels that went. Where a
        loss does not override it, those that take the student's features are found by trial on a
        batch. (default: all its modules)
        """
        if self._parameters:
            return [self]
        copies = ("of_teacher", "of_part")  # those for further teachers and parts answer themselves
        return [module for name, module in self.named_children() if name not in copies]

    def count(self, student: Capture, teacher: Capture, target: Any = None) -> int:
        """Return how many terms :meth:`forward` is a mean over, by default the student's rows.

        Where several processes train together, the distiller takes the mean over the terms of all.
        """
        rows = student.rows
        return rows.numel() // max(1, rows.size(-1)) if rows.dim() > 1 else rows.numel()

    def factor(self, epoch: int) -> float:
        """Return :obj:`weight * schedule(epoch)`."""
        return self.weight * (1.0 if self.schedule is None else self.schedule(epoch))

    def extra_repr(self) -> str:
        return (
            f"{self.teacher_layer!r}, {self.student_layer!r}, "
            f"weight={self.weight}, name={self.name!r}"
        )


@dataclass(frozen=True)
class _UntilEpoch:
    last: int

    def __call__(self, epoch: int) -> float:
        return 1.0 if epoch < self.last else 0.0


def until_epoch(epochs: int) -> Schedule:
    r"""Return a schedule that is 1 for the first epochs and 0 from then on.

    The epoch is that of :meth:`Distiller.set_epoch`, which the training loop must call.

    Args:
        epochs (int): The number of epochs, not negative, that a loss is used.

    Raises:
        TypeError: If :obj:`epochs` is no integer.
        ValueError: If :obj:`epochs` is negative.

    Example:
        >>> schedule = until_epoch(30)
        >>> schedule(29), schedule(30)
        (1.0, 0.0)
    """
    return _UntilEpoch(checks.count("epochs", epochs, least=0))


def align(student: Capture, teacher: Capture, *, rows: bool = True) -> tuple[Tensor, Tensor]:
    r"""Return the features of both, of the same nodes and in the student's precision.

    Args:
        student (Capture): The student's capture.
        teacher (Capture): The teacher's capture.
        rows (bool): Whether to take only the nodes that the losses are restricted to.
            (default: :obj:`True`)

    Raises:
        ValueError: If the numbers of axes or nodes, or the devices, differ.

    Example:
        >>> import torch
        >>> s, t = align(Capture(torch.ones(3, 2)), Capture(torch.ones(3, 4).double()))
        >>> t.dtype
        torch.float32
    """
    s, t = student.features, teacher.features
    dim = max(s.dim() - 1, 1)  # every axis up to the nodes; widths may differ
    if s.dim() != t.dim() or s.shape[:dim] != t.shape[:dim]:
        raise ValueError(
            f"The {student.where} and the {teacher.where} must have the same nodes, row by row "
            f"(got shapes {list(s.shape)} and {list(t.shape)})"
        )
    if s.device != t.device:
        raise ValueError(
            f"The {student.where} and the {teacher.where} must be on one device "
            f"(got {s.device} and {t.device})"
        )
    if rows and student.node_index is not None:
        s = student.rows
    if rows and teacher.node_index is not None:
        t = teacher.rows
    return s, t if t.dtype == s.dtype else t.to(s.dtype)


def default_name(cls: type) -> str:
    """Return the name of a loss class in snake case, without :obj:`Loss`.

    Example:
        >>> class SoftTargetLoss: pass
        >>> default_name(SoftTargetLoss)
        'soft_target'
    """
    name = cls.__name__.removesuffix("Loss") or cls.__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_call(name: str, call: Call) -> Call:
    if call in ("last", "all") or (isinstance(call, int) and not isinstance(call, bool)):
        return call
    raise ValueError(f"'{name}' must be 'last', 'all' or the number of a call (got {call!r})")


def _check_weights(weights: Any) -> dict[Hashable, float]:
    if not isinstance(weights, Mapping):
        raise TypeError(f"'weights' must map parts of an output to numbers (got {weights!r})")
    checked = {key: checks.number("weights", value, least=0) for key, value in weights.items()}
    if not any(checked.values()):
        raise ValueError(f"'weights' must not all be 0 (got {checked})")
    return {key: value for key, value in checked.items() if value > 0}
