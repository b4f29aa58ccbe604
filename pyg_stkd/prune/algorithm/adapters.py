"""Losses with weights of their own follow the student's layers when these get smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.copies import copies_of
from pyg_stkd.prune.masked.model import LayerChannels
from pyg_stkd.prune.pruner import Pruner
from pyg_stkd.prune.structure.prunable import has_parameters

__all__ = ["StudentMaps", "check_adapters", "is_told", "narrow_adapters", "takers_of"]

# For losses that do not say it: the modules that take the student's features.
StudentMaps: TypeAlias = dict[DistillationLoss, list[nn.Module]]


def narrow_adapters(distiller: Distiller, pruner: Pruner, maps: StudentMaps | None = None) -> None:
    """Drop the columns of masked channels from the linear maps that take a student's features.

    Call it before the student is shrunk. Masked channels are 0 there, so that nothing changes.
    Which maps these are, the losses say (:meth:`DistillationLoss.student_maps`).

    Args:
        distiller (Distiller): The distiller.
        pruner (Pruner): A pruner of its student.
        maps (dict, optional): The modules of losses that do not say it, found by trial.

    Raises:
        ValueError: If something else than a linear map takes the features, it cannot be told
            which, or the rules do not tell the layer's channels. Nothing is changed then.
    """
    for adapter, kept in _plan(distiller, pruner, maps, lambda channels: channels.kept).items():
        index = kept.nonzero().view(-1).to(adapter.weight.device)
        columns = adapter.weight.detach().index_select(1, index)
        adapter.weight = nn.Parameter(columns, adapter.weight.requires_grad)
        adapter.in_features = columns.size(1)


def check_adapters(distiller: Distiller, pruner: Pruner, maps: StudentMaps | None = None) -> None:
    """Raise if there are losses that could not follow, before anything is pruned."""
    _plan(distiller, pruner, maps, lambda channels: ~channels.prunable)


def is_told(loss: DistillationLoss) -> bool:
    """Tell whether a loss says itself which of its modules take the student's features."""
    return type(loss).student_maps is not DistillationLoss.student_maps


def takers_of(loss: DistillationLoss) -> list[nn.Module]:
    """Return what in a loss may depend on the width of the student's features."""
    return [taker for module in loss.student_maps() for taker in _takers(module)]


def _plan(
    distiller: Distiller,
    pruner: Pruner,
    maps: StudentMaps | None,
    which: Callable[[LayerChannels], Tensor],
) -> dict[nn.Linear, Tensor]:
    """Return the linear maps that lose columns, and which columns each of them keeps."""
    plan: dict[nn.Linear, Tensor] = {}
    for name, loss in distiller.losses.items():
        assert isinstance(loss, DistillationLoss)
        layer = loss.student_layer
        if not layer:
            continue  # the output of the model keeps its width
        channels = pruner.channels_of(layer)
        columns = which(channels)
        if bool(columns.all()):
            continue
        for one in copies_of(loss):
            known = is_told(one) or one in (maps or {})
            takers = takers_of(one) if maps is None or one not in maps else maps[one]
            for taker in takers:
                # Where no rule tells the channels, any of the model's may be its own.
                if not (channels.known and isinstance(taker, nn.Linear)) and not _is_lazy(taker):
                    raise ValueError(
                        f"No rule says how the weights of loss {name!r} ({type(taker).__name__}) "
                        f"follow the channels of layer {layer!r}: only linear maps of a layer do"
                    )
            for adapter in _of_width(name, takers, columns.numel(), known):
                if not torch.equal(plan.setdefault(adapter, columns), columns):
                    raise ValueError(
                        f"The losses must not share a linear map of two layers (got {name!r})"
                    )
    return plan


def _takers(module: nn.Module) -> Iterator[nn.Module]:
    """Return what depends on the width of what a module is given: the first of a chain."""
    if _has_width(module):
        yield module
        return
    children = [
        child for child in module.children() if any(_has_width(part) for part in child.modules())
    ]
    for child in children[:1] if isinstance(module, nn.Sequential) else children:
        yield from _takers(child)


def _has_width(module: nn.Module) -> bool:
    counts = isinstance(module, _NormBase) and module.running_mean is not None
    return has_parameters(module) or counts or isinstance(module, nn.LayerNorm)


def _is_lazy(module: nn.Module) -> bool:
    return any(is_lazy(parameter) for parameter in module.parameters(recurse=False))


def _of_width(name: str, takers: list[Any], width: int, known: bool) -> list[nn.Linear]:
    """Return the linear maps of the features: those that are known, or the only one."""
    shaped = [taker for taker in takers if not _is_lazy(taker)]
    fitting = [taker for taker in shaped if taker.weight.size(1) == width]
    if known and len(fitting) < len(shaped):
        raise ValueError(
            f"'student_maps' of loss {name!r} must be linear maps of {width} channels "
            f"(got {[taker for taker in shaped if taker not in fitting]})"
        )
    if not known and len(fitting) + len(takers) - len(shaped) > 1:
        raise ValueError(
            f"Loss {name!r} must say which of its linear maps take the student's features: "
            f"override student_maps() (got {takers})"
        )
    return fitting
