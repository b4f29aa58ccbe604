"""One call of a function, taken apart so that it can be made again with other tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data.data import BaseData

from pyg_stkd.prune.following.calls.widths import Resolve, Width

__all__ = ["Call", "rebuild", "tensors_of"]


def rebuild(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested lists, tuples, dicts and slices with each other value changed.

    Example:
        >>> rebuild(([1, 2], {"a": slice(3)}), lambda x: x if x is None else x + 1)
        ([2, 3], {'a': slice(None, 4, None)})
    """
    if isinstance(value, slice):
        return slice(*[rebuild(part, change) for part in (value.start, value.stop, value.step)])
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*[rebuild(item, change) for item in value])
    if isinstance(value, torch.Size):
        return torch.Size([rebuild(item, change) for item in value])
    if type(value) in (list, tuple):
        return type(value)(rebuild(item, change) for item in value)
    if isinstance(value, dict):
        return {key: rebuild(item, change) for key, item in value.items()}
    return change(value)


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples, dicts and data objects."""
    found: list[Tensor] = []
    if isinstance(value, BaseData):
        value = value.to_dict()
    elif is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            found += tensors_of(item)
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        for item in value:
            found += tensors_of(item)
    return found


class Call:
    """A function and its arguments, the tensors among them copied before it may change them.

    Attributes:
        tensors: The tensors that were given, in order: the slots of the call.
        before: Copies of them.
        widths: The widths among the other arguments.
        out: What the function returned.
        outputs: The tensors that it returned or changed.
        results: Their values.
    """

    def __init__(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]):
        self.func = func
        self.tensors: list[Tensor] = []
        self.widths: list[Width] = []
        self._arguments = rebuild((list(args), dict(kwargs)), self._take)
        self.before = [
            t.detach() if isinstance(t, torch.nn.Parameter) else t.detach().clone()
            for t in self.tensors
        ]
        versions = [_version(t) for t in self.tensors]
        self._random = torch.get_rng_state()
        self.out = func(*args, **kwargs)
        self.changed = [
            slot for slot, t in enumerate(self.tensors) if _version(t) != versions[slot]
        ]
        returned = tensors_of(self.out)
        seen = {id(t) for t in returned}
        self.outputs = returned + [
            self.tensors[slot] for slot in self.changed if id(self.tensors[slot]) not in seen
        ]
        self.results = [t.detach() for t in self.outputs]
        self._only_changed = [s for s in self.changed if id(self.tensors[s]) not in seen]
        self.draws = not torch.equal(self._random, torch.get_rng_state())
        # Whether values say nothing: they are drawn, or whatever was in the memory.
        self.is_random = self.draws or "empty" in getattr(func, "__name__", "")

    def replay(self, tensors: Mapping[int, Tensor], resolve: Resolve | None = None) -> list[Tensor]:
        """Make the call again, with other tensors in some slots; return its results.

        Whatever the function raises comes through.
        """
        slots = dict(enumerate(self.before))
        slots.update(tensors)
        for slot in self.changed:
            slots[slot] = slots[slot].clone()

        def give(value: Any) -> Any:
            if isinstance(value, _Slot):
                return slots[value.index]
            if isinstance(value, Width):
                return int(value) if resolve is None else value.at(resolve)
            return value

        args, kwargs = rebuild(self._arguments, give)
        after = torch.get_rng_state() if self.draws else None
        if after is not None:
            torch.set_rng_state(self._random)
        try:
            out = self.func(*args, **kwargs)
        finally:
            if after is not None:
                torch.set_rng_state(after)
        return [t.detach() for t in tensors_of(out)] + [slots[s] for s in self._only_changed]

    def sizes(self) -> list[Any]:
        """Return the integers that follow a first tensor, or are in one tuple, such as sizes."""
        args = [value for value in self._arguments[0] if not isinstance(value, _Slot)]
        if len(args) == 1 and isinstance(args[0], (list, tuple)):
            args = list(args[0])
        if not args and isinstance(size := self._arguments[1].get("size"), (list, tuple)):
            args = list(size)
        return [value for value in args if isinstance(value, int)]

    def _take(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return _Slot(len(self.tensors) - 1)
        if isinstance(value, Width):
            self.widths.append(value)
        return value


class _Slot:
    def __init__(self, index: int) -> None:
        self.index = index


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
