"""What a distiller must be built from."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recording.artefact import Artefact, Table
from pyg_stkd.distill.recording.reading.signature import signature_of
from pyg_stkd.distill.recording.recorder import named_layers, unknown_layer
from pyg_stkd.distill.recording.runs import How

__all__ = ["Losses", "check_calls", "check_loss", "check_models", "name_losses"]

Loss: TypeAlias = DistillationLoss | Sequence[DistillationLoss]
Losses: TypeAlias = Sequence[Loss] | Mapping[str, Loss]


def check_calls(call: Any) -> tuple[How, How]:
    """Return how the teacher and how the student are run, given one way for both or one each.

    Example:
        >>> check_calls(None), check_calls((None, len))
        ((None, None), (None, <built-in function len>))
    """
    pair = call if isinstance(call, tuple) else (call, call)
    if len(pair) != 2 or not all(one is None or callable(one) for one in pair):
        raise TypeError(
            f"'call' must be a function (model, *args) -> output, or one of the teacher and one of "
            f"the student (got {call!r})"
        )
    return pair[0], pair[1]


def check_models(
    teachers: list[nn.Module], student: nn.Module, calls: tuple[How, How], reserved: set[str]
) -> None:
    """Raise unless these are models that can be run, share nothing, and the teachers are whole."""
    checks.instance("student", student, nn.Module)
    for teacher in teachers:
        _check_forward("teacher", teacher, calls[0], reserved)
    _check_forward("student", student, calls[1], reserved)
    lazy = [name for model in teachers for name, tensor in _tensors(model) if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"'teacher' must be trained, its parameters of known sizes (got {lazy} uninitialized)"
        )
    theirs = {id(module) for model in teachers for module in model.modules()}
    for name, module in student.named_modules():
        # What holds nothing, such as the one ReLU that is the default of a class, may be shared.
        holds = next(_tensors(module), None) is not None
        if id(module) in theirs and (holds or not name):
            what = f"its module {name!r}" if name else "the very same model"
            raise ValueError(
                f"'student' must share nothing with 'teacher', which is frozen (got {what}): "
                f"use copy.deepcopy(teacher)"
            )
    owned = {id(parameter) for model in teachers for parameter in model.parameters()}
    shared = [name for name, parameter in student.named_parameters() if id(parameter) in owned]
    if shared:
        raise ValueError(
            f"'student' must share nothing with 'teacher', which is frozen (got its parameters "
            f"{shared}): use copy.deepcopy(teacher)"
        )


def _check_forward(owner: str, model: nn.Module, call: How, reserved: set[str]) -> None:
    """Raise unless a model is run by a function or has a forward, whose arguments reach it."""
    if call is None and isinstance(model, (Artefact, Table)):
        return
    # Not as an attribute: a ScriptModule has none before it is an object.
    own = inspect.getattr_static(type(model), "forward")
    no_forward = own is nn.Module.forward and "forward" not in vars(model)
    if call is None and no_forward:
        raise TypeError(
            f"'{owner}' must have a forward (got {type(model).__name__} without): say how it is "
            f"run, such as Distiller(..., call=lambda model, x, edge_index, pairs: "
            f"model.decode(model.encode(x, edge_index), pairs))"
        )
    signature = signature_of(model if call is None else call)
    kept = sorted(reserved & set(signature.parameters)) if signature is not None else []
    if kept and call is not None:
        raise ValueError(
            f"'call' must have no argument that the distiller keeps for itself (got {kept} of the "
            f"{owner}'s): give it another name, such as {kept[0]}_"
        )
    if kept:
        raise ValueError(
            f"'{owner}' must have no argument that the distiller keeps for itself (got {kept} of "
            f"{type(model).__name__}.forward): pass it under another name, such as "
            f"Distiller(..., call=lambda model, x, {kept[0]}_: model(x, {kept[0]}={kept[0]}_))"
        )


def _flatten(losses: Any) -> Iterator[tuple[Any, Any]]:
    """Yield losses with their names; those of a list in a mapping, such as STCDLoss, after its."""
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(losses, (Mapping, nn.ModuleDict)):
        pairs = losses.items()
    else:
        pairs = [(getattr(loss, "name", ""), loss) for loss in losses]
    for name, loss in pairs:
        if isinstance(loss, Sequence) and not isinstance(loss, str):
            yield from ((f"{name}_{own}" if name else own, each) for own, each in _flatten(loss))
        else:
            yield name, loss


def name_losses(losses: Losses) -> dict[str, DistillationLoss]:
    """Return the losses by name, each once.

    Example:
        >>> from pyg_stkd.distill import HintLoss, STCDLoss
        >>> losses = name_losses({"hint": HintLoss("0", "0"), "stcd": STCDLoss("0", "0")})
        >>> list(losses)
        ['hint', 'stcd_response', 'stcd_spatial_correlation', 'stcd_temporal_correlation']
    """
    one = isinstance(losses, nn.Module) and not isinstance(losses, (nn.ModuleList, nn.ModuleDict))
    if one or not isinstance(losses, Iterable):
        raise TypeError(f"'losses' must be a list or a dict of losses (got {losses})")
    named: dict[str, DistillationLoss] = {}
    for name, loss in _flatten(losses):
        if not isinstance(loss, DistillationLoss):
            raise TypeError(
                f"'losses' must hold objects of DistillationLoss (got {type(loss).__name__})"
            )
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"'name' of a loss must be a word without dots (got {name!r})")
        if hasattr(nn.ModuleDict(), name):  # where the losses are kept
            raise ValueError(f"'name' of a loss must be no attribute of a module (got {name!r})")
        if any(loss is other for other in named.values()):
            raise ValueError(f"'losses' must hold each loss once (got {name!r} twice)")
        if name in named:
            raise ValueError(
                f"'losses' must have different names (got {name!r} twice): give one of them name="
            )
        named[name] = loss
    return named


def check_loss(
    name: str, loss: DistillationLoss, teachers: list[nn.Module], student: nn.Module
) -> None:
    """Raise unless a loss can be called, taps a layer of the student, and owns its tensors."""
    try:
        inspect.signature(loss.forward).bind(None, None, target=None)
    except TypeError as error:
        raise TypeError(
            f"'forward' of loss {name!r} must take (student, teacher, target=None) "
            f"(got {type(loss).__name__}.forward{inspect.signature(loss.forward)})"
        ) from error
    valid = named_layers(student)
    if loss.student_layer not in valid:
        raise ValueError(
            f"'student_layer' of loss {name!r} {unknown_layer(loss.student_layer, valid)}"
        )
    if isinstance(valid[loss.student_layer], torch.jit.ScriptModule) and loss.student_layer:
        raise ValueError(
            f"'student_layer' of loss {name!r} must be no part of a ScriptModule, which nobody "
            f"sees (got {loss.student_layer!r}): train the module that it is made of, and script it"
        )
    own = {id(tensor) for _, tensor in _tensors(loss)}
    for owner, model in (*(("teacher", model) for model in teachers), ("student", student)):
        shared = [where for where, tensor in _tensors(model) if id(tensor) in own]
        if shared:
            raise ValueError(
                f"'losses' must share nothing with '{owner}' (got its {shared} in loss {name!r}): "
                f"use copy.deepcopy"
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())
