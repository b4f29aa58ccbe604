"""What is kept or dropped as a whole: units that are tied as channels meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Channels", "Shape", "Units"]

# The unit that each index of a dimension belongs to; None is an input of unknown width.
Channels: TypeAlias = tuple[int, ...]
# Channels, or a list of them, or of lists of them.
Shape: TypeAlias = Channels | Sequence[Any]


class Units:
    r"""Units by number, in classes of those that are tied; each class is kept, free or gone.

    The smallest unit of a class stands for it, its *representative*.

    Example:
        >>> units = Units()
        >>> a, b = units.new(2), units.new(2)
        >>> units.tie(a, b)
        (0, 1)
        >>> units.freeze(b[1])
        >>> units.representatives, units.frozen
        ([0, 1, 0, 1], {1})
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: set[int] = set()
        self._gone: set[int] = set()
        self._heads: set[int] = set()

    def new(self, width: int) -> Channels:
        """Make units that no layer's output has claimed yet."""
        first = len(self._parent)
        units = tuple(range(first, first + width))
        self._parent.extend(units)
        return units

    def find(self, unit: int) -> int:
        """Return the representative of a unit, the same for all that are tied."""
        while self._parent[unit] != unit:
            self._parent[unit] = self._parent[self._parent[unit]]
            unit = self._parent[unit]
        return unit

    def tie(self, a: Channels | None, b: Channels | None) -> Channels | None:
        """Make the units of two channels one, index by index, as where features are added."""
        if a is None or b is None:
            self.freeze(a)
            self.freeze(b)
            return b if a is None else a
        if len(a) != len(b):
            raise ValueError(f"Channels that are added must be as many (got {len(a)}, {len(b)})")
        for i, j in zip(a, b, strict=True):
            i, j = self.find(i), self.find(j)
            if i != j:
                self._parent[max(i, j)] = min(i, j)
                if i in self._frozen or j in self._frozen:
                    self._frozen.add(min(i, j))
        return a

    def freeze(self, x: Any) -> None:
        """Keep these channels, whatever their scores."""
        if isinstance(x, int):
            self._frozen.update((x, self.find(x)))
        elif x is not None:
            for item in x:
                self.freeze(item)

    def is_frozen(self, unit: int) -> bool:
        """Tell whether a unit is kept."""
        return self.find(unit) in self._frozen

    def is_free(self, channels: Channels) -> bool:
        """Tell whether any of these may go."""
        return any(not self.is_frozen(unit) for unit in channels)

    def mark_heads(self, units: Iterable[int]) -> None:
        """Say that units are heads, as are all channels that meet them."""
        self._heads.update(units)

    def is_head(self, channels: Iterable[int]) -> bool:
        """Tell whether any of these is tied to a head."""
        heads = {self.find(unit) for unit in self._heads}
        return any(self.find(unit) in heads for unit in channels)

    def classes(self, channels: Channels) -> tuple[list[int], Tensor]:
        """Return the units (representatives) of channels, and which of them each index has."""
        found = [self.find(unit) for unit in channels]
        place = {unit: i for i, unit in enumerate(dict.fromkeys(found))}
        return list(place), torch.tensor([place[unit] for unit in found])

    @property
    def representatives(self) -> list[int]:
        """For each unit that was ever made the one that stands for it."""
        return [self.find(unit) for unit in range(len(self._parent))]

    @property
    def frozen(self) -> set[int]:
        """The units (representatives) that are kept."""
        return {self.find(unit) for unit in self._frozen}

    @property
    def units(self) -> list[int]:
        """All units (representatives)."""
        return sorted({self.find(unit) for unit in range(len(self._parent))} - self._gone)
