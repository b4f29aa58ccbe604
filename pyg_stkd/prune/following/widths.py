"""Integers that remember whose width they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Resolve", "Width"]

# What a width is after channels are gone, by its source.
Resolve: TypeAlias = Callable[[Any], int]


class Width(int):
    """An integer of a model's own code, read from a shape or an attribute, and where it is from.

    Sums and products of widths remember theirs, so that a call can be replayed with fewer
    channels. Where a float is made of one, as by a division by its root, its source is told so:
    outputs then change with the width itself.

    Example:
        >>> width = Width(8, "hidden") * 2
        >>> width, width.at(lambda source: 5)
        (16, 10)
    """

    source: Any
    at: Resolve
    on_float: Callable[[Any], None] | None

    def __new__(
        cls,
        value: int,
        source: Any,
        at: Callable[[Resolve], int] | None = None,
        on_float: Callable[[Any], None] | None = None,
    ) -> Width:
        self = super().__new__(cls, value)
        self.source = source
        self.at = (lambda resolve: resolve(source)) if at is None else at
        self.on_float = on_float
        return self

    def _with(self, other: Any, result: Any, operation: Callable[[int, int], int]) -> Any:
        if result is NotImplemented or not isinstance(other, int):
            return result
        right = other.at if isinstance(other, Width) else None

        def at(resolve: Resolve) -> int:
            return operation(self.at(resolve), other if right is None else right(resolve))

        return Width(result, self.source, at, self.on_float)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, int.__mul__(self, other), lambda a, b: a * b)

    def __rmul__(self, other: Any) -> Any:
        return self._with(other, int.__rmul__(self, other), lambda a, b: b * a)

    def __add__(self, other: Any) -> Any:
        return self._with(other, int.__add__(self, other), lambda a, b: a + b)

    def __radd__(self, other: Any) -> Any:
        return self._with(other, int.__radd__(self, other), lambda a, b: b + a)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, int.__sub__(self, other), lambda a, b: a - b)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(other, int.__floordiv__(self, other), lambda a, b: a // b)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with(other, int.__rfloordiv__(self, other), lambda a, b: b // a)

    def __float__(self) -> float:
        if self.on_float is not None:
            self.on_float(self.source)
        return float(int.__index__(self))

    def __truediv__(self, other: Any) -> Any:
        return float(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / float(self)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        return self.__float__() ** other if modulo is None else pow(int(self), other, modulo)

    def __deepcopy__(self, memo: Any) -> Width:
        return self
