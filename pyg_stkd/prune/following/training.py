"""What a model does in train mode alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from torch import nn

from pyg_stkd.prune.following.leaves import leaf_of

__all__ = ["asks_for_training", "in_training"]


def asks_for_training(model: nn.Module, call: Callable[..., Any] | None = None) -> bool:
    """Tell whether code that is followed reads :obj:`training`, of any module.

    Rules hold in both modes, and torch's own modules draw random numbers at most.

    Args:
        model (torch.nn.Module): The model.
        call (callable, optional): The function by which it is called.

    Example:
        >>> class Net(nn.Linear):
        ...     def forward(self, x):
        ...         return nn.functional.dropout(super().forward(x), training=self.training)
        >>> asks_for_training(Net(2, 2)), asks_for_training(nn.Linear(2, 2))
        (True, False)
    """
    classes = {type(module) for module in _followed(model)}
    functions = [call, *(value for cls in classes for value in _members(cls))]
    return any(_reads(getattr(function, "__code__", None)) for function in functions)


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """Run a model in train mode, but for what rules speak of; afterwards it is in eval mode."""
    model.train()
    for module in model.modules():
        if leaf_of(module):
            module.eval()
    try:
        yield
    finally:
        model.eval()


def _followed(module: nn.Module) -> Iterator[nn.Module]:
    """Return a module and those in it, but for what is inside of those with a rule."""
    if leaf_of(module):
        return
    yield module
    for child in module.children():
        yield from _followed(child)


def _members(cls: type) -> Iterator[Any]:
    """Return the functions of a class of one's own, those of properties and classes too."""
    for base in cls.__mro__:
        if base is nn.Module:
            return
        if not base.__module__.startswith("torch.nn."):
            for value in vars(base).values():
                yield getattr(value, "fget", getattr(value, "__func__", value))


def _reads(code: Any) -> bool:
    return isinstance(code, CodeType) and (
        "training" in code.co_names or any(map(_reads, code.co_consts))
    )
