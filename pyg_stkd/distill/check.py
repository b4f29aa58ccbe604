"""What a dry run of a distiller found."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyg_stkd.distill.comparison import Values
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.reading.parts import all_parts
from pyg_stkd.distill.recording.runs import Calls, full_name
from pyg_stkd.distill.teaching.teachers import Teachers
from pyg_stkd.modes import eval_mode

__all__ = ["CheckReport", "LossReport", "TapReport", "TeacherReport", "dry", "report"]


@dataclass(frozen=True)
class TapReport:
    r"""One layer that losses look at: the shape of each of its calls.

    Args:
        owner (str): The model, :obj:`"teacher"` or :obj:`"student"`.
        layer (str): The name of the layer, :obj:`""` for the output of the model.
        losses (tuple of str): The names of the losses that look at it.
        shapes (tuple): The shape of each call.
        dtype (str): The type of the last call.
        finite (bool): Whether all calls are finite.
        part (hashable): The key of the part of the output, :obj:`""` where there is but one.
            Parts that no loss compares have no :obj:`losses`. (default: :obj:`""`)

    Example:
        >>> TapReport("student", "convs.0", ("lsp",), ((4, 8),), "float32", True).shapes
        ((4, 8),)
    """

    owner: str
    layer: str
    losses: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    finite: bool
    part: Hashable = ""


@dataclass(frozen=True)
class LossReport:
    r"""One loss: its value before the factor, weight times schedule.

    Args:
        name (str): The name of the loss.
        value (float): Its value.
        factor (float): The factor of this epoch.
        finite (bool): Whether the value is finite.

    Example:
        >>> loss = LossReport("lsp", value=0.5, factor=10.0, finite=True)
        >>> loss.value * loss.factor
        5.0
    """

    name: str
    value: float
    factor: float
    finite: bool


@dataclass(frozen=True)
class TeacherReport:
    r"""One teacher: what goes before its layers' names, its class, and its weight on the batch.

    Args:
        name (str): Its number among several, :obj:`""` where there is one.
        model (str): The name of its class.
        weight (float): Its weight.

    Example:
        >>> TeacherReport("0", "GAT", weight=0.75).model
        'GAT'
    """

    name: str
    model: str
    weight: float


@dataclass(frozen=True)
class CheckReport:
    r"""Every tapped tensor's shape, and every loss's value, of one dry run.

    Args:
        taps (tuple): The tapped layers, the teacher's first.
        losses (tuple): The losses.
        teachers (tuple): The teachers; several are listed with their weights.
            (default: :obj:`()`)

    Example:
        >>> from torch import nn, ones
        >>> from pyg_stkd.distill import Distiller, HintLoss
        >>> loss = HintLoss("", "", projection=False)
        >>> report = Distiller(nn.ReLU(), nn.Identity(), [loss]).check(ones(4, 2))
        >>> print(report)
        tap               shape   dtype    finite  losses
        teacher (output)  [4, 2]  float32  yes     hint
        student (output)  [4, 2]  float32  yes     hint
        <BLANKLINE>
        loss  value  factor  finite
        hint  0      1       yes
        >>> report.ok
        True
    """

    taps: tuple[TapReport, ...]
    losses: tuple[LossReport, ...]
    teachers: tuple[TeacherReport, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every tapped tensor and every loss is finite."""
        return all(tap.finite for tap in self.taps) and all(loss.finite for loss in self.losses)

    def __str__(self) -> str:
        taps = [("tap", "shape", "dtype", "finite", "losses")]
        for tap in self.taps:
            shapes = [str(list(shape)) for shape in tap.shapes]
            shape = shapes[-1] if len(shapes) == 1 else f"{len(shapes)} calls, last {shapes[-1]}"
            places = [teacher.name for teacher in self.teachers if tap.owner == "teacher"]
            output = "(output)" if tap.layer in ("", *places) else ""
            part = "" if tap.part == "" else f"part {tap.part!r}"
            where = " ".join(filter(None, (tap.owner, tap.layer, output, part)))
            users = ", ".join(tap.losses) or "not compared"
            taps.append((where, shape, tap.dtype, _yes(tap.finite), users))
        rows = [("loss", "value", "factor", "finite")]
        for loss in self.losses:
            rows.append((loss.name, f"{loss.value:.6g}", f"{loss.factor:g}", _yes(loss.finite)))
        tables = [_table(taps), _table(rows)]
        if len(self.teachers) > 1:
            each = [(t.name, t.model, f"{t.weight:.6g}") for t in self.teachers]
            tables.append(_table([("teacher", "model", "weight"), *each]))
        return "\n\n".join(tables)


