"""What a function makes of channels, found by trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.codes import channel_codes, decode
from pyg_stkd.prune.following.calls.labels import Axis
from pyg_stkd.prune.structure.ports import Ports

__all__ = ["Noticed", "Place", "dependence", "differs", "spread"]


@dataclass(frozen=True)
class Place:
    """An axis of a tensor that a call is given.

    Args:
        slot: The tensor, by its place among those of the call.
        dim: The dimension.
        axis: Its units.
    """

    slot: int
    dim: int
    axis: Axis = field(compare=False)


class Poison:
    """Puts other values at some channels of a tensor: NaN, or large ones of either sign.

    Args:
        tensor (Tensor): The tensor.
        dim (int): The dimension of the channels.

    Example:
        >>> Poison(torch.ones(2, 3), 1)(torch.tensor([False, True, False]), 0)
        tensor([[1., nan, 1.],
                [1., nan, 1.]])
    """

    def __init__(self, tensor: Tensor, dim: int) -> None:
        self.tensor = tensor
        self.shape = [-1 if i == dim else 1 for i in range(tensor.dim())]
        self.is_float = tensor.is_floating_point() or tensor.is_complex()
        self._large: Tensor | None = None

    def __call__(self, flags: Tensor, sign: int) -> Tensor:
        """Return a copy with other values where the flags of the channels are set."""
        tensor, flags = self.tensor, flags.to(self.tensor.device).view(self.shape)
        if tensor.dtype == torch.bool:
            return tensor ^ flags
        if sign == 0 and self.is_float:
            return tensor.masked_fill(flags, math.nan)
        if self.is_float:
            return torch.where(flags, self._values() * sign, tensor)
        low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
        return tensor.masked_fill(flags, high if sign > 0 else low)

    def _values(self) -> Tensor:
        if self._large is None:
            finite = self.tensor[self.tensor.isfinite()]
            size = 1e3 * (1.0 + (float(finite.abs().max()) if finite.numel() else 0.0))
            self._large = size * (1.0 + torch.rand_like(self.tensor))
        return self._large


class _Compare:
    """Tells which entries of a result are others than at first.

    A product of matrices need not be the same to the last bit where its inputs are in another
    place of the memory.
    """

    def __init__(self, first: Tensor) -> None:
        self.first = first
        self.tolerance: float | None = None
        if first.is_floating_point() and first.numel() and bool(first.isfinite().all()):
            eps = torch.finfo(first.dtype).eps
            self.tolerance = 1e3 * eps * float(first.abs().max())

    def __call__(self, other: Tensor) -> Tensor:
        if self.first.shape != other.shape:
            raise ValueError("shapes differ")
        if self.tolerance is None:
            return differs(self.first, other)
        return ((other - self.first).abs_() <= self.tolerance).logical_not_()


def differs(a: Tensor, b: Tensor) -> Tensor:
    """Tell where two tensors are not the same; NaN is the same as NaN."""
    if a.is_floating_point() or a.is_complex():
        return (a != b) & ~(a.isnan() & b.isnan())
    return a != b


class Noticed:
    """Which units the entries of a result notice.

    Args:
        changed (list of Tensor): For each bit of the codes, which entries have changed.
        codes (Tensor): The codes of the units.
        units (list of int): The units.
        first (Tensor): The result.
    """

    def __init__(
        self, changed: Sequence[Tensor], codes: Tensor, units: Sequence[int], first: Tensor
    ) -> None:
        self.shape = first.shape
        self._changed = changed
        self._codes = codes
        self._lookup = torch.tensor([*units, -2, -1])
        self.any = any(bool(bit.any()) for bit in changed)
        self._lines: dict[int, Tensor | None] = {}

    def line(self, dim: int) -> Tensor | None:
        """Return the unit of each index of a dimension, -1 for none, or :obj:`None` for several."""
        if dim not in self._lines:
            rest = [d for d in range(len(self.shape)) if d != dim]
            bits = [bit.view(torch.uint8).amax(rest) if rest else bit for bit in self._changed]
            values = 1 << torch.arange(len(bits))
            self._lines[dim] = self._decoded(values @ torch.stack(bits).cpu().long())
        return self._lines[dim]

    @property
    def mixes(self) -> bool:
        """Whether an entry notices several units."""
        dims = range(len(self.shape))
        return self.any and all(self.line(d) is None for d in dims) and self.entries() is None

    def entries(self) -> Tensor | None:
        """Return the unit of each entry; :obj:`None` if one notices several."""
        seen = torch.zeros(self.shape, dtype=torch.long)
        for i, bit in enumerate(self._changed):
            seen |= bit.cpu().long() << i
        return self._decoded(seen)

    def _decoded(self, seen: Tensor) -> Tensor | None:
        found = decode(self._codes, seen)
        return None if bool((found == -2).any()) else self._lookup[found]


def dependence(call: Call, place: Place, ports: Ports) -> list[Noticed]:
    """Return for each result which units of an axis its entries notice.

    Raises:
        Exception: Whatever the function raises for other values.
    """
    units, indices = ports.classes(place.axis.channels)
    codes = channel_codes(len(units))
    poison = Poison(call.before[place.slot], place.dim)
    compare = [_Compare(result) for result in call.results]

    def changed(flags: Tensor, signs: Sequence[int]) -> list[Tensor]:
        """Return for each result which entries are others when these channels are."""
        seen: list[Tensor] = []
        for sign in signs:
            others = call.replay({place.slot: poison(flags, sign)})
            new = [differ(other) for differ, other in zip(compare, others, strict=True)]
            seen = [a | b for a, b in zip(seen, new, strict=True)] if seen else new
        return seen

    found: list[Noticed] = []
    everywhere = torch.ones(len(indices), dtype=torch.bool)
    exact = all(r.is_floating_point() or r.is_complex() for r in call.results)
    # NaN gets lost in comparisons and casts, for some values or for all.
    for signs in ((0,), (1, -1)) if exact else ((0, 1, -1),):
        if not any(bool(noticed.any()) for noticed in changed(everywhere, signs)):
            continue
        bits = [changed(codes[indices, bit], signs) for bit in range(codes.size(1))]
        found = [
            Noticed(list(of_result), codes, units, result)
            for of_result, result in zip(zip(*bits, strict=True), call.results, strict=True)
        ]
        if any(noticed.any for noticed in found):
            return found
    return found or [Noticed([], codes, units, result) for result in call.results]


def spread(noticed: Noticed, heads: bool) -> tuple[int, Tensor, list[Sequence[int]]] | None:
    """Return the dimension along which a result's units vary, its units, and units to tie.

    Where they vary along several dimensions, as behind :obj:`view(-1, H, C)`, all units at the
    same index of the last one (of the first one, for heads) are one. :obj:`None` if no
    dimension tells units apart, or an entry notices several.
    """
    for dim in range(len(noticed.shape)):
        line = noticed.line(dim)
        if line is not None:
            known = line[line >= 0]
            if bool((known != known[0]).any()):
                return dim, line, []
    entries = noticed.entries()
    if entries is None:
        return None
    dims = list(range(entries.dim()))
    for dim in dims if heads else dims[::-1]:
        ties: list[Sequence[int]] = []
        firsts: list[int] = []
        for j in range(entries.size(dim)):
            part = entries.select(dim, j)
            together = part[part >= 0].unique().tolist()
            ties.append(together)
            firsts.append(together[0] if together else -1)
        joined = _joined(ties)
        if len({joined[u] for u in firsts if u >= 0}) > 1:
            return dim, torch.tensor(firsts), [t for t in ties if len(t) > 1]
    return None


def _joined(ties: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return a representative of each unit when these are tied."""
    first: dict[int, int] = {}

    def find(unit: int) -> int:
        while first.setdefault(unit, unit) != unit:
            unit = first[unit]
        return unit

    for together in ties:
        for unit in together:
            a, b = find(unit), find(together[0])
            first[max(a, b)] = min(a, b)
    return {unit: find(unit) for unit in list(first)}
