"""From what was seen of student and teachers to the values of losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recording.capture import Call, Capture, Owner
from pyg_stkd.distill.recording.graph_cache import GraphCache, LayeredCache
from pyg_stkd.distill.recording.inputs import first_tensor, usable
from pyg_stkd.distill.recording.runs import Calls, Run, calls_of, full_name
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.distill.teaching.teachers import Teachers, Weight, loss_of

__all__ = ["Compared", "as_captures", "compare", "device_of", "teacher_calls", "zero"]


@dataclass(frozen=True)
class Compared:
    """The values of losses, the weights of the teachers by name, and what was compared."""

    values: dict[str, Tensor]
    weights: dict[str, Weight]
    student: Calls
    teacher: Calls


def as_captures(teacher: Any) -> TeacherCaptures:
    """Return what a user gave as ``teacher=``: captures, or a dictionary of tensors by layer."""
    if isinstance(teacher, TeacherCaptures):
        return teacher
    if not isinstance(teacher, Mapping):
        raise TypeError(
            "'teacher' must be the result of capture_teacher() or a dictionary of tensors by "
            f"layer (got {type(teacher).__name__})"
        )
    captures = {}
    for layer, value in teacher.items():
        if isinstance(value, Tensor):
            value = Capture(usable(value.detach()), layer=layer, owner="teacher")
        if not isinstance(value, Capture):
            raise TypeError(
                f"'teacher' must hold tensors (got {type(value).__name__} for layer {layer!r})"
            )
        captures[layer] = (value,)
    return TeacherCaptures(captures)


def teacher_calls(runs: list[Run] | None, known: Any) -> Calls:
    """Return the captures of the teachers that ran, else those that a user gave."""
    return as_captures(known) if runs is None else calls_of(runs)


def compare(
    losses: Mapping[str, DistillationLoss],
    student: Calls,
    teacher: Calls,
    teachers: Teachers,
    target: Any,
    nodes: Tensor | None,
    graphs: GraphCache,
) -> Compared:
    """Return the values of losses, each the weighted sum over the teachers."""
    known = teacher.graphs if isinstance(teacher, TeacherCaptures) else graphs
    both = graphs if known is graphs else LayeredCache(known, graphs)
    student, teacher = (
        {layer: tuple(capture.at(nodes, kept) for capture in seen) for layer, seen in x.items()}
        for x, kept in ((student, both), (teacher, known))
    )
    weights = _weigh(teachers, teacher, target)
    values: dict[str, Tensor] = {}
    for name, loss in losses.items():
        total: Any = 0
        for k, (place, weight) in enumerate(weights.items()):
            value = _compare(name, loss_of(loss, k), student, teacher, place, target)
            total = total + (value * weight).to(value.dtype)
        values[name] = total
    return Compared(values, weights, student, teacher)


def _weigh(teachers: Teachers, calls: Calls, target: Any) -> dict[str, Weight]:
    outputs: list[Capture] = []
    if teachers.gated:
        for name in teachers.names:
            outputs += _select(calls, "teacher", name, "last", "weights='confidence'")
    return dict(zip(teachers.names, teachers.weigh(outputs, target), strict=True))


def _compare(
    name: str,
    loss: DistillationLoss,
    student: Calls,
    teacher: Calls,
    place: str,
    target: Any,
) -> Tensor:
    """Return the value of one loss for one teacher, the mean over the calls it looks at."""
    layer = full_name(place, loss.teacher_layer)
    ours = _select(student, "student", loss.student_layer, loss.call, f"loss {name!r}")
    theirs = _select(teacher, "teacher", layer, loss.teacher_call, f"loss {name!r}")
    if len(ours) != len(theirs):
        raise ValueError(
            f"The layers of loss {name!r} must be called equally often for call='all' "
            f"(got {len(ours)} calls by the student and {len(theirs)} by the teacher)"
        )
    values = []
    for s, t in zip(ours, theirs, strict=True):
        try:
            value = loss(s, t, target=target)
        except (TypeError, ValueError, IndexError) as error:
            if type(error) not in (TypeError, ValueError, IndexError):
                raise  # a class of its own may be made in another way
            raise type(error)(f"Loss {name!r}, {s.where}, {t.where}: {error}") from error
        if not isinstance(value, Tensor) or value.dim() > 0 or not value.is_floating_point():
            kind = (
                f"shape {list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else ""
            )
            raise TypeError(
                f"Loss {name!r} must return a floating point scalar "
                f"(got {kind or type(value).__name__})"
            )
        values.append(value)
    return values[0] if len(values) == 1 else torch.stack(values).mean()


def _select(calls: Calls, owner: Owner, layer: str, call: Call, user: str) -> tuple[Capture, ...]:
    where = f"{owner} layer {layer!r}" if layer else f"{owner} output"
    if layer not in calls:
        raise ValueError(
            f"'{owner}' has no capture of the {where}, which {user} needs "
            f"(got {sorted(calls)}); make it with capture_teacher() of this distiller"
        )
    seen = _choose(calls[layer], where, call, user)
    if owner == "student" and torch.is_grad_enabled() and not all(c.grad for c in seen):
        raise ValueError(
            f"The {where}, which {user} needs, must run with gradients (got a call without): "
            f"checkpoint it with use_reentrant=False, or take it out of torch.no_grad()"
        )
    return seen


def _choose(seen: tuple[Capture, ...], where: str, call: Call, user: str) -> tuple[Capture, ...]:
    if not seen:
        raise RuntimeError(
            f"The {where}, which {user} needs, was called 0 times in this forward: the "
            f"model skips it, calls its forward() past the hooks, or was compiled and run before "
            f"the distiller was built"
        )
    if call == "all":
        return seen
    index = len(seen) - 1 if call == "last" else call
    if not -len(seen) <= index < len(seen):
        raise IndexError(
            f"'call' of {user} must be below the {len(seen)} calls of the {where} (got {call})"
        )
    return (seen[index],)


def device_of(output: Any) -> torch.device:
    """Return the device of a model's output."""
    tensor = first_tensor(output)
    return torch.device("cpu") if tensor is None else tensor.device


def zero(loss: nn.Module, output: Any) -> Tensor:
    """Return 0 with gradients 0 for the loss's own parameters, which DDP waits for."""
    start = torch.zeros((), device=device_of(output))
    own = (parameter for parameter in loss.parameters() if not is_lazy(parameter))
    return sum((parameter.sum() * 0 for parameter in own), start=start)
