"""Integers that remember whose width they are."""

from __future__ import annotations

import operator
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
    on_compare: Callable[[Any, Any], None] | None = None

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
        parts: list[Any] = [self.source, getattr(other, "source", ("",))]
        if operation is operator.add and all(part[0] == "size" for part in parts):
            source = ("size", parts[0][1] + parts[1][1], int(result))  # side by side
            return Width(result, source, None, self.on_float)
        right = other.at if isinstance(other, Width) else None

        def at(resolve: Resolve) -> int:
            return operation(self.at(resolve), other if right is None else right(resolve))

        return Width(result, self.source, at, self.on_float)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, int.__mul__(self, other), lambda a, b: a * b)

    def __rmul__(self, other: Any) -> Any:
        return self._with(other, int.__rmul__(self, other), lambda a, b: b * a)

    def __add__(self, other: Any) -> Any:
        return self._with(other, int.__add__(self, other), operator.add)

    def __radd__(self, other: Any) -> Any:
        return self._with(other, int.__radd__(self, other), lambda a, b: b + a)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, int.__sub__(self, other), lambda a, b: a - b)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(other, int.__floordiv__(self, other), lambda a, b: a // b)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._with(other, int.__rfloordiv__(self, other), lambda a, b: b // a)

    def _compared(self, other: Any) -> None:
        if isinstance(other, Width) and self.on_compare is not None and int(self) == int(other):
            self.on_compare(self.source, other.source)

    def __eq__(self, other: object) -> bool:
        self._compared(other)
        return int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        self._compared(other)
        return int.__ne__(self, other)

    def __lt__(self, other: int) -> bool:
        self._compared(other)
        return int.__lt__(self, other)

    def __gt__(self, other: int) -> bool:
        self._compared(other)
        return int.__gt__(self, other)

    def __le__(self, other: int) -> bool:
        self._compared(other)
        return int.__le__(self, other)

    def __ge__(self, other: int) -> bool:
        self._compared(other)
        return int.__ge__(self, other)

    __hash__ = int.__hash__

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
