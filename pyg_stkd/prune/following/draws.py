"""Random numbers that stand still, so that models of other widths draw the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Still"]

# What stands in for what is drawn, by the arguments of the function: the mean, so that dropout
# leaves everything as it is. Normal numbers are a deviation above it, or what they scale would
# vanish, as in mu + eps * exp(logstd).
_CONSTANT: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "bernoulli": lambda given: given.get("p", given["self"]),
    "exponential": lambda given: 1.0 / given["lambd"],
    "normal": lambda given: given["mean"] + given["std"],
    "rand": lambda given: 0.5,
    "rand_like": lambda given: 0.5,
    "randn": lambda given: 1.0,
    "randn_like": lambda given: 1.0,
    "uniform": lambda given: 0.5 * (given["from"] + given["to"]),
}


class Still(TorchDispatchMode):
    """Has constants where torch draws numbers of a distribution, and uses no random numbers up.

    What has no such constant, as a permutation, is drawn as ever.

    Example:
        >>> with Still():
        ...     torch.dropout(torch.ones(3), 0.5, True), torch.rand(2)
        (tensor([1., 1., 1.]), tensor([0.5000, 0.5000]))
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::").removesuffix("_")
        if name == "native_dropout":  # of other devices than the CPU
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if name not in _CONSTANT:
            return func(*args, **kwargs)
        value = _CONSTANT[name](_given(func, args, kwargs))
        if isinstance(value, Tensor):
            value = value.clone()  # which may be what is written to
        state = torch.get_rng_state()
        out = func(*args, **kwargs)
        torch.set_rng_state(state)
        return out.copy_(value) if isinstance(value, Tensor) else out.fill_(value)


def _given(func: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, those left out too."""
    known = func._schema.arguments
    defaults = {a.name: a.default_value for a in known if a.has_default_value()}
    return defaults | dict(zip((a.name for a in known), args, strict=False)) | dict(kwargs)
