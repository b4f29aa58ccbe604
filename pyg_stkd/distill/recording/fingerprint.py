"""Fingerprints of tensors: whether a teacher or an input is what it was."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.distill.recording.reading.parts import tensors_of
from pyg_stkd.graph import Graph

__all__ = ["Seen", "fingerprint"]


def fingerprint(*values: Any) -> str:
    """Return a hash of all tensors in some values: their types, shapes and numbers.

    Numbers and words beside tensors count too.

    Example:
        >>> x = torch.ones(2)
        >>> fingerprint(x) == fingerprint([x.clone()]), fingerprint(x) == fingerprint(x + 1)
        (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    for tensor in _tensors(values):
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        for part in _dense_parts(tensor.detach()):
            plain = part.cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(plain.numpy().data)
    digest.update("".join(_words(values)).encode())
    return digest.hexdigest()


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """Return the arrays that a tensor is stored in."""
    if tensor.layout == torch.strided:
        return [tensor.as_subclass(Tensor)]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]


class Seen:
    """Tensors as they were: whether they are the same, unwritten, is known without a look at them.

    Example:
        >>> x = torch.ones(2)
        >>> seen = Seen(x)
        >>> seen.same(x), seen.same(x.clone()), seen.same(x.add_(1))
        (True, False, False)
    """

    def __init__(self, *values: Any) -> None:
        self._known = [(weakref.ref(x), _version(x)) for x in _held(values)]
        self._words = list(_words(values))

    def same(self, *values: Any) -> bool:
        """Return whether the tensors of these values are those, and no one has written to them."""
        given = list(_held(values))
        if len(given) != len(self._known) or self._words != list(_words(values)):
            return False
        return all(
            ref() is x and version is not None and version == _version(x)
            for x, (ref, version) in zip(given, self._known, strict=True)
        )


def _held(values: Iterable[Any]) -> Iterable[Tensor]:
    """Yield tensors that live as long as the values do: a graph makes its sources when asked."""
    for value in values:
        if isinstance(value, Graph):
            yield from value.csr()
        else:
            yield from tensors_of(value)


def _words(values: Iterable[Any]) -> Iterable[str]:
    """Yield the numbers and words among values, as texts."""
    for value in values:
        if isinstance(value, (bool, int, float, str)):
            yield repr(value)
        elif isinstance(value, Mapping):
            yield from _words(value.values())
        elif isinstance(value, (tuple, list)):
            yield from _words(value)


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Graph):
            yield from (value.rowptr, value.col)
        else:
            yield from tensors_of(value)
