"""What a distiller must be built from."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.recorder import named_layers, unknown_layer

__all__ = ["check_loss", "check_models", "name_losses"]


def check_models(teacher: nn.Module, student: nn.Module) -> None:
    """Raise unless these are two models that share nothing."""
    for name, model in (("teacher", teacher), ("student", student)):
        if not isinstance(model, nn.Module):
            raise TypeError(f"'{name}' must be a torch.nn.Module (got {type(model).__name__})")
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


def _flatten(losses: Iterable[Any]) -> Iterator[Any]:
    """Yield the losses of a list, and those of lists in it such as STCDLoss."""
    for loss in losses:
        if isinstance(loss, Sequence) and not isinstance(loss, str):
            yield from _flatten(loss)
        else:
            yield loss


def name_losses(
    losses: Sequence[DistillationLoss] | Mapping[str, DistillationLoss],
) -> dict[str, DistillationLoss]:
    """Return the losses by name, each once."""
    if isinstance(losses, nn.Module) and not isinstance(losses, (nn.ModuleList, nn.ModuleDict)):
        raise TypeError(f"'losses' must be a list or a dict of losses (got {losses})")
    if isinstance(losses, (Mapping, nn.ModuleDict)):
        pairs = list(losses.items())
    else:
        pairs = [(getattr(loss, "name", ""), loss) for loss in _flatten(losses)]
    named: dict[str, DistillationLoss] = {}
    for name, loss in pairs:
        if not isinstance(loss, DistillationLoss):
            raise TypeError(
                f"'losses' must hold objects of DistillationLoss (got {type(loss).__name__})"
            )
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"'name' of a loss must be a word without dots (got {name!r})")
        if any(loss is other for other in named.values()):
            raise ValueError(f"'losses' must hold each loss once (got {name!r} twice)")
        if name in named:
            raise ValueError(
                f"'losses' must have different names (got {name!r} twice): give one of them name="
            )
        named[name] = loss
    return named


def check_loss(name: str, loss: DistillationLoss, teacher: nn.Module, student: nn.Module) -> None:
    """Raise unless a loss can be called and both its layers exist."""
    try:
        inspect.signature(loss.forward).bind(None, None, target=None)
    except TypeError as error:
        raise TypeError(
            f"'forward' of loss {name!r} must take (student, teacher, target=None) "
            f"(got {type(loss).__name__}.forward{inspect.signature(loss.forward)})"
        ) from error
    for owner, model in (("teacher", teacher), ("student", student)):
        layer, valid = getattr(loss, f"{owner}_layer"), named_layers(model)
        if layer not in valid:
            raise ValueError(f"'{owner}_layer' of loss {name!r} {unknown_layer(layer, valid)}")
