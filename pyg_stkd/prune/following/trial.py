"""What a function makes of channels, found by trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyg_stkd.prune.following.call import Call
from pyg_stkd.prune.following.codes import channel_codes, decode
from pyg_stkd.prune.following.labels import Axis
from pyg_stkd.prune.structure.ports import Ports

__all__ = ["dependence", "differs", "Place", "spread"]


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


def changed_at(tensor: Tensor, dim: int, index: Tensor, sign: float) -> Tensor:
    """Return a copy with other values at some indices: NaN for sign 0, else large ones."""
    out = tensor.clone()
    if tensor.dtype == torch.bool:
        return out.index_copy_(dim, index, ~tensor.index_select(dim, index))
    if not (tensor.is_floating_point() or tensor.is_complex()):
        low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
        return out.index_fill_(dim, index, high if sign > 0 else low)
    if sign == 0:
        return out.index_fill_(dim, index, math.nan)
    finite = tensor[tensor.isfinite()]
    size = 1e3 * (1.0 + (float(finite.abs().max()) if finite.numel() else 0.0))
    part = tensor.index_select(dim, index)
    return out.index_copy_(dim, index, sign * size * (1.0 + torch.rand_like(part)))


def differs(a: Tensor, b: Tensor) -> Tensor:
    """Tell where two tensors are not the same; NaN is the same as NaN."""
    if a.shape != b.shape:
        raise ValueError("shapes differ")
    if a.is_floating_point() or a.is_complex():
        return (a != b) & ~(a.isnan() & b.isnan())
    return a != b


def dependence(call: Call, place: Place, ports: Ports) -> list[Tensor | None]:
    """Return which unit of an axis each entry of each result notices: -1 for none.

    :obj:`None` stands for a result of which some entry notices several.

    Raises:
        Exception: Whatever the function raises for other values.
    """
    units, indices = ports.classes(place.axis.channels)
    codes = channel_codes(len(units))
    tensor = call.before[place.slot]
    found: list[Tensor | None] = []
    for signs in ((0.0,), (1.0, -1.0)):
        seen = [torch.zeros(r.shape, dtype=torch.long) for r in call.results]
        for bit in range(codes.size(1)):
            index = codes[indices, bit].nonzero().view(-1)
            for sign in signs:
                other = changed_at(tensor, place.dim, index.to(tensor.device), sign)
                for old, first, new in zip(
                    seen, call.results, call.replay({place.slot: other}), strict=True
                ):
                    old |= differs(first, new).cpu().long() << bit
        found = []
        for bits in seen:
            entries = decode(codes, bits)
            found.append(None if bool((entries == -2).any()) else entries)
        if any(entries is None or bool((entries >= 0).any()) for entries in found):
            break  # NaN was noticed; it gets lost in comparisons and casts alone
    lookup = torch.tensor([*units, -1])
    return [None if entries is None else lookup[entries] for entries in found]


def spread(entries: Tensor, heads: bool) -> tuple[int, Tensor, list[Sequence[int]]] | None:
    """Return the dimension along which a result's units vary, its units, and units to tie.

    Where they vary along several dimensions, as behind :obj:`view(-1, H, C)`, all units at the
    same index of the last one (of the first one, for heads) are one. :obj:`None` if no
    dimension tells units apart.
    """
    if int(entries.max()) < 0:
        return None
    varies = []
    for dim in range(entries.dim()):
        rest = [d for d in range(entries.dim()) if d != dim]
        line = entries.amax(rest) if rest else entries
        known = line[line >= 0]
        if known.numel() and bool((known != known[0]).any()):
            shape = [-1 if d == dim else 1 for d in range(entries.dim())]
            if bool(((entries == line.view(shape)) | (entries < 0)).all()):
                return dim, line, []
        varies.append(dim)
    order = varies if heads else varies[::-1]
    for dim in order:
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
