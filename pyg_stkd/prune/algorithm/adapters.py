"""Losses with weights of their own follow the student's layers when these get smaller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from pyg_stkd.prune.masked.channels import MaskedChannels
from pyg_stkd.prune.pruner import Pruner
from pyg_stkd.prune.structure.prunable import has_parameters

__all__ = ["check_adapters", "narrow_adapters"]


def narrow_adapters(distiller: Any, pruner: Pruner) -> None:
    """Drop the columns of masked channels from the linear maps that take a student's features.

    Call it before the student is shrunk. Masked channels are 0 there, so that nothing changes.
    Modules of a loss with "teacher" in their names take the teacher's features and stay.

    Raises:
        ValueError: If something else than a linear map takes the features, it cannot be told
            which, or the rules do not tell the layer's channels. Nothing is changed then.
    """
    masked = pruner._masked
    if not isinstance(masked, MaskedChannels):
        return
    for adapter, kept in _plan(distiller, masked, masked.kept).items():
        index = kept.nonzero().view(-1).to(adapter.weight.device)
        columns = adapter.weight.detach().index_select(1, index)
        adapter.weight = nn.Parameter(columns, adapter.weight.requires_grad)
        adapter.in_features = columns.size(1)


def check_adapters(distiller: Any, pruner: Pruner) -> None:
    """Raise if there are losses that could not follow, before anything is pruned."""
    masked = pruner._masked
    if isinstance(masked, MaskedChannels):
        _plan(distiller, masked, ~masked.layout.prunable)


def _plan(distiller: Any, masked: MaskedChannels, kept: Tensor) -> dict[nn.Linear, Tensor]:
    """Return the linear maps that lose columns, and which columns each of them keeps."""
    plan: dict[nn.Linear, Tensor] = {}
    for name, loss in getattr(distiller, "losses", {}).items():
        layer = getattr(loss, "student_layer", None)
        if not layer:
            continue  # the output of the model keeps its width
        channels = masked.ports.outputs.get(layer)
        # Where no rule tells the channels, any of the model's may be its own.
        columns = kept if channels is None else kept[masked.layout.places(channels)]
        if bool(columns.all()):
            continue
        for one in (loss, *getattr(loss, "of_teacher", {}).values()):
            takers = [taker for taker in _takers(one) if not _is_lazy(taker)]
            for taker in takers:
                if channels is None or not isinstance(taker, nn.Linear):
                    raise ValueError(
                        f"No rule says how the weights of loss {name!r} ({type(taker).__name__}) "
                        f"follow the channels of layer {layer!r}: only linear maps of a layer do"
                    )
            for adapter in _of_width(name, takers, columns.numel()):
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
        child
        for name, child in module.named_children()
        if "teacher" not in name and any(_has_width(part) for part in child.modules())
    ]
    for child in children[:1] if isinstance(module, nn.Sequential) else children:
        yield from _takers(child)


def _has_width(module: nn.Module) -> bool:
    counts = isinstance(module, _NormBase) and module.running_mean is not None
    return has_parameters(module) or counts or isinstance(module, nn.LayerNorm)


def _is_lazy(module: nn.Module) -> bool:
    return any(is_lazy(parameter) for parameter in module.parameters(recurse=False))


def _of_width(name: str, takers: list[Any], width: int) -> list[nn.Linear]:
    """Return the linear maps of the features; another of them may follow one in a chain."""
    fitting = [taker for taker in takers if taker.weight.size(1) == width]
    if len(fitting) > 1 and any(taker.weight.size(0) == width for taker in takers):
        raise ValueError(
            f"The linear maps of loss {name!r} must be in a torch.nn.Sequential, to tell which of "
            f"them takes the features (got {len(fitting)} for {width} channels)"
        )
    return fitting
