"""Whether the shapes and attributes of a small model can all be true of one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels

__all__ = ["Width", "check_widths", "widths_of"]

# What is as wide as some sets of channels: a dimension of a tensor (its name, its number), or an
# entry of a module's attribute (prefix, name, places in nested lists); for each set its number and
# how often it counts; and how many more there are, those of channels that are kept.
Width: TypeAlias = tuple[list[Any], list[list[int]], int]


def widths_of(ports: Ports) -> list[Width]:
    r"""Return what each dimension and attribute is the sum of, as plain values.

    A *set* is made of channels that always occur together.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1))
        >>> widths = widths_of(Ports(model))
        >>> widths[0], widths[1]
        ((['0.weight', 0], [[0, 1]], 0), (['0.weight', 1], [], 2))
    """
    rows = [*_rows(ports)]
    frozen = ports.frozen
    seen: dict[int, dict[int, int]] = {}
    for i, (_, channels) in enumerate(rows):
        for unit in channels:
            times = seen.setdefault(ports.find(unit), {})
            times[i] = times.get(i, 0) + 1
    sets: dict[tuple[tuple[int, int], ...], int] = {}
    parts: list[list[list[int]]] = [[] for _ in rows]
    kept = [0] * len(rows)
    for unit, times in seen.items():
        if unit in frozen:
            for i, count in times.items():
                kept[i] += count
            continue
        key = tuple(times.items())
        if key not in sets:
            sets[key] = len(sets)
            for i, count in key:
                parts[i].append([sets[key], count])
    return [(where, part, fixed) for (where, _), part, fixed in zip(rows, parts, kept, strict=True)]


def check_widths(
    model: nn.Module,
    widths: Sequence[Width] | None,
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    attributes: Sequence[tuple[str, str, Any]],
) -> None:
    r"""Raise unless tensors and attributes are of a model with fewer channels.

    What belongs to no channel must be as it is in the model. All else counts channels: each
    dimension and attribute is a sum :math:`\sum_a m_a n_a` over sets, :math:`m_a` times the
    :math:`n_a` channels of a set that are left; there must be numbers :math:`n_a` that fit all.

    Args:
        model (torch.nn.Module): The whole model; its values are not looked at.
        widths (list, optional): What :func:`widths_of` returned; :obj:`None` where it is not known.
        expected (dict): The parameters and buffers of the model by name.
        state (dict): Those of the small model.
        attributes (list): For each module's attribute its name and its value in the small model.

    Raises:
        ValueError: If they are not.
    """
    for name, old in expected.items():
        new = state[name]
        if not is_lazy(old) and (old.dim() != new.dim() or _kind(old) != _kind(new)):
            raise ValueError(
                f"{name!r} must be as {list(old.shape)} of {old.dtype}, "
                f"not {list(new.shape)} of {new.dtype}"
            )
    values = _values(model, attributes)
    if widths is None:
        _check_sizes(expected, state, None)
        return
    free = {(where[0], where[1]) for where, *_ in widths if len(where) == 2}
    known = {(where[0], where[1]) for where, *_ in widths if len(where) == 3}
    strange = sorted(f"{prefix}.{name}".strip(".") for prefix, name in values.keys() - known)
    if strange:
        raise ValueError(f"{strange} are no widths of the model")
    _check_sizes(expected, state, free)
    told: list[tuple[str, list[list[int]], int, int]] = []
    for where, parts, kept in widths:
        if len(where) == 2 and where[0] in state:  # a shared tensor is there by its first name
            size = state[where[0]].shape[where[1]]
            told.append((f"dimension {where[1]} of {where[0]!r}", parts, kept, size))
        if len(where) == 3 and (where[0], where[1]) in values:
            name = repr(f"{where[0]}.{where[1]}".strip("."))
            told.append((name, parts, kept, _entry(name, values[where[0], where[1]], where[2])))
    _solve(told)


def _rows(ports: Ports) -> Iterator[tuple[list[Any], Channels]]:
    def entries(shape: Any, places: list[int]) -> Iterator[tuple[list[int], Channels]]:
        if isinstance(shape, tuple):
            yield places, shape
            return
        for i, part in enumerate(shape):
            yield from entries(part, [*places, i])

    for name, dims in ports.owned.items():
        for dim, channels in dims.items():
            yield [name, dim], channels
    for prefix, name, shape in ports.attributes:
        for places, channels in entries(shape, []):
            yield [prefix, name, places], channels


def _kind(tensor: Tensor) -> torch.dtype | None:
    """Return the dtype; those of floating point numbers may differ."""
    return None if tensor.is_floating_point() else tensor.dtype


def _values(
    model: nn.Module, attributes: Sequence[tuple[str, str, Any]]
) -> dict[tuple[str, str], Any]:
    modules = dict(model.named_modules())
    values = {}
    for prefix, name, value in attributes:
        old = getattr(modules.get(prefix), name, None)
        if not _is_number(old) or not _is_number(value):
            raise ValueError(f"{f'{prefix}.{name}'.strip('.')!r} is no width of the model")
        values[prefix, name] = value
    return values


def _is_number(value: Any) -> bool:
    """Tell whether it is an integer, or a list of such, or of lists of them."""
    if isinstance(value, (list, tuple)):
        return all(_is_number(item) for item in value)
    return isinstance(value, int)


def _check_sizes(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], free: set[tuple[str, int]] | None
) -> None:
    for name, old in expected.items():
        if is_lazy(old):
            continue
        for dim, (whole, left) in enumerate(zip(old.shape, state[name].shape, strict=True)):
            fixed = free is not None and (name, dim) not in free
            if left > whole or (fixed and left != whole):
                raise ValueError(
                    f"dimension {dim} of {name!r} must be {'' if fixed else 'at most '}{whole}, "
                    f"not {left}"
                )


def _entry(name: str, value: Any, places: Sequence[int]) -> int:
    """Return an entry of an attribute; one number stands for all."""
    for place in places:
        if isinstance(value, int):
            return value
        if place >= len(value):
            raise ValueError(f"{name} must have more entries than {value}")
        value = value[place]
    if not isinstance(value, int):
        raise ValueError(f"{name} must be a number, not {value}")
    return value


def _solve(told: Sequence[tuple[str, list[list[int]], int, int]]) -> None:
    """Raise, with the name of what fits worst, unless there are numbers that fit all."""
    count = 1 + max((number for _, parts, *_ in told for number, _ in parts), default=-1)
    matrix = torch.zeros(len(told), count, dtype=torch.float64)
    target = torch.tensor([size - kept for _, _, kept, size in told], dtype=torch.float64)
    for i, (_, parts, *_) in enumerate(told):
        for number, times in parts:
            matrix[i, number] = times
    fit = torch.linalg.lstsq(matrix, target.unsqueeze(1), driver="gelsd").solution
    gap = (matrix @ fit).squeeze(1).sub(target).abs()
    if gap.numel() and gap.max() > 1e-3:
        name, parts, kept, size = told[int(gap.argmax())]
        if not parts:
            raise ValueError(f"{name} must be {kept}, not {size}")
        raise ValueError(f"{name} is {size}, which the other widths contradict")
