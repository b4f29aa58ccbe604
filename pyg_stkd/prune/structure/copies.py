"""Copies of models, made in less time than copy.deepcopy takes."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch_geometric.nn import MessagePassing

__all__ = ["copied", "with_its_parameters"]

_ATOMS = {int, float, bool, str, bytes, type(None), type}
# By which a class says that it is copied in another way.
_OWN_WAYS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
# The bases whose own way changes nothing in a module that is there; the last one has none.
_PLAIN = (MessagePassing, _ConvNd, nn.Module)


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
    plain: dict[type, bool] = {}
    for module in reversed(list(model.modules())):  # those inside first
        cls = type(module)
        if cls not in plain:
            plain[cls] = _is_plain(cls)
        if isinstance(module, MessagePassing):
            memo.setdefault(id(module.inspector), _copied_inspector(module.inspector))
        if id(module) in memo or not plain[cls]:
            continue
        other = memo[id(module)] = object.__new__(cls)
        vars(other).update(_copies(vars(module), memo))
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
    return copied(model, memo)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy of what a module holds."""
    kind = type(value)
    if id(value) in memo:
        return memo[id(value)]
    if kind in (list, set, tuple) and all(type(item) in _ATOMS for item in value):
        return value if kind is tuple else memo.setdefault(id(value), kind(value))
    if kind in (dict, OrderedDict):
        other = memo[id(value)] = kind()
        other.update(_copies(value, memo))
        return other
    return copy.deepcopy(value, memo)


def _copies(values: Mapping[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    return {
        key: value if type(value) in _ATOMS else _copied(value, memo)
        for key, value in values.items()
    }


def _copied_inspector(inspector: Any) -> Any:
    """Return a copy of what PyG knows of the signatures of a layer, which it replaces as wholes."""
    other = copy.copy(inspector)
    tables = {key: dict(value) for key, value in vars(other).items() if isinstance(value, dict)}
    vars(other).update(tables)
    return other


def _is_plain(cls: type[nn.Module]) -> bool:
    """Tell whether modules of a class are copied attribute by attribute.

    PyG's message passing looks beside that whether the code of its class is written, and torch's
    convolutions whether they know of their padding, as they do.
    """
    base = next(base for base in _PLAIN if issubclass(cls, base))
    return not issubclass(cls, torch.jit.ScriptModule) and all(
        getattr(cls, way, None) is getattr(base, way, None) for way in _OWN_WAYS
    )
