"""A call with channels removed must give what it gives with them masked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.trial import Place
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels

__all__ = ["Line", "Removal", "choices", "in_one_line"]

# For each index of a result's dimension its unit, or -1 where it has none.
Line: TypeAlias = Tensor


def choices(ports: Ports, axes: Sequence[Channels]) -> list[set[int]]:
    """Return sets of units to try without: a random half, and the first ones of each axis.

    Each axis keeps some of its units.
    """
    free = list(
        dict.fromkeys(
            rep for axis in axes for rep in map(ports.find, axis) if not ports.is_frozen(rep)
        )
    )
    if not free:
        return []
    order = torch.randperm(len(free)).tolist()
    half = {free[i] for i in order[: max(1, len(free) // 2)]}
    first = {rep for axis in axes for rep in map(ports.find, axis[: max(1, len(axis) // 3)])}
    found = []
    for gone in (half, first & set(free)):
        for axis in axes:
            reps = list(map(ports.find, axis))
            if all(rep in gone for rep in reps):
                gone = gone - {reps[-1]}
        if gone and gone not in found:
            found.append(gone)
    return found


class Removal:
    """Tries a call without some units.

    Args:
        call (Call): The call.
        ports (Ports): The units.
        places (list of Place): The axes of what it is given.
        lines (list of dict): For each result the units of its dimensions, as far as known;
            dimensions that follow a width are added.
        width_of (callable): Says which units an integer of a given source counts.
    """

    def __init__(
        self,
        call: Call,
        ports: Ports,
        places: Sequence[Place],
        lines: list[dict[int, Line]],
        width_of: Callable[[Any], Channels | None],
    ) -> None:
        self.call = call
        self.ports = ports
        self.places = places
        self.lines = lines
        self.width_of = width_of
        self.zero: list[dict[int, bool]] = [{} for _ in lines]
        self.fault, self.kind = "", "mixes"

    def holds(self, gone: set[int]) -> bool:
        """Tell whether removed and masked are the same; :attr:`fault` and its kind say why not."""
        masked, removed = {}, {}
        for slot in {place.slot for place in self.places}:
            axes = [place for place in self.places if place.slot == slot]
            masked[slot] = self._masked(self.call.before[slot], axes, gone)
            removed[slot] = self._removed(self.call.before[slot], axes, gone)
        try:
            under_masks = self.call.replay(masked)
            without = self.call.replay(removed, lambda source: self._count(source, gone))
        except Exception as error:  # whatever a function of other sizes raises
            return self._fails(f"it fails with fewer channels: {in_one_line(error)}", "width")
        if len(without) != len(self.call.results):
            return self._fails("it returns another number of tensors", "width")
        return all(
            self._same(i, whole, part, gone)
            for i, (whole, part) in enumerate(zip(under_masks, without, strict=True))
        )

    def _same(self, i: int, masked: Tensor, removed: Tensor, gone: set[int]) -> bool:
        lines = self.lines[i]
        if masked.dim() != removed.dim():
            return self._fails("its result has another number of dimensions", "width")
        for dim in range(masked.dim()):
            if dim not in lines and masked.size(dim) != removed.size(dim):
                line = self._line(masked.size(dim), removed.size(dim), gone)
                if line is None:
                    why = f"dimension {dim} of its result shrinks by other channels"
                    return self._fails(why, "width")
                lines[dim] = line
        expected, base = masked, self.call.results[i]
        for dim, line in lines.items():
            gone_here = self._index(line, gone, True).to(masked.device)
            dropped = masked.index_select(dim, gone_here)
            if dropped.numel():
                if bool((~dropped.isfinite() & base.index_select(dim, gone_here).isfinite()).any()):
                    return self._fails("channels of zeros give values that are not finite")
                zero = bool((dropped == 0).all())
                self.zero[i][dim] = self.zero[i].get(dim, True) and zero
            expected = expected.index_select(dim, self._index(line, gone, False).to(masked.device))
        if expected.shape != removed.shape:
            return self._fails("its result has another shape than its channels", "width")
        if not self.call.is_random and not _close(expected, removed):
            return self._fails("its result depends on channels that are gone")
        return True

    def _fails(self, why: str, kind: str = "mixes") -> bool:
        self.fault, self.kind = why, kind
        return False

    def _index(self, line: Line, gone: set[int], of_gone: bool) -> Tensor:
        flags = [unit >= 0 and self.ports.find(unit) in gone for unit in line.tolist()]
        return torch.tensor([i for i, flag in enumerate(flags) if flag == of_gone]).long()

    def _masked(self, tensor: Tensor, places: Sequence[Place], gone: set[int]) -> Tensor:
        out = tensor.clone()
        for place in sorted(places, key=lambda place: place.axis.zero):
            if place.axis.same:
                continue
            index = self._index(torch.tensor(place.axis.channels), gone, True).to(tensor.device)
            part = out.index_select(place.dim, index)
            if place.axis.zero:
                part = torch.zeros_like(part)
            elif tensor.is_floating_point():
                part = part + (1.0 + torch.rand_like(part)) * (1.0 + part.abs().nan_to_num())
            elif tensor.dtype == torch.bool:
                part = ~part
            out.index_copy_(place.dim, index, part)
        return out

    def _removed(self, tensor: Tensor, places: Sequence[Place], gone: set[int]) -> Tensor:
        for place in places:
            index = self._index(torch.tensor(place.axis.channels), gone, False)
            tensor = tensor.index_select(place.dim, index.to(tensor.device))
        return tensor.clone()

    def _count(self, source: Any, gone: set[int]) -> int:
        channels = self.width_of(source)
        if channels is None:
            return int(source[-1])
        return sum(self.ports.find(unit) not in gone for unit in channels)

    def _line(self, before: int, after: int, gone: set[int]) -> Line | None:
        """Return the units of a dimension that is only as wide as channels are."""
        known = [place.axis.channels for place in self.places]
        known += [
            channels
            for width in self.call.widths
            if (channels := self.width_of(width.source)) is not None
        ]
        for channels in known:
            if len(channels) == before and self._kept(channels, gone) == after:
                return torch.tensor(channels)
        return None

    def _kept(self, channels: Channels, gone: set[int]) -> int:
        return sum(self.ports.find(unit) not in gone for unit in channels)


def in_one_line(error: Exception, most: int = 100) -> str:
    r"""Return the kind of an error and the start of what it says.

    Example:
        >>> in_one_line(RuntimeError("shapes differ\nhere and there")), in_one_line(KeyError())
        ('RuntimeError: shapes differ', 'KeyError')
    """
    text = str(error).strip().splitlines()
    name = type(error).__name__
    if not text:
        return name
    return f"{name}: {text[0] if len(text[0]) <= most else f'{text[0][: most - 3]}...'}"


def _close(a: Tensor, b: Tensor) -> bool:
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    if a.numel() == 0:
        return True
    finite = a[a.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 1.0
    tolerance = 1e-9 if a.dtype in (torch.float64, torch.complex128) else 1e-4
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * max(size, 1e-30), equal_nan=True)
