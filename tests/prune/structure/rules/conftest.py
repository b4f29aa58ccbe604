"""What a rule says of one module, and models whose wiring is declared in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from pyg_stkd.prune.structure import registry
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels


class Said:
    """What the rule of a module says where it is given channels, as many as asked for.

    Several widths are those of sources and targets; None is an input of unknown channels.
    """

    def __init__(self, module: nn.Module, *widths: int | None, heads: bool = False) -> None:
        self.ports = Ports(module, (), heads, follow=lambda ports, model: [])
        xs = [None if width is None else self.ports.new(width) for width in widths]
        self.x: Any = xs[0] if len(xs) == 1 else xs
        self.out: Any = self.ports(module, self.x)
        self.owned = self.ports.owned
        self.of_root = {name: shape for place, name, shape in self.ports.attributes if not place}
        self.attributes = {f"{place}.{name}": s for place, name, s in self.ports.attributes}

    def same(self, a: Channels, b: Channels) -> bool:
        """Tells whether channels are of the same units, index by index."""
        find = self.ports.find
        return [*map(find, a)] == [*map(find, b)]

    def free(self, channels: Channels) -> list[bool]:
        """Tells for each index whether it may go."""
        return [not self.ports.is_frozen(unit) for unit in channels]


@pytest.fixture
def said() -> type[Said]:
    return Said


class Declared(nn.Module):
    """A model of the user's: layers that are called as a test says, one after the other."""

    def __init__(self, layers: Any, run: Callable[..., Any]) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleList(layers), run

    def forward(self, *args: Any) -> Any:
        return self.run(self.layers, *args)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> type[Declared]:
    """A class whose rule says that its layers follow one another."""

    def rule(ports: Ports, model: Any, x: Any) -> Any:
        for layer in model.layers:
            x = ports(layer, x)
        return x

    monkeypatch.setitem(registry._RULES, Declared, rule)
    return Declared
