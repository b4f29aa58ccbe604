"""Follow channels through one call of a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.following.calls.removal import Line, Removal, choices, in_one_line
from pyg_stkd.prune.following.calls.trial import Noticed, Place, dependence, differs, spread
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels

__all__ = ["FunctionTrial"]


class FunctionTrial:
    """Says which channels a call's results have, ties those that meet, keeps what it cannot follow.

    Args:
        call (Call): The call.
        labels (Labels): The axes of all tensors.
        width_of (callable): Says which units an integer of a given source counts.
        keep (callable): Called with channels that must be kept, why, and the kind of reason.
    """

    def __init__(
        self,
        call: Call,
        labels: Labels,
        width_of: Callable[[Any], Channels | None],
        keep: Callable[[Channels, str, str], None],
    ) -> None:
        self.call = call
        self.ports: Ports = labels.ports
        self.labels = labels
        self.width_of = width_of
        self.keep = keep
        self.lines: list[dict[int, Line]] = [{} for _ in call.results]
        self.mixed: list[Place] = []
        self.places = [
            Place(slot, dim, axis)
            for slot, tensor in enumerate(call.tensors)
            for dim, axis in labels.of(tensor).items()
        ]

    def run(self, claim: Callable[[Call, list[dict[int, Line]]], None]) -> None:
        """Try the call and label its results.

        Args:
            claim (callable): Called when the channels of the results are known by value, for
                widths in the call that nothing has claimed yet.
        """
        for place in self.places:
            self._follow(place)
        claim(self.call, self.lines)
        self._pair()
        zero = self._check()
        for tensor, lines, flags in zip(self.call.outputs, self.lines, zero, strict=True):
            axes = {
                dim: Axis(self._channels(line), flags.get(dim, False))
                for dim, line in lines.items()
            }
            self.labels.put(tensor, axes)

    def _follow(self, place: Place) -> None:
        try:
            found = dependence(self.call, place, self.ports)
        except Exception as error:
            why = f"it cannot be tried with other values ({in_one_line(error)})"
            self.keep(place.axis.channels, why, "mixes")
            return
        if any(noticed.mixes for noticed in found):
            found = self._folded(place) or found
        for i, noticed in enumerate(found):
            if noticed.any:
                line = spread(noticed, self.ports.heads)
                if line is None:
                    self._mix(place)
                    continue
                dim, units, ties = line
                if ties and self.ports.heads:
                    self.ports.mark_heads(units[units >= 0].tolist())
                for tied in ties:
                    self.ports.tie(tuple(tied[1:]), tuple(tied[:1]) * (len(tied) - 1))
                self._meet(i, dim, units)

    def _folded(self, place: Place) -> list[Noticed] | None:
        """Make channels in equal blocks one, if each entry notices one of them then, as in GLU."""
        width = len(place.axis.channels)
        for blocks in (2, 3, 4):
            part = width // blocks
            if width % blocks or part < 2 or not any(part in r.shape for r in self.call.results):
                continue
            state = self.ports.snapshot()
            self.ports.tie(place.axis.channels, place.axis.channels[:part] * blocks)
            found = dependence(self.call, place, self.ports)
            if not any(noticed.mixes for noticed in found):
                return found
            self.ports.restore(state)
        return None

    def _mix(self, place: Place) -> None:
        if place not in self.mixed:
            self.mixed.append(place)

    def _meet(self, i: int, dim: int, line: Line) -> None:
        known = self.lines[i].get(dim)
        if known is None:
            self.lines[i][dim] = line
            return
        both = ((known >= 0) & (line >= 0)).nonzero().view(-1)
        self.ports.tie(tuple(known[both].tolist()), tuple(line[both].tolist()))
        self.lines[i][dim] = torch.where(known >= 0, known, line)

    def _pair(self) -> None:
        """Tie axes over which products are summed: where either is 0, the other does not count."""
        for i, a in enumerate(self.mixed):
            for b in self.mixed[i + 1 :]:
                if len(a.axis.channels) == len(b.axis.channels) and self._is_pair(a, b):
                    self.ports.tie(a.axis.channels, b.axis.channels)

    def _is_pair(self, a: Place, b: Place) -> bool:
        if (a.slot, a.dim) == (b.slot, b.dim):
            return False
        width = len(a.axis.channels)
        index = torch.randperm(width)[: max(1, width // 2)]
        try:
            without_a = self.call.replay({a.slot: self._zeroed(a, index)})
            without_b = self.call.replay({b.slot: self._zeroed(b, index)})
        except Exception:
            return False
        changes = any(
            x.shape != y.shape or bool(differs(x, y).any())
            for x, y in zip(without_a, self.call.results, strict=True)
        )
        return changes and all(
            x.shape == y.shape and torch.allclose(x, y, rtol=1e-4, atol=1e-6, equal_nan=True)
            for x, y in zip(without_a, without_b, strict=True)
            if x.is_floating_point()
        )

    def _zeroed(self, place: Place, index: Tensor) -> Tensor:
        tensor = self.call.before[place.slot].clone()
        return tensor.index_fill_(place.dim, index.to(tensor.device), 0)

    def _check(self) -> list[dict[int, bool]]:
        """Try without channels, all at once; if that fails, each alone, and keep what fails."""
        removal = self._removal(self.places)
        if self._all_hold(removal, [place.axis.channels for place in self.places]):
            return removal.zero
        for places in self._components():
            channels = [place.axis.channels for place in places]
            alone = self._removal(self.places)
            if self._all_hold(alone, channels):
                continue
            fault = alone.fault, alone.kind
            if self._fold(places, channels):
                continue
            for place in places:
                self.keep(place.axis.channels, *fault)
        self.places = [p for p in self.places if self.ports.is_free(p.axis.channels)]
        removal = self._removal(self.places)
        if not self._all_hold(removal, [place.axis.channels for place in self.places]):
            for place in self.places:
                self.keep(place.axis.channels, removal.fault, removal.kind)
        return removal.zero

    def _removal(self, places: Sequence[Place]) -> Removal:
        return Removal(self.call, self.ports, places, self.lines, self.width_of)

    def _all_hold(self, removal: Removal, axes: list[Channels]) -> bool:
        counted = [self.width_of(width.source) for width in self.call.widths]
        axes = axes + [channels for channels in counted if channels is not None]
        return all(removal.holds(gone) for gone in choices(self.ports, axes))

    def _components(self) -> list[list[Place]]:
        """Return the axes, those that share units together."""
        parts: list[tuple[set[int], list[Place]]] = []
        for place in self.places:
            units = {self.ports.find(unit) for unit in place.axis.channels}
            members = [place]
            rest = []
            for other, places in parts:
                if other & units:
                    units |= other
                    members = places + members
                else:
                    rest.append((other, places))
            parts = [*rest, (units, members)]
        return [places for _, places in parts]

    def _fold(self, places: Sequence[Place], axes: list[Channels]) -> bool:
        """Try to make channels in equal blocks one, as where a call cuts them in chunks."""
        for blocks in dict.fromkeys((len(self.call.results), 2, 3, 4)):
            state = self.ports.snapshot()
            for channels in axes:
                if blocks < 2 or len(channels) % blocks or len(channels) == blocks:
                    break
                first = channels[: len(channels) // blocks]
                self.ports.tie(channels, first * blocks)
                if len(self.ports.classes(channels)[0]) < 2:  # of which none could go
                    break
            else:
                if self._all_hold(self._removal(self.places), axes):
                    return True
            self.ports.restore(state)
        return False

    def _channels(self, line: Line) -> Channels:
        units = line.tolist()
        missing = [i for i, unit in enumerate(units) if unit < 0]
        for i, unit in zip(missing, self.ports.kept(len(missing)), strict=True):
            units[i] = unit
        return tuple(units)
