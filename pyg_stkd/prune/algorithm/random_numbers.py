"""All random numbers that a run depends on: the global ones, and those of loaders and scores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from pyg_stkd.distill.fitting.streams import random_state, set_random

__all__ = ["RandomNumbers"]

Generator: TypeAlias = torch.Generator | np.random.Generator | random.Random

# Where a loader keeps what draws for it.
_PARTS = ("sampler", "batch_sampler", "dataset", "transform")


class RandomNumbers:
    r"""The global random numbers, and the generators that objects hold.

    Args:
        *owners (Any): Loaders, scores and others. Their attributes are looked through, and those
            of their samplers and data sets.

    Example:
        >>> generator = torch.Generator()
        >>> loader = torch.utils.data.DataLoader([1, 2, 3], shuffle=True, generator=generator)
        >>> numbers = RandomNumbers(loader)
        >>> state = numbers.state()
        >>> first = torch.rand(1), torch.rand(1, generator=generator)
        >>> numbers.restore(state)
        >>> (torch.rand(1), torch.rand(1, generator=generator)) == first
        True
    """

    def __init__(self, *owners: Any) -> None:
        found = {id(generator): generator for owner in owners for generator in _held(owner)}
        self._generators = list(found.values())

    def state(self) -> dict[str, Any]:
        """Return the state of all, as plain values and tensors."""
        return {"all": random_state(), "own": [_state(one) for one in self._generators]}

    def restore(self, state: dict[str, Any]) -> None:
        """Set all as they were. Where that fails nothing is changed.

        Raises:
            ValueError: If it is no such state, or one of other generators.
        """
        before = self.state()
        try:
            self._set(state)
        except Exception as error:  # whatever torch, NumPy and Python make of a wrong one
            self._set(before)
            raise ValueError(f"no states of random numbers: {error}") from error

    def _set(self, state: dict[str, Any]) -> None:
        for generator, own in zip(self._generators, state["own"], strict=True):
            if isinstance(generator, torch.Generator):
                generator.set_state(own)
            elif isinstance(generator, random.Random):
                version, internal, gauss = own
                generator.setstate((version, tuple(internal), gauss))
            else:
                generator.bit_generator.state = _with_arrays(own)
        set_random(state["all"])


def _held(owner: Any, depth: int = 3) -> Iterator[Generator]:
    attributes = getattr(owner, "__dict__", {})
    for value in attributes.values():
        if isinstance(value, (torch.Generator, np.random.Generator, random.Random)):
            yield value
    for name in _PARTS if depth else ():
        if attributes.get(name) is not None:
            yield from _held(attributes[name], depth - 1)


def _state(generator: Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    return _without_arrays(generator.bit_generator.state)


def _without_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_arrays(item) for key, item in value.items()}
    return {"array": value.tolist(), "of": str(value.dtype)} if hasattr(value, "dtype") else value


def _with_arrays(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array", "of"}:
        return np.array(value["array"], dtype=value["of"])
    return {key: _with_arrays(item) for key, item in value.items()}