@contextmanager
def dry(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; modes and random numbers are as before afterwards.

    Example:
        >>> model = nn.Dropout()
        >>> with dry(model):
        ...     model.training, torch.is_grad_enabled()
        (False, False)
        >>> model.training
        True
    """
    cuda = {p.device.index for p in module.parameters() if p.is_cuda}
    with eval_mode(module), torch.random.fork_rng(sorted(cuda)), torch.no_grad():
        yield


def report(
    seen: Values, losses: Mapping[str, DistillationLoss], teachers: Teachers, epoch: int
) -> CheckReport:
    """Describe the captures of both sides, the losses and the teachers."""
    taps: list[TapReport] = []
    for place in teachers.names:
        taps += report_taps("teacher", seen.teacher, losses, place)
    taps += report_taps("student", seen.student, losses)
    each = (
        TeacherReport(place, type(model).__name__, float(seen.of_teacher[place]))
        for place, model in zip(teachers.names, teachers, strict=True)
    )
    return CheckReport(tuple(taps), tuple(report_losses(losses, seen.of_loss, epoch)), tuple(each))


def report_taps(
    owner: str, calls: Calls, losses: Mapping[str, DistillationLoss], place: str = ""
) -> Iterator[TapReport]:
    """Describe the layers that losses look at, part by part, and what of them nobody compares.

    Example:
        >>> from torch import ones
        >>> from pyg_stkd.distill import Capture, HintLoss
        >>> calls = {"a": (Capture({"x": ones(3, 2), "y": ones(4, 2)}, layer="a"),)}
        >>> taps = report_taps("student", calls, {"hint": HintLoss("a", "a", select="x")})
        >>> [(tap.part, tap.shapes, tap.losses) for tap in taps]
        [('x', ((3, 2),), ('hint',)), ('y', ((4, 2),), ())]
    """
    is_teacher = owner == "teacher"
    layers = {
        name: full_name(place, loss.teacher_layer if is_teacher else loss.student_layer)
        for name, loss in losses.items()
    }
    for layer in dict.fromkeys(layers.values()):
        here = {name: loss for name, loss in losses.items() if layers[name] == layer}
        seen = [_every(capture) for capture in calls[layer]]
        for part in dict.fromkeys(key for parts in seen for key in parts):
            values = [parts[part] for parts in seen if part in parts]
            users = (n for n, x in here.items() if _looks_at(x, part, calls[layer][-1], is_teacher))
            yield TapReport(
                owner,
                layer,
                losses=tuple(users),
                shapes=tuple(tuple(value.shape) for value in values),
                dtype=str(values[-1].dtype).removeprefix("torch."),
                finite=all(bool(value.isfinite().all()) for value in values),
                part=part,
            )


def _every(capture: Capture) -> dict[Hashable, Tensor]:
    """Return all tensors of an output by key, those that are compared as they were captured."""
    parts = {key: part.value for key, part in capture.parts().items()}
    return parts if capture.main or list(parts) == [""] else {**all_parts(capture.output), **parts}


def _looks_at(loss: DistillationLoss, part: Hashable, capture: Capture, is_teacher: bool) -> bool:
    """Whether a loss compares a part; one that selects by a function is said to look at all."""
    select = loss.teacher_select if is_teacher else loss.select
    if part == "" or callable(select):
        return True
    if part not in capture.parts():
        return False
    if select is not None:
        return part == select or (isinstance(part, str) and part.startswith(f"{select}."))
    ends = {
        end for key in loss.weights or () if isinstance(key, tuple) for end in (key[0], key[-1])
    }
    return loss.weights is None or part in loss.weights or part in ends


def report_losses(
    losses: Mapping[str, DistillationLoss], values: Mapping[str, Tensor], epoch: int
) -> Iterator[LossReport]:
    """Describe the losses, given the value of each.

    Example:
        >>> import torch
        >>> loss = DistillationLoss(weight=2.0)
        >>> next(report_losses({"a": loss}, {"a": torch.tensor(3.0)}, epoch=0))
        LossReport(name='a', value=3.0, factor=2.0, finite=True)
    """
    for name, value in values.items():
        yield LossReport(name, float(value), losses[name].factor(epoch), bool(value.isfinite()))


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
