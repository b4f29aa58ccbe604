"""Random numbers that two models share, so that both draw the same."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["RandomState"]


class RandomState:
    """The random numbers that a model may draw, given back to the next one: both draw the same.

    These are torch's, on the CPU and on the model's device, and those of NumPy and of Python, which
    samplers of PyG use.

    Args:
        model (torch.nn.Module): A model, on whose device numbers may be drawn.

    Example:
        >>> state = RandomState(nn.Identity())
        >>> state.save()
        >>> a = torch.randperm(9)
        >>> state.restore()
        >>> torch.equal(a, torch.randperm(9))
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._of_numpy = _OfNumpy()
        self._state: tuple[Any, ...] = ()

    def save(self) -> None:
        """Keep the state of now."""
        parameter = _first_parameter(self._model)
        there = None
        if parameter is not None and parameter.device.type not in ("cpu", "meta"):
            device = parameter.device
            there = torch.get_device_module(device).get_rng_state(device), device
        self._state = torch.get_rng_state(), there, self._of_numpy(), random.getstate()

    def restore(self) -> None:
        """Go back to the state that was kept."""
        here, there, of_numpy, of_python = self._state
        self._state = ()
        torch.set_rng_state(here)
        if there is not None:
            torch.get_device_module(there[1]).set_rng_state(*there)
        now = self._of_numpy()
        if now is not of_numpy and not _same(now, of_numpy):
            np.random.set_state(of_numpy)  # noqa: NPY002
        if random.getstate() != of_python:
            random.setstate(of_python)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_state": ()}


class _OfNumpy:
    """The state of NumPy's global numbers, read out anew only where it has moved on: reading it
    takes some 40 us, a look whether it has moved on takes one.
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] | None = None
        self._seen: bytes | None = None

    def __call__(self) -> dict[str, Any]:
        seen = _memory_of_numpy()
        # A second normal number is kept for later, which the memory of the generator does not show.
        may_hide = self._known is None or self._known.get("has_gauss", 1)
        if self._known is None or seen is None or seen != self._seen or may_hide:
            known: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - that of others' code
            self._known, self._seen = known, seen
        assert self._known is not None
        return self._known

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def _memory_of_numpy() -> bytes | None:
    """Return the memory of NumPy's global generator, None if it is not the usual one."""
    generator = getattr(np.random, "get_bit_generator", lambda: None)()  # of NumPy 1.24 and later
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, 4 * 625)  # 624 words and the place


def _same(a: Any, b: Any) -> bool:
    """Whether two states of NumPy are equal, dictionaries of arrays and numbers."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b


def _first_parameter(model: nn.Module) -> torch.Tensor | None:
    for parameter in model._parameters.values():  # parameters() also looks for names and doubles
        if parameter is not None:
            return parameter
    for child in model._modules.values():
        found = None if child is None else _first_parameter(child)
        if found is not None:
            return found
    return None
