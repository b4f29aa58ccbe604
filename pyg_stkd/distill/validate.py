"""What a distiller must be built from."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd import checks
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recording.recorder import named_layers, unknown_layer

__all__ = ["Losses", "check_loss", "check_models", "name_losses"]

Loss: TypeAlias = DistillationLoss | Sequence[DistillationLoss]
Losses: TypeAlias = Sequence[Loss] | Mapping[str, Loss]


def check_models(teacher: nn.Module, student: nn.Module) -> None:
    """Raise unless these are two models that share nothing, and the teacher is whole."""
    for name, model in (("teacher", teacher), ("student", student)):
        checks.instance(name, model, nn.Module)
    lazy = [name for name, tensor in _tensors(teacher) if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"'teacher' must be trained, its parameters of known sizes (got {lazy} uninitialized)"
        )
    for name, module in student.named_modules():
        if any(module is other for other in teacher.modules()):
            what = f"its module {name!r}" if name else "the very same model"
            raise ValueError(
                f"'student' must share nothing with 'teacher', which is frozen (got {what}): "
                f"use copy.deepcopy(teacher)"
            )
    owned = {id(parameter) for parameter in teacher.parameters()}
    shared = [name for name, parameter in student.named_parameters() if id(parameter) in owned]
    if shared:
        raise ValueError(
            f"'student' must share nothing with 'teacher', which is frozen (got its parameters "
            f"{shared}): use copy.deepcopy(teacher)"
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


def check_loss(name: str, loss: DistillationLoss, teacher: nn.Module, student: nn.Module) -> None:
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
    own = {id(tensor) for _, tensor in _tensors(loss)}
    for owner, model in (("teacher", teacher), ("student", student)):
        shared = [where for where, tensor in _tensors(model) if id(tensor) in own]
        if shared:
            raise ValueError(
                f"'losses' must share nothing with '{owner}' (got its {shared} in loss {name!r}): "
                f"use copy.deepcopy"
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())
