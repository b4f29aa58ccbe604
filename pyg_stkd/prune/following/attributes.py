"""Numbers that a model's own classes remember, and that are as large as channels are many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from pyg_stkd.prune.following.leaves import leaf_of
from pyg_stkd.prune.mask_hooks.hooks import original_of
from pyg_stkd.prune.structure.layout import named_originals
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels

__all__ = ["remembered"]


def remembered(ports: Ports, model: nn.Module, first: bool = False) -> list[tuple[str, str, Any]]:
    """Return the attributes that may be widths, by their module, their name and their channels.

    Such an attribute is an integer, or a list of them, that the following of channels has said
    nothing of, as no step that has channels reads it. It may be a width where
    those dimensions of parameters in its module that are as large are all of the same channels.
    Whether it is one shows when models are compared.

    Args:
        ports (Ports): What was found by following.
        model (torch.nn.Module): The model, whose attributes are read.
        first (bool): Whether the first channels count where dimensions of several are as large.
            (default: :obj:`False`)
    """
    told = {(prefix, name) for prefix, name, _ in ports.attributes}
    found: list[tuple[str, str, Any]] = []
    for prefix, module in model.named_modules():
        if leaf_of(module):
            continue
        widths = _widths(ports, module, prefix)
        for name, value in vars(module).items():
            if name.startswith("_") or (prefix, name) in told:
                continue
            numbers = value if isinstance(value, (list, tuple)) else [value]
            if not numbers or not all(type(number) is int for number in numbers):
                continue
            channels = [_only(ports, widths.get(number, []), first) for number in numbers]
            if not any(channels):
                continue
            shape = [
                ports.kept(number) if one is None else one
                for number, one in zip(numbers, channels, strict=True)
            ]
            found.append((prefix, name, shape if isinstance(value, (list, tuple)) else shape[0]))
    return found


def _widths(ports: Ports, module: nn.Module, prefix: str) -> dict[int, list[Channels | None]]:
    """Return the channels of all dimensions in a module, by how many they are."""
    found: dict[int, list[Channels | None]] = {}
    for size, channels in _dimensions(ports, module, prefix):
        found.setdefault(size, []).append(channels)
    return found


def _dimensions(
    ports: Ports, module: nn.Module, prefix: str
) -> Iterator[tuple[int, Channels | None]]:
    for name, owner, key in named_originals(module):
        dims = ports.owned.get(f"{prefix}.{name}" if prefix else name, {})
        for dim, size in enumerate(original_of(owner, key).shape):
            yield size, dims.get(dim)


def _only(ports: Ports, known: list[Channels | None], first: bool) -> Channels | None:
    """Return the channels of some dimensions if they may go and are the same in all."""
    free = [channels for channels in known if channels is not None and ports.is_free(channels)]
    if not free or (len(free) < len(known) and not first):
        return None
    alike = {tuple(map(ports.find, channels)) for channels in free}
    return free[0] if first or len(alike) == 1 else None
