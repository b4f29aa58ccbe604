"""From what was seen of student and teachers to the weighted values of losses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.distill.global_mean import several_processes, share_of_process
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.copies import loss_of
from pyg_stkd.distill.losses.matching import match, restrict
from pyg_stkd.distill.recording.capture import Call, Capture, Owner
from pyg_stkd.distill.recording.graph_cache import GraphCache, LayeredCache
from pyg_stkd.distill.recording.nodes import as_nodes
from pyg_stkd.distill.recording.reading.inputs import usable
from pyg_stkd.distill.recording.reading.parts import first_tensor, map_tensors
from pyg_stkd.distill.recording.rows import same_rows
from pyg_stkd.distill.recording.runs import Calls, Run, calls_of, full_name
from pyg_stkd.distill.recording.teacher_captures import TeacherCaptures
from pyg_stkd.distill.teaching.teachers import Teachers, Weight

__all__ = ["Comparison", "Values", "as_captures"]

_Known = (TypeError, ValueError, IndexError)


@dataclass(frozen=True)
class Values:
    """The values of losses, the weights of the teachers by name, and what was compared."""

    of_loss: dict[str, Tensor]
    of_teacher: dict[str, Weight]
    student: Calls
    teacher: Calls


@dataclass(eq=False)
class Comparison:
    """One forward: what was seen of the student and of its teachers, labels and nodes.

    Args:
        student (Run): What the student did.
        known (list of Run or TeacherCaptures): What the teachers did, or are known to say.
        teachers (Teachers): The teachers.
        graphs (GraphCache): Where the graphs of this distiller are kept.
        target (Any): The labels, if there are any.
        nodes (Any): The nodes that the losses are restricted to, if they are.
        everywhere (bool): Whether means are taken over all processes of torch.distributed, some of
            which may have no nodes.
    """

    student: Run
    known: Any
    teachers: Teachers
    graphs: GraphCache
    target: Any = None
    nodes: Any = None
    everywhere: bool = False

    def __post_init__(self) -> None:
        # Without gradients nothing is averaged, and the others may not be here.
        self._shared = self.everywhere and several_processes() and torch.is_grad_enabled()

    def weighted(self, losses: Mapping[str, DistillationLoss], epoch: int) -> dict[str, Tensor]:
        """Return each loss times its factor of the epoch, 0 without a look where that is 0."""
        factors = {name: loss.factor(epoch) for name, loss in losses.items()}
        active = {name: loss for name, loss in losses.items() if factors[name] != 0}
        values = self.values(active).of_loss if active else {}
        if len(active) == len(losses):
            return {name: _times(value, factors[name]) for name, value in values.items()}
        device = _device_of(self.student.output)
        return {
            name: _times(values[name], factors[name]) if name in active else _zero(loss, device)
            for name, loss in losses.items()
        }

    def values(self, losses: Mapping[str, DistillationLoss]) -> Values:
        """Return the values of losses, each the weighted sum over the teachers."""
        device = _device_of(self.student.output)
        with full_precision(device):
            nodes = as_nodes(self.nodes, device, empty=self._shared)
            student, teacher = self._captures(nodes)
            weights = self._teacher_weights(teacher)
            values: dict[str, Tensor] = {}
            for name, loss in losses.items():
                for k, (place, weight) in enumerate(weights.items()):
                    own, pairs = loss_of(loss, k), _pairs(name, loss, student, teacher, place)
                    value = _mean([self._value(name, own, *pair, nodes) for pair in pairs])
                    if len(weights) > 1:
                        value = (value * weight).to(value.dtype)
                    values[name] = value if k == 0 else values[name] + value
        return Values(values, weights, student, teacher)

    def _value(
        self, name: str, loss: DistillationLoss, student: Capture, teacher: Capture, nodes: Any
    ) -> Tensor:
        """Return the value of one loss of one pair of calls, the weighted mean over the parts."""
        try:
            pairs = restrict(match(loss, student, teacher), nodes)
        except _Known as error:
            _tell(error, name, student, teacher)
        values = []
        for pair in pairs:
            try:
                both = same_rows(pair.student, pair.teacher, output=not loss.teacher_layer)
            except _Known as error:
                _tell(error, name, pair.student, pair.teacher)
            target = self.target
            if target is not None and isinstance(target, Mapping) and pair.part in target:
                target = target[pair.part]
            own = loss_of(loss, 0, pair.part)
            values.append(self._computed(name, own, *both, target))
        if len(values) == 1:
            return values[0]
        weights = torch.tensor([pair.weight for pair in pairs], dtype=values[0].dtype)
        return torch.stack(values) @ weights.to(values[0].device)

    def _computed(
        self,
        name: str,
        loss: DistillationLoss,
        student: Capture,
        teacher: Capture,
        target: Any,
    ) -> Tensor:
        """Return the value of one part, in training weighted by this process's share of terms."""
        if not self._shared:
            return _computed(name, loss, student, teacher, target)
        nobody = student.num_nodes == 0 or (student.nodes is not None and len(student.nodes) == 0)
        count = 0 if nobody else loss.count(student, teacher, target)
        if count == 0:
            value = _zero(loss, student.value.device) + student.value.sum() * 0
        else:
            value = _computed(name, loss, student, teacher, target)
        return value * share_of_process(count, value.device).to(value.dtype)

    def _captures(self, nodes: Any) -> tuple[Calls, Calls]:
        """Return the calls of both sides, at the nodes, with the graphs that are kept for them."""
        nodes = nodes if isinstance(nodes, Tensor) else None  # those by part come with the parts
        if isinstance(self.known, list):
            teacher = calls_of(self.known, nodes, self.graphs)
            return self.student.captures(nodes, self.graphs), teacher
        given = as_captures(self.known)
        teacher = {
            layer: tuple(capture.at(nodes, given.graphs) for capture in seen)
            for layer, seen in given.items()
        }
        return self.student.captures(nodes, LayeredCache(given.graphs, self.graphs)), teacher

    def _teacher_weights(self, calls: Calls) -> dict[str, Weight]:
        outputs: list[Capture] = []
        if self.teachers.gated:
            for name in self.teachers.names:
                (output,) = _select(calls, "teacher", name, "last", "weights='confidence'")
                parts = output.parts()
                if len(parts) > 1:
                    raise ValueError(
                        f"weights='confidence' needs teachers of one output "
                        f"(got the parts {list(parts)} of the {output.where})"
                    )
                outputs += parts.values()
        weights = self.teachers.weigh(outputs, self.target)
        return dict(zip(self.teachers.names, weights, strict=True))


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
        if not isinstance(value, Capture) and first_tensor(value) is not None:
            output = map_tensors(lambda x: usable(x.detach()), value)
            value = Capture(output, layer=layer, owner="teacher")
        if not isinstance(value, Capture):
            raise TypeError(
                f"'teacher' must hold tensors (got {type(value).__name__} for layer {layer!r})"
            )
        captures[layer] = (value,)
    return TeacherCaptures(captures)


