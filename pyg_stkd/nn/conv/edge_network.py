"""Reads edge networks: which are Linear(+BatchNorm)(+monotone activation), and of what modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod

__all__ = ["EdgeBlock", "read_edge_network"]

_LINEAR = (nn.Linear.forward, torch_geometric.nn.Linear.forward)
# Functions that never fall, so that they may change places with a maximum.
_MONOTONE = (
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.LogSigmoid,
    nn.Hardtanh,
    nn.Hardsigmoid,
)
_MONOTONE_FUNCTIONS = (torch.relu, torch.sigmoid, torch.tanh, nn.functional.relu)


class EdgeBlock(NamedTuple):
    """One linear layer, the normalisation of its output, and a monotone activation."""

    linear: nn.Linear | torch_geometric.nn.Linear
    norm: nn.BatchNorm1d | None
    act: Callable[[Tensor], Tensor] | None


def read_edge_network(network: Any) -> EdgeBlock | None:
    """Return the parts of a network of that form as it would run now, :obj:`None` for any other.

    Reads :class:`torch.nn.Sequential` (nested too), PyG's :class:`~torch_geometric.nn.Sequential`
    and :class:`~torch_geometric.nn.MLP`, and a lone linear layer. Modules with hooks are left
    alone, apart from the masks of :mod:`torch.nn.utils.prune`.
    """
    steps: list[Any] = []
    for step in _flatten(network):
        if isinstance(step, nn.Module) and _is_hooked(step):
            return None
        if not _is_identity(step):
            steps.append(step)
    if not steps or getattr(type(steps[0]), "forward", None) not in _LINEAR:
        return None
    linear, rest = steps[0], steps[1:]
    norm = _batch_norm(rest[0]) if rest else None
    rest = rest[norm is not None :]
    if len(rest) > 1 or (rest and not _is_monotone(rest[0])):
        return None
    # A parametrization may do something each time that the weight is read.
    if is_parametrized(linear) or isinstance(linear.weight, nn.UninitializedParameter):
        return None
    return EdgeBlock(linear, norm, rest[0] if rest else None)


def _flatten(network: Any) -> Iterator[Any]:
    """Yield the steps of a network in the order of the calls."""
    if isinstance(network, nn.Module) and _is_hooked(network):
        yield network
    elif type(network) is nn.Sequential:
        for child in network:
            yield from _flatten(child)
    elif type(network) is torch_geometric.nn.Sequential:
        yield from _flatten_pyg(network)
    elif type(network) is torch_geometric.nn.MLP:
        yield from _flatten_mlp(network)
    else:
        yield network


def _flatten_pyg(network: torch_geometric.nn.Sequential) -> Iterator[Any]:
    names = list(network.signature.param_dict)
    for child in network._children:
        if len(names) != 1 or child.param_names != names or len(child.return_names) != 1:
            yield network  # more than a chain
            return
        names = child.return_names
        yield from _flatten(getattr(network, child.name))


def _flatten_mlp(mlp: torch_geometric.nn.MLP) -> Iterator[Any]:
    norms = [*mlp.norms, *[None] * mlp.plain_last]
    for lin, norm, dropout in zip(mlp.lins, norms, mlp.dropout, strict=True):
        yield lin
        if norm is not None:
            act = nn.Identity() if mlp.act is None else mlp.act
            yield from (act, norm) if mlp.act_first else (norm, act)
        yield nn.Dropout(dropout).train(mlp.training)


def _is_hooked(module: nn.Module) -> bool:
    pre = module._forward_pre_hooks.values()
    if any(not isinstance(hook, BasePruningMethod) for hook in pre):
        return True
    # Hooks that only look out for graphs have nothing to see in a network of edges.
    after = module._forward_hooks.values()
    if any(not getattr(hook, "graphs_only", False) for hook in after):
        return True
    return bool(module._backward_hooks or module._backward_pre_hooks)


def _is_identity(step: Any) -> bool:
    if isinstance(step, nn.Dropout):
        return step.p == 0 or not step.training
    return type(step) is nn.Identity


def _batch_norm(step: Any) -> nn.BatchNorm1d | None:
    if type(step) is torch_geometric.nn.BatchNorm:
        step = step.module
    return step if type(step) is nn.BatchNorm1d and not _is_hooked(step) else None


def _is_monotone(step: Any) -> bool:
    kind = type(step)
    if kind in _MONOTONE or step in _MONOTONE_FUNCTIONS:
        return True
    if kind is nn.LeakyReLU:
        return bool(step.negative_slope >= 0)
    if kind in (nn.ELU, nn.CELU):
        return bool(step.alpha >= 0)
    if kind is nn.PReLU:
        return bool((step.weight >= 0).all())
    return False
