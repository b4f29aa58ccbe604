"""Whether the shapes and attributes of a small model can all be true of one model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.prune.structure.ports import Channels, Ports

__all__ = ["check_widths"]

# A name for errors, the channels, and how many of them there are said to be.
Row = tuple[str, Channels, int]


def check_widths(
    model: nn.Module,
    ignore: Iterable[str],
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    attributes: Sequence[tuple[str, str, Any]],
) -> None:
    r"""Raise unless tensors and attributes are of a model with fewer channels.

    What belongs to no channel must be as it is in the model. All else counts channels: each
    dimension and attribute is the sum :math:`\sum_a m_a n_a` over sets of channels that always
    occur together, :math:`m_a` times, of which :math:`n_a` are left; there must be numbers
    :math:`n_a` that fit all of them.

    Args:
        model (torch.nn.Module): The whole model; its values are not looked at.
        ignore (list of str): Names of modules without rules.
        expected (dict): Its parameters and buffers by name.
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
    try:
        ports = Ports(model, ignore)
    except ValueError:  # an older file does not name the modules without rules
        _check_sizes(expected, state, {})
        return
    known = {(prefix, name) for prefix, name, _ in ports.attributes}
    strange = sorted(f"{prefix}.{name}".strip(".") for prefix, name in values.keys() - known)
    if strange:
        raise ValueError(f"{strange} are no widths of the model")
    _check_sizes(expected, state, ports.owned)
    _solve(ports, [*_rows(ports, state, values)])


def _kind(tensor: Tensor) -> tuple[bool, bool] | torch.dtype:
    """Return the dtype; those of floating point numbers may differ."""
    return tensor.dtype if not tensor.is_floating_point() else (True, True)


def _values(
    model: nn.Module, attributes: Sequence[tuple[str, str, Any]]
) -> dict[tuple[str, str], Any]:
    modules = dict(model.named_modules())
    values = {}
    for prefix, name, value in attributes:
        old = getattr(modules.get(prefix), name, None)
        if not (isinstance(old, int) or _is_list(old)) or not (
            isinstance(value, int) or _is_list(value)
        ):
            raise ValueError(f"{f'{prefix}.{name}'.strip('.')!r} is no width of the model")
        values[prefix, name] = value
    return values


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(item, int) or _is_list(item) for item in value
    )


def _check_sizes(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], owned: Mapping[str, Any]
) -> None:
    for name, old in expected.items():
        if is_lazy(old):
            continue
        for dim, (whole, left) in enumerate(zip(old.shape, state[name].shape, strict=True)):
            fixed = bool(owned) and dim not in owned.get(name, {})
            if left > whole or (fixed and left != whole):
                raise ValueError(
                    f"dimension {dim} of {name!r} must be {'' if fixed else 'at most '}{whole}, "
                    f"not {left}"
                )


def _rows(
    ports: Ports, state: Mapping[str, Tensor], values: Mapping[tuple[str, str], Any]
) -> Iterator[Row]:
    for name, dims in ports.owned.items():
        if name in state:  # a shared one is there by its first name
            for dim, channels in dims.items():
                yield f"dimension {dim} of {name!r}", channels, state[name].size(dim)
    for prefix, name, shape in ports.attributes:
        where = repr(f"{prefix}.{name}".strip("."))
        if (prefix, name) in values:
            yield from _pairs(where, shape, values[prefix, name])


def _pairs(where: str, shape: Any, value: Any) -> Iterator[Row]:
    """Return the channels and the number of each entry of an attribute."""
    if isinstance(shape, tuple):
        if not isinstance(value, int):
            raise ValueError(f"{where} must be a number, not {value}")
        yield where, shape, value
        return
    # One number stands for all.
    items = value if isinstance(value, (list, tuple)) else [value] * len(shape)
    if len(items) != len(shape):
        raise ValueError(f"{where} must have {len(shape)} entries, not {value}")
    for part, item in zip(shape, items, strict=True):
        yield from _pairs(where, part, item)


def _solve(ports: Ports, rows: Sequence[Row]) -> None:
    """Raise, with the name of the row that fits worst, unless there are numbers that fit all."""
    frozen = ports.frozen
    seen: dict[int, dict[int, int]] = {}
    for i, (_, channels, _) in enumerate(rows):
        for unit in channels:
            times = seen.setdefault(ports.find(unit), {})
            times[i] = times.get(i, 0) + 1
    sets: dict[Any, int] = {}  # channels that always occur together, and how many these are
    for unit, times in seen.items():
        key = (unit in frozen, *times.items())
        sets[key] = sets.get(key, 0) + 1
    matrix = torch.zeros(len(rows), len(sets), dtype=torch.float64)
    target = torch.tensor([value for *_, value in rows], dtype=torch.float64)
    for j, (key, size) in enumerate(sets.items()):
        for i, times in key[1:]:
            if key[0]:
                target[i] -= times * size
            else:
                matrix[i, j] = times
    fit = torch.linalg.lstsq(matrix, target.unsqueeze(1), driver="gelsd").solution
    gap = (matrix @ fit).squeeze(1).sub(target).abs()
    if gap.numel() and gap.max() > 1e-3:
        worst = int(gap.argmax())
        name, _, value = rows[worst]
        if bool(matrix[worst].any()):
            raise ValueError(f"{name} is {value}, which the other widths contradict")
        raise ValueError(f"{name} must be {value - int(target[worst])}, not {value}")
