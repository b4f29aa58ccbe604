"""Which channels the integers count that a model's own code reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.labels import Labels
from pyg_stkd.prune.following.calls.removal import Line
from pyg_stkd.prune.following.calls.widths import Width
from pyg_stkd.prune.structure.reasons import caller
from pyg_stkd.prune.structure.units import Channels

__all__ = ["Counts"]


class Counts:
    """Sizes and attributes, as widths that are told how they are used.

    Args:
        labels (Labels): The axes of all tensors.
        keep (callable): Keeps channels, and notes why and where.

    Attributes:
        attributes: The channels that an attribute counts, by the module's and its own name.
    """

    def __init__(self, labels: Labels, keep: Callable[..., None]) -> None:
        self.labels = labels
        self.ports = labels.ports
        self.keep = keep
        self.attributes: dict[tuple[str, str], Channels] = {}
        self._scaled: dict[tuple[str, str], str] = {}  # of what numbers are made, and where

    def count(self, source: Any) -> Channels | None:
        """Return the units that an integer counts, by where it was read."""
        if source[0] == "size":
            channels = source[1]
            return channels if self.ports.is_free(channels) else None
        found = self.attributes.get(source[1:3])
        return found if found is not None and self.ports.is_free(found) else None

    def width(self, source: Any) -> Width:
        """Return the integer of a source, which tells when it is compared or used as a number."""
        width = Width(source[-1], source, on_float=self._on_float)
        width.on_compare = self._on_compare
        return width

    def tag(self, prefix: str, module: nn.Module) -> None:
        """Replace integers that a module holds by widths, which tell when they are used."""
        for key, value in list(vars(module).items()):
            if type(value) is int and value > 1 and not key.startswith("_"):
                source = ("attribute", prefix, key, value)
                vars(module)[key] = self.width(source)

    def claim(self, call: Call, lines: list[dict[int, Line]]) -> None:
        """Say which channels an attribute counts, where a call makes a dimension as wide."""
        values = call.sizes()
        for width in call.widths:
            source = width.source
            if source[0] != "attribute" or source[3] % max(1, int(width)):
                continue
            times = source[3] // int(width)  # as for the channels of each head
            if width.at(lambda known, source=source: known[3]) != int(width):
                continue
            if source[1:3] not in self.attributes and not self._sizes(call, source):
                continue
            for result, known in zip(call.results, lines, strict=True):
                if len(values) == result.dim():
                    dims = [i for i, value in enumerate(values) if value is width]
                else:
                    dims = [d for d in range(result.dim()) if d in known]
                dims = [d for d in dims if result.size(d) == int(width)]
                if not dims:
                    continue
                dim = dims[-1]
                place = source[1:3]
                if dim in known and bool((known[dim] >= 0).all()):
                    self._attribute(place, tuple(known[dim].tolist()) * times)
                elif not known and not any(self.labels.of(t) for t in call.tensors) and times == 1:
                    if place not in self.attributes:
                        self._attribute(place, self.ports.new(int(width)))
                    known[dim] = torch.tensor(self.attributes[place])

    def _on_compare(self, a: Any, b: Any) -> None:
        """An attribute that the model's code compares with a width is one."""
        for attribute, size in ((a, b), (b, a)):
            if attribute[0] == "attribute" and size[0] == "size" and len(size[1]) == attribute[3]:
                self._attribute(attribute[1:3], size[1])

    def _on_float(self, source: Any) -> None:
        if source[0] == "size":
            why = "a number is made of the width"
            self.keep(source[1], why, kind="number", where=caller())
            return
        place = source[1:3]
        self._scaled.setdefault(place, caller())
        if place in self.attributes:
            self._attribute(place, self.attributes[place])

    def _sizes(self, call: Call, source: Any) -> bool:
        """Tell whether a number is a size in a call: another one changes or breaks its result."""
        try:
            other = call.replay({}, lambda known: known[-1] * (2 if known == source else 1))
        except Exception:
            return True
        return any(a.shape != b.shape for a, b in zip(other, call.results, strict=True))

    def _attribute(self, place: tuple[str, str], channels: Channels) -> None:
        if place in self.attributes:
            self.ports.tie(self.attributes[place], channels)
        else:
            self.attributes[place] = channels
        if place in self._scaled:
            why = f"a number is made of self.{place[1]}"
            self.keep(channels, why, kind="number", where=self._scaled[place])
