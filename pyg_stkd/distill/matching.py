"""From what hooks recorded to the values of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyg_stkd.distill.cache import TeacherCaptures
from pyg_stkd.distill.capture import Call, Capture, Owner
from pyg_stkd.distill.graph_cache import GraphCache
from pyg_stkd.distill.inputs import bind_inputs
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recorder import Record, Recorder

__all__ = ["Run", "as_captures", "as_nodes", "compare", "run"]

Calls: TypeAlias = Mapping[str, tuple[Capture, ...]]


@dataclass(frozen=True)
class Run:
    """One forward of one model: its arguments, its output, and the calls of the tapped layers."""

    owner: Owner
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    records: dict[str, list[Record]]

    def captures(self, layers: Mapping[str, nn.Module]) -> Calls:
        """Return the calls of each layer as captures."""
        context = bind_inputs(self.model, self.args, self.kwargs)
        return {
            layer: tuple(
                Capture(
                    record.output,
                    bind_inputs(layers[layer], record.args, record.kwargs),
                    layer=layer,
                    owner=self.owner,
                    context=context,
                    built=record.built,
                    call=i,
                    version=record.version,
                )
                for i, record in enumerate(records)
            )
            for layer, records in self.records.items()
        }


def run(
    owner: Owner,
    model: nn.Module,
    recorder: Recorder,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Run:
    """Run a model and take notes; none are left behind if it fails."""
    recorder.start()
    try:
        output = model(*args, **kwargs)
    finally:
        records = recorder.stop()
    return Run(owner, model, args, kwargs, output, records)


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
            value = Capture(value.detach(), layer=layer, owner="teacher")
        if not isinstance(value, Capture):
            raise TypeError(
                f"'teacher' must hold tensors (got {type(value).__name__} for layer {layer!r})"
            )
        captures[layer] = (value,)
    return TeacherCaptures(captures)


def as_nodes(nodes: Tensor | Sequence[int] | None, device: torch.device) -> Tensor | None:
    """Return an index or a mask of nodes, checked, on the device of the features."""
    if nodes is None:
        return None
    nodes = torch.as_tensor(nodes, device=device)
    if nodes.dim() != 1 or nodes.dtype not in (torch.bool, torch.int64, torch.int32):
        raise ValueError(
            "'nodes' must be one axis of integers or a boolean mask "
            f"(got shape {list(nodes.shape)} of {nodes.dtype})"
        )
    if nodes.numel() == 0 or (nodes.dtype == torch.bool and not nodes.any()):
        raise ValueError("'nodes' must choose at least one node (got none)")
    if nodes.dtype != torch.bool and nodes.is_cpu and int(nodes.min()) < 0:
        raise IndexError(f"'nodes' must not be negative (got {int(nodes.min())})")
    return nodes


def compare(
    name: str,
    loss: DistillationLoss,
    student: Calls,
    teacher: Calls,
    target: Any,
    nodes: Tensor | None,
    graphs: GraphCache,
) -> Tensor:
    """Return the value of one loss, the mean over the calls it looks at."""
    ours = _select(student, "student", loss.student_layer, loss.call, name)
    theirs = _select(teacher, "teacher", loss.teacher_layer, loss.teacher_call, name)
    if len(ours) != len(theirs):
        raise ValueError(
            f"The layers of loss {name!r} must be called equally often for call='all' "
            f"(got {len(ours)} calls by the student and {len(theirs)} by the teacher)"
        )
    values = []
    for s, t in zip(ours, theirs, strict=True):
        try:
            value = loss(s.at(nodes, graphs), t.at(nodes, graphs), target=target)
        except (TypeError, ValueError) as error:
            if type(error) not in (TypeError, ValueError):
                raise
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


def _select(calls: Calls, owner: Owner, layer: str, call: Call, loss: str) -> tuple[Capture, ...]:
    where = f"{owner} layer {layer!r}" if layer else f"{owner} output"
    if layer not in calls:
        raise ValueError(
            f"'{owner}' has no capture of the {where}, which loss {loss!r} needs "
            f"(got {sorted(calls)}); make it with capture_teacher() of this distiller"
        )
    seen = calls[layer]
    if not seen:
        raise RuntimeError(
            f"The {where}, which loss {loss!r} needs, was called 0 times in this forward: the "
            f"model skips it, calls its forward() past the hooks, or was compiled and run before "
            f"the distiller was built"
        )
    if call == "all":
        return seen
    index = len(seen) - 1 if call == "last" else call
    if not -len(seen) <= index < len(seen):
        raise IndexError(
            f"'call' of loss {loss!r} must be below the {len(seen)} calls of the {where} "
            f"(got {call})"
        )
    return (seen[index],)