def _pairs(
    name: str, loss: DistillationLoss, student: Calls, teacher: Calls, place: str
) -> list[tuple[Capture, Capture]]:
    """Return what one loss compares with one teacher: a pair of calls, or all of them."""
    layer, user = full_name(place, loss.teacher_layer), f"loss {name!r}"
    ours = _select(student, "student", loss.student_layer, loss.call, user)
    theirs = _select(teacher, "teacher", layer, loss.teacher_call, user)
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    if len(ours) != len(theirs):
        raise ValueError(
            f"The layers of loss {name!r} must be called equally often for call='all' "
            f"(got {len(ours)} calls by the student and {len(theirs)} by the teacher)"
        )
    return list(zip(ours, theirs, strict=True))


def _computed(
    name: str, loss: DistillationLoss, student: Capture, teacher: Capture, target: Any
) -> Tensor:
    """Return what a loss says of one part of one pair of calls."""
    try:
        value = loss(student, teacher, target=target)
    except _Known as error:
        _tell(error, name, student, teacher)
    if not isinstance(value, Tensor) or value.dim() > 0 or not value.is_floating_point():
        kind = f"shape {list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else ""
        raise TypeError(
            f"Loss {name!r} must return a floating point scalar "
            f"(got {kind or type(value).__name__})"
        )
    return value


def _tell(error: Exception, name: str, student: Capture, teacher: Capture) -> NoReturn:
    """Raise an error again that says which loss at which layers it is."""
    if type(error) not in _Known:
        raise error  # a class of its own may be made in another way
    where = f"Loss {name!r}, {student.where}, {teacher.where}"
    raise type(error)(f"{where}: {error}") from error


def _times(value: Tensor, factor: Any) -> Tensor:
    return value if type(factor) is float and factor == 1 else value * factor


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast, which costs time also where there is none to switch off.

    Example:
        >>> with torch.autocast("cpu"), full_precision(torch.device("cpu")):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()


def _select(calls: Calls, owner: Owner, layer: str, call: Call, user: str) -> tuple[Capture, ...]:
    seen = calls.get(layer)
    if seen and call == "last":  # as nearly all are
        chosen = (seen[-1],)
        if owner == "teacher" or chosen[0].grad or not torch.is_grad_enabled():
            return chosen
    where = f"{owner} layer {layer!r}" if layer else f"{owner} output"
    if seen is None:
        raise ValueError(
            f"'{owner}' has no capture of the {where}, which {user} needs "
            f"(got {sorted(calls)}); make it with capture_teacher() of this distiller"
        )
    seen = _choose(seen, where, call, user)
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


def _device_of(output: Any) -> torch.device:
    tensor = first_tensor(output)
    return torch.device("cpu") if tensor is None else tensor.device


def _zero(loss: nn.Module, device: torch.device) -> Tensor:
    """Return 0 with gradients 0 for the loss's own parameters, which DDP waits for."""
    own = (parameter for parameter in loss.parameters() if not is_lazy(parameter))
    return sum((parameter.sum() * 0 for parameter in own), start=torch.zeros((), device=device))
