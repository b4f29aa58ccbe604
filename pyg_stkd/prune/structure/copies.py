"""Copies of models, made in less time than copy.deepcopy takes."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

__all__ = ["copied", "with_its_parameters"]

_ATOMS = (int, float, bool, str, bytes, type(None), type)
_EMPTY = (dict, OrderedDict, set)
# By which a class says that it is copied in another way.
_OWN_WAYS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")


def copied(model: nn.Module, memo: dict[int, Any]) -> Any:
    """Return a deep copy of a model, as :func:`copy.deepcopy` makes it.

    Most of what a module holds are empty dictionaries of hooks, numbers and names, of which it is
    known how they are copied.

    Args:
        model (torch.nn.Module): The model.
        memo (dict): What stands in for objects, by their :obj:`id`. More is added.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
        >>> other = copied(model, {id(model[0].bias): model[0].bias})
        >>> other[0].bias is model[0].bias, other[0].weight is model[0].weight
        (True, False)
    """
    for module in reversed(list(model.modules())):  # those inside first
        if id(module) in memo or not _is_plain(module):
            continue
        other = memo[id(module)] = object.__new__(type(module))
        for key, value in vars(module).items():
            if id(value) in memo:
                value = memo[id(value)]
            elif type(value) in _EMPTY and not value:
                value = memo[id(value)] = type(value)()
            elif not isinstance(value, _ATOMS):
                value = copy.deepcopy(value, memo)
            vars(other)[key] = value
    return copy.deepcopy(model, memo)


def with_its_parameters(
    model: nn.Module, others: Mapping[Tensor, nn.Parameter] | None = None
) -> Any:
    """Return a copy to run: with the parameters of the model itself, and buffers of its own.

    Args:
        model (torch.nn.Module): The model.
        others (mapping, optional): For some of its parameters those that stand in for them.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> other = with_its_parameters(norm)
        >>> other.weight is norm.weight, other.running_mean is norm.running_mean
        (True, False)
    """
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    for parameter, other in (others or {}).items():
        memo[id(parameter)] = other
    for module in model.modules():
        if isinstance(module, MessagePassing):  # whose signatures no run changes
            memo[id(module.inspector)] = module.inspector
    return copied(model, memo)


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a module is copied attribute by attribute."""
    cls = type(module)
    return not isinstance(module, torch.jit.ScriptModule) and all(
        getattr(cls, way, None) is getattr(nn.Module, way, None) for way in _OWN_WAYS
    )
