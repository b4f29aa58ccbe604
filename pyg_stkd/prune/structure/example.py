"""Inputs on which a model is run to follow and to compare it."""

from __future__ import annotations

import copy
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.optim.swa_utils import AveragedModel
from torch_geometric.data.data import BaseData

__all__ = ["Example", "evaluating", "random_state", "unwrap"]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


class Example:
    """Inputs of a model, and how it is called on them.

    Each run has copies of its own: models write to their inputs.

    Args:
        inputs (Any): A tuple of arguments, a mapping of keyword arguments, or one argument, such
            as a :class:`~torch_geometric.data.HeteroData`.
        call (callable, optional): A function of the model and the inputs, for models without a
            :obj:`forward`. (default: the model itself)

    Example:
        >>> Example((torch.ones(2, 3),)).run(nn.Linear(3, 1)).shape
        torch.Size([2, 1])
        >>> Example({"input": torch.ones(2, 3)}).run(nn.Linear(3, 1)).shape
        torch.Size([2, 1])
    """

    def __init__(self, inputs: Any, call: Callable[..., Any] | None = None) -> None:
        if call is not None and not callable(call):
            raise TypeError(
                f"'call' must be a function of the model and the example (got {call!r})"
            )
        self.inputs = inputs
        self.call = call

    def arguments(self, model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments and keyword arguments of a call, as copies."""
        inputs = _copied(self.inputs)
        if isinstance(inputs, (tuple, list)) and not hasattr(inputs, "_fields"):
            return tuple(inputs), {}
        if isinstance(inputs, Mapping) and not isinstance(inputs, BaseData):
            names = _names(self.call if self.call is not None else model)
            if names is None or set(inputs) <= names:
                return (), dict(inputs)
        return (inputs,), {}

    def run(self, model: nn.Module) -> Any:
        """Call the model."""
        args, kwargs = self.arguments(model)
        return model(*args, **kwargs) if self.call is None else self.call(model, *args, **kwargs)

    def to(self, dtype: torch.dtype) -> Example:
        """Return an example of floating-point numbers of another type."""
        return self.mapped(lambda t: _cast(t, dtype))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Example:
        """Return an example of other tensors."""
        return Example(_mapped(self.inputs, change), self.call)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _names(function: Any) -> set[str] | None:
    function = function.forward if isinstance(function, nn.Module) else function
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters}


def _copied(value: Any) -> Any:
    return _mapped(value, lambda t: t.detach().clone().requires_grad_(t.requires_grad))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, BaseData):
        return copy.copy(value).apply(change)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[_mapped(item, change) for item in value])
    if type(value) in (list, tuple):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return copy.copy(value)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model in wrappers, which do nothing of their own.

    These are :func:`torch.compile`, DataParallel, DistributedDataParallel, AveragedModel, and what
    Lightning's Fabric sets up. A LightningModule is a model of its own, with a forward of its own.

    Example:
        >>> unwrap(nn.DataParallel(nn.Linear(1, 2)))
        Linear(in_features=1, out_features=2, bias=True)
    """
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (*_WRAPPERS, *_wrappers_of_fabric())):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _wrappers_of_fabric() -> list[type[nn.Module]]:
    """Return the classes of Lightning's Fabric, where it is in use."""
    places = map(sys.modules.get, ("lightning.fabric.wrappers", "lightning_fabric.wrappers"))
    found = (getattr(place, "_FabricModule", None) for place in places)
    return [cls for cls in found if cls is not None]


@contextmanager
def random_state() -> Iterator[None]:
    """Put all random states back afterwards."""
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002


@contextmanager
def evaluating() -> Iterator[None]:
    """Run models as they are written, without gradients, and put random states back.

    The kernel for a whole transformer layer would call none of its modules, norms that leave out
    masked channels among them; under the hooks of masks it is not used either.
    """
    with ExitStack() as stack:
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        stack.enter_context(random_state())
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
