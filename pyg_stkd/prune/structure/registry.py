"""Which rule a layer or model goes by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from torch import nn

__all__ = ["find_rule", "register"]

Rule: TypeAlias = Callable[..., Any]
R = TypeVar("R", bound=Rule)

# What computes a layer's output: its own method, and the steps of PyG's message passing.
_STEPS = (
    "forward",
    "propagate",
    "message",
    "edge_update",
    "message_and_aggregate",
    "aggregate",
    "update",
)
# Classes that this package must not import are known by their full name.
_RULES: dict[type | str, Rule] = {}


def register(*classes: type[nn.Module] | str) -> Callable[[R], R]:
    r"""Register the rule of a layer or model for :class:`~pyg_stkd.prune.Pruner`, as a decorator.

    A rule is a function :obj:`rule(ports, module, x)`. It takes the channels of the input,
    says with :meth:`Ports.own <pyg_stkd.prune.Ports.own>` which dimensions of which parameters
    belong to which channels, and returns the channels of the output. The rule of a model calls
    :obj:`ports(layer, x)` for its layers in the order of its :obj:`forward`. A rule also holds
    for sub-classes that have no :obj:`forward` and no step of message passing of their own.

    Args:
        *classes (type or str): The classes, or their full names where importing them here would
            be too early.

    Raises:
        TypeError: If an argument is neither.

    Example:
        >>> import torch
        >>> from pyg_stkd.prune import Pruner
        >>> class Scale(torch.nn.Module):
        ...     def __init__(self, channels):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(channels))
        ...     def forward(self, x):
        ...         return x * self.weight
        >>> @register(Scale)
        ... def scale(ports, module, x):
        ...     ports.own(module, "weight", 0, x)
        ...     return x
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), Scale(8), torch.nn.Linear(8, 2))
        >>> [group.name for group in Pruner(model, keep=0.5).groups]
        ['0']
    """
    for cls in classes:
        if not isinstance(cls, str) and not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError(f"'classes' must be module classes or their full names (got {cls!r})")

    def decorator(rule: R) -> R:
        for cls in classes:
            _RULES[cls] = rule
        return rule

    return decorator


def find_rule(cls: type) -> Rule | None:
    """Return the rule of a class, or that of a base class with the same :obj:`forward` and steps.

    Example:
        >>> from torch import nn
        >>> class Mine(nn.Linear):
        ...     def forward(self, x): ...
        >>> find_rule(nn.Linear) is None, find_rule(Mine) is None
        (False, True)
    """
    for base in cls.__mro__:
        rule = _RULES.get(base) or _RULES.get(f"{base.__module__}.{base.__qualname__}")
        if rule is not None:
            return rule if _same_forward(cls, base) else None
    return None


def _same_forward(cls: type, base: type) -> bool:
    return all(getattr(cls, step, None) is getattr(base, step, None) for step in _STEPS)
