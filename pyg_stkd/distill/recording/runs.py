"""Forwards of watched models, and what was seen in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyg_stkd.distill.recording.artefact import Table
from pyg_stkd.distill.recording.capture import Capture, Owner
from pyg_stkd.distill.recording.graph_cache import GraphCache
from pyg_stkd.distill.recording.reading.arguments import own
from pyg_stkd.distill.recording.reading.parts import versions_of
from pyg_stkd.distill.recording.reading.signature import bind_inputs
from pyg_stkd.distill.recording.recorder import Record, Recorder

__all__ = [
    "Calls",
    "How",
    "Run",
    "TeacherArgs",
    "calls_of",
    "full_name",
    "inputs_of",
    "run",
    "run_teachers",
]

Calls: TypeAlias = Mapping[str, tuple[Capture, ...]]
Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
# How a model is run, where not by its forward.
How: TypeAlias = Callable[..., Any] | None
TeacherArgs: TypeAlias = tuple[Any, ...] | Mapping[str, Any] | list[Any] | None


@dataclass(eq=False)  # a frozen one takes its values ten times slower
class Run:
    """One forward of one model: its arguments, its output, and the calls of the tapped layers.

    The name of a model among others, if it has one, goes before those of its layers. The arguments
    are as they were given, whatever the model did with its own.
    """

    owner: Owner
    recorder: Recorder
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    records: dict[str, list[Record]]
    name: str = ""
    call: How = None

    def captures(
        self, nodes: Tensor | None = None, graphs: GraphCache | None = None
    ) -> dict[str, tuple[Capture, ...]]:
        """Return the calls of each layer as captures, at some nodes, with graphs kept there."""
        context = Once(self._bind_model)
        found = {}
        for layer in self.recorder.layers:
            name = full_name(self.name, layer)
            found[name] = tuple(
                Capture(
                    record.output,
                    partial(self._bind, layer, record.args, record.kwargs) if layer else context,
                    layer=name,
                    owner=self.owner,
                    context=context,
                    built=record.built,
                    call=i,
                    versions=record.versions,
                    grad=record.grad,
                    main=record.main,
                    choices=record.choices,
                    of_edges=record.of_edges,
                    nodes=nodes,
                    graphs=graphs,
                )
                for i, record in enumerate(self.records[layer])
            )
        return found

    def _bind_model(self) -> dict[str, Any]:
        if self.call is None:
            return self._bind("", self.args, self.kwargs)
        # Of call(model, *args), all but the model are its arguments.
        every = bind_inputs(self.call, (self.recorder.modules[""], *self.args), self.kwargs)
        return dict(list(every.items())[1:])

    def _bind(self, layer: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return self.recorder.signatures.bind(self.recorder.modules[layer], args, kwargs)


class Once:
    """A function of no arguments that is called once: its value is kept.

    Example:
        >>> once = Once(list, (1, 2))
        >>> once() is once()
        True
    """

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._call: Callable[[], Any] | None = partial(fn, *args) if args else fn
        self._value: Any = None

    def __call__(self) -> Any:
        if self._call is not None:
            self._value, self._call = self._call(), None
        return self._value


def run(
    owner: Owner,
    model: nn.Module,
    recorder: Recorder,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str = "",
    call: How = None,
) -> Run:
    """Run a model, :obj:`call(model, *args, **kwargs)` if it is to be run in a way of its own, and
    take notes; none are left behind if it fails.
    """
    recorder.start()
    try:
        if call is None:
            output = model(*map(own, args), **(own(kwargs) if kwargs else {}))
        else:
            output = call(model, *map(own, args), **(own(kwargs) if kwargs else {}))
    finally:
        choices, records = recorder.choices, recorder.stop()
    versions = {} if torch.compiler.is_compiling() else versions_of(output)
    record = Record(args, kwargs, output, versions, torch.is_grad_enabled(), choices=choices)
    records[""] = [record]
    return Run(owner, recorder, args, kwargs, output, records, name, call)


def run_teachers(
    teachers: Mapping[str, nn.Module],
    recorders: Sequence[Recorder],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: TeacherArgs,
    call: How = None,
) -> list[Run]:
    """Run teachers, by name, without gradients, each on its arguments."""
    inputs = inputs_of(len(teachers), args, kwargs, given)
    runs = []
    with torch.no_grad():
        for k, (name, model) in enumerate(teachers.items()):
            theirs = ((), {}) if given is None and isinstance(model, Table) else inputs[k]
            runs.append(run("teacher", model, recorders[k], *theirs, name, call))
    return runs


def calls_of(
    runs: Sequence[Run], nodes: Tensor | None = None, graphs: GraphCache | None = None
) -> Calls:
    """Return the captures of several runs, by the full names of the layers."""
    return {layer: seen for x in runs for layer, seen in x.captures(nodes, graphs).items()}


def full_name(name: str, layer: str) -> str:
    """Return the name of a layer of one of several models.

    Example:
        >>> full_name("", "convs.0"), full_name("1", "convs.0"), full_name("1", "")
        ('convs.0', '1.convs.0', '1')
    """
    return f"{name}.{layer}" if name and layer else name or layer


def inputs_of(
    teachers: int, args: tuple[Any, ...], kwargs: dict[str, Any], own: Any
) -> list[Inputs]:
    """Return the arguments of each teacher: its own (``teacher_args=``) or the student's."""
    each = own if isinstance(own, list) and teachers > 1 else [own] * teachers
    if len(each) != teachers:
        raise ValueError(
            f"'teacher_args' as a list must have one entry for each of the {teachers} teachers "
            f"(got {len(each)})"
        )
    inputs: list[Inputs] = []
    for given in each:
        if given is None:
            inputs.append((args, kwargs))
        elif isinstance(given, Mapping):
            inputs.append(((), dict(given)))
        elif isinstance(given, (tuple, list)):
            inputs.append((tuple(given), {}))
        else:
            raise TypeError(
                "'teacher_args' must be a tuple or a dict, or with several teachers a list of "
                f"one for each (got {type(given).__name__})"
            )
    return inputs
