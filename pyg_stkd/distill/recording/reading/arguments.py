"""Arguments that two models share, so that neither sees what the other did with them."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch_geometric.data.data import BaseData

from pyg_stkd.distill.recording.reading.parts import tensors_of
from pyg_stkd.distill.recording.reading.random_numbers import RandomState

__all__ = ["Carried", "Turns", "Unchanged", "own"]


def own(value: Any) -> Any:
    """Return containers of one's own: what a model puts in or takes out, no other one sees.

    ``Data``, dictionaries, lists, tuples and dataclasses are copied, the tensors in them are not.

    Example:
        >>> given = {"x": [1, 2]}
        >>> mine = own(given)
        >>> mine["x"].append(3)
        >>> given
        {'x': [1, 2]}
    """
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, BaseData):
        return _own_data(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(own, value))
    if type(value) in (tuple, list):
        return type(value)(map(own, value))
    if type(value) is dict:
        return {key: own(item) for key, item in value.items()}
    if isinstance(value, (MutableMapping, list, set)) or _is_dataclass(value):
        return _own_parts(copy.copy(value))
    return value


def _own_data(data: BaseData) -> BaseData:
    data = copy.copy(data)
    for store in data.stores:
        for key, value in store.items():
            if isinstance(value, (MutableMapping, list, set)):
                store[key] = own(value)
    return data


def _own_parts(value: Any) -> Any:
    """Put containers of one's own into a copy of a container of another class."""
    if isinstance(value, MutableMapping):
        for key in list(value):
            value[key] = own(value[key])
    elif isinstance(value, list):
        value[:] = map(own, value)
    elif _is_dataclass(value):
        for name in vars(value):  # frozen ones, too
            object.__setattr__(value, name, own(getattr(value, name)))
    return value


class Unchanged:
    """The tensors of arguments as they are now, and whether they still are later on.

    Those in attributes of an object of some other class, which no one copies, must also be there.

    Args:
        args (Any): The arguments.

    Example:
        >>> x = torch.ones(2)
        >>> unchanged = Unchanged({"x": x})
        >>> _ = x.add_(1)
        >>> unchanged.check("teacher")
        Traceback (most recent call last):
        ValueError: 'teacher' must not write to the tensors it is given, which the student is given
        too (got 1 rewritten): give it copies, teacher_args=(x.clone(), ...)
    """

    def __init__(self, args: Any) -> None:
        self._held = list(_held(args))
        self.tensors = [*tensors_of(args), *(x for _, _, x in self._held)]
        self._versions = [None if x.is_inference() else x._version for x in self.tensors]

    def check(self, owner: str) -> None:
        """Raise if one was rewritten."""
        rewritten = sum(
            version is not None and x._version != version
            for x, version in zip(self.tensors, self._versions, strict=True)
        ) + sum(vars(holder).get(name) is not x for holder, name, x in self._held)
        if rewritten:
            raise ValueError(
                f"'{owner}' must not write to the tensors it is given, which the student is given "
                f"too (got {rewritten} rewritten): give it copies, "
                f"teacher_args=(x.clone(), ...)"
            )


def _held(value: Any) -> Iterator[tuple[Any, str, torch.Tensor]]:
    """Yield the tensors in attributes of objects that are no container known here."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            if not isinstance(item, torch.Tensor):
                yield from _held(item)
        return
    known = (torch.Tensor, nn.Module, BaseData, type)
    if isinstance(value, known) or callable(value) or _is_dataclass(value):
        return
    for name, x in getattr(value, "__dict__", {}).items():
        if isinstance(x, torch.Tensor):
            yield value, name, x


class Turns:
    """What keeps two models that run one after the other from seeing anything of each other.

    Args:
        model (torch.nn.Module): A model, on whose device random numbers may be drawn.

    Example:
        >>> turns = Turns(nn.Identity())
        >>> turns.first((), shared=True)
        >>> a = torch.randperm(9)
        >>> turns.second()
        >>> torch.equal(a, torch.randperm(9))
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self._random = RandomState(model)
        self._carried = Carried()
        self._given: Unchanged | None = None

    def first(self, args: Any, shared: bool) -> None:
        """The teacher is about to run, on the arguments of the student or on its own."""
        self._given = Unchanged(args) if shared else None
        if self._given is not None and self._carried.returns(self._given.tensors):
            warnings.warn(
                "The teacher is given what the student returned in the call before, such as its "
                "hidden state: each model must go on from its own. Give the teacher's by "
                "teacher_args=, which return_teacher=True returns, or run all steps in one call "
                "by distiller.unroll(step, sequence); teacher_args= is also the way to say that "
                "it is meant",
                stacklevel=4,
            )
        self._random.save()

    @torch.compiler.disable
    def second(self) -> None:
        """The student is about to run: it draws what the teacher drew."""
        self._random.restore()
        if self._given is not None:
            self._given.check("teacher")
        self._given = None

    def over(self, output: Any, args: Any) -> None:
        """The student has returned."""
        self._carried.remember(output, args)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


class Carried:
    """What a model returned last, so that it is noticed when it comes back as an argument.

    Example:
        >>> carried, state = Carried(), torch.ones(2)
        >>> carried.remember((None, state), given=())
        >>> carried.returns((state.detach(),)), carried.returns((torch.ones(2),))
        (True, False)
    """

    def __init__(self) -> None:
        self._storages: list[StorageWeakRef] = []

    def remember(self, output: Any, given: Any) -> None:
        """Note the tensors of an output, but those that were given to the model."""
        self._storages = list(_storages(output))
        if self._storages:
            known = {ref.cdata for ref in _storages(given)}
            self._storages = [ref for ref in self._storages if ref.cdata not in known]

    def returns(self, given: Any) -> bool:
        """Whether arguments hold a tensor of the output that was noted."""
        if not self._storages:
            return False
        alive = {ref.cdata for ref in self._storages if not ref.expired()}
        return bool(alive) and any(ref.cdata in alive for ref in _storages(given))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def _storages(value: Any) -> Iterator[StorageWeakRef]:
    for tensor in tensors_of(value):
        plain = type(tensor) is torch.Tensor and tensor.layout == torch.strided
        if plain and tensor.is_floating_point() and tensor.device.type != "meta":
            yield StorageWeakRef(tensor.untyped_storage())
