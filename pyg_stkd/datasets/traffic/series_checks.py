"""What a series of traffic readings must satisfy, with errors that name the axis at fault."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyg_stkd import checks

__all__ = [
    "as_numbers",
    "axis_hint",
    "check_distance_matrix",
    "check_graph",
    "check_matrix",
    "check_range",
    "check_values",
    "check_weights",
    "number_stations",
    "of_file",
    "speed_readings",
    "time_stamps",
]


def as_numbers(name: str, value: Tensor | np.ndarray) -> Tensor:
    """Return a tensor or an array as floating point numbers; whole ones are not divided as such.

    Raises:
        TypeError: If it holds no real numbers.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.itemsize <= 8:
        value = value.astype(value.dtype.newbyteorder("="), copy=False)
        value = torch.as_tensor(np.asarray(value, order="C"))  # without negative strides
    if not isinstance(value, Tensor) or value.is_complex():
        kind = value.dtype if isinstance(value, (Tensor, np.ndarray)) else type(value).__name__
        raise TypeError(f"'{name}' must be a tensor of real numbers (got {kind})")
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def axis_hint(shape: tuple[int, ...], num_nodes: int) -> str:
    """Return a hint at the axis of `[T, N, C]` that seems to hold the nodes, if not axis 1."""
    for axis, order in ((0, "[N, T, C]: permute(1, 0, 2)"), (2, "[T, C, N]: permute(0, 2, 1)")):
        if shape[axis] == num_nodes != shape[1]:
            return f"; it looks like {order}"
    return ""


def check_graph(
    edge_index: Tensor | None,
    edge_weight: Tensor | None,
    shape: tuple[int, ...],
    guess_axes: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the edges and weights of a graph, checked against the `[T, N, C]` shape of a series.

    With `guess_axes`, a graph of exactly `T < N` nodes is refused too: the axes are swapped.
    """
    if edge_index is None:
        if edge_weight is not None:
            raise ValueError("'edge_weight' needs an 'edge_index' (got None)")
        edge_index = torch.empty(2, 0, dtype=torch.long)
    checks.instance("edge_index", edge_index, Tensor)
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype != torch.long:
        raise ValueError(
            "'edge_index' must be a [2, E] tensor of torch.long "
            f"(got {tuple(edge_index.shape)} of {edge_index.dtype})"
        )
    if edge_index.numel():
        low, high = int(edge_index.min()), int(edge_index.max())
        hint = axis_hint(shape, high + 1)
        swapped = guess_axes and bool(hint) and shape[0] == high + 1 < shape[1]
        if low < 0 or high >= shape[1] or swapped:
            raise ValueError(
                f"'edge_index' must name the N = {shape[1]} nodes of 'values', which is "
                f"[T, N, C] = {shape}{hint} (got nodes {low} to {high})"
            )
    if edge_weight is None:
        edge_weight = torch.ones(edge_index.size(1))
    edge_weight = as_numbers("edge_weight", edge_weight)
    if edge_weight.dim() != 1 or edge_weight.size(0) != edge_index.size(1):
        raise ValueError(
            f"'edge_weight' must be [E] = [{edge_index.size(1)}] (got {tuple(edge_weight.shape)})"
        )
    if not (edge_weight.isfinite() & (edge_weight >= 0)).all():
        raise ValueError("'edge_weight' must be finite and not negative (got one that is not)")
    return edge_index, edge_weight


def check_values(values: Tensor, mask: Tensor | np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Return readings, NaN where they are missing, and their mask."""
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    mask = torch.as_tensor(mask) if isinstance(mask, np.ndarray) else mask
    checks.instance("mask", mask, Tensor)
    if mask.dim() == 2:
        mask = mask.unsqueeze(-1).expand_as(values) if mask.shape == values.shape[:2] else mask
    if mask.dtype != torch.bool or mask.shape != values.shape:
        raise ValueError(
            f"'mask' must be boolean and [T, N, C] = {tuple(values.shape)} or [T, N] "
            f"(got {tuple(mask.shape)} of {mask.dtype})"
        )
    bad = mask & ~values.isfinite()
    if bad.any():
        t, n, c = bad.nonzero()[0].tolist()
        raise ValueError(
            "'values' must be finite where observed; mark missing readings in 'mask' "
            f"(got {values[t, n, c].item()} at step {t}, node {n}, channel {c}, and "
            f"{int(bad.sum()) - 1} more)"
        )
    if not mask.all():
        values = values.masked_fill(~mask, math.nan)
    return values, mask.contiguous()


def time_stamps(
    times: np.ndarray | np.datetime64 | str | None, num_steps: int, step_minutes: int
) -> np.ndarray | None:
    """Return the `[T]` time stamps from all or the first of them."""
    if times is None:
        return None
    try:
        if np.asarray(times).dtype.kind in "biufc":
            raise TypeError("plain numbers")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy turns a time zone into UTC, and warns
            stamps = np.asarray(times, dtype="datetime64[m]")
            exact = np.asarray(times, dtype="datetime64[ms]")
    except (OverflowError, TypeError, ValueError, Warning) as error:
        raise ValueError(f"'times' must be time stamps, of no time zone (got {error})") from error
    between = (stamps != exact) & ~np.isnat(exact)
    if between.any():
        raise ValueError(
            "'times' must be whole minutes: round what is only about a step apart "
            f"(got {exact[between].flat[0]})"
        )
    if stamps.ndim == 0:
        stamps = stamps + np.arange(num_steps) * np.timedelta64(step_minutes, "m")
    if stamps.shape != (num_steps,):
        raise ValueError(f"'times' must be [T] = [{num_steps}] or one (got {stamps.shape})")
    if np.isnat(stamps).any() or (np.diff(stamps) < np.timedelta64(step_minutes, "m")).any():
        raise ValueError(f"'times' must rise by {step_minutes} minutes or more a step")
    return stamps


def of_file(path: Path, error: ValueError) -> ValueError:
    """Return an error that names the file at fault."""
    return error if f"'{path}'" in str(error) else ValueError(f"'{path}': {error}")


def check_matrix(path: Path, matrix: np.ndarray, num_nodes: int) -> None:
    """Raise where a matrix between nodes has another size than the series."""
    if matrix.shape != (num_nodes, num_nodes):
        raise ValueError(
            f"'{path}' must be [N, N] = [{num_nodes}, {num_nodes}], as the series has N = "
            f"{num_nodes} sensors (got {matrix.shape}: is it truncated, or of another set?)"
        )


def check_weights(path: Path, matrix: np.ndarray) -> None:
    """Raise where a matrix of weights holds more than ones: distances, perhaps."""
    if matrix.size and not 0 <= matrix.min() <= matrix.max() <= 1:
        raise ValueError(
            f"'{path}' must hold weights from 0 to 1 "
            f"(got {matrix.min():g} to {matrix.max():g}: are these distances?)"
        )


def check_distance_matrix(path: Path, matrix: np.ndarray) -> None:
    """Raise where a matrix of road distances contradicts itself."""
    what = ""
    apart = np.abs(matrix - matrix.T)
    if (apart > 1e-4 * np.abs(matrix) + 0.01).any():
        i, j = np.unravel_index(apart.argmax(), apart.shape)
        what = f"{matrix[i, j]:g} from {i} to {j}, {matrix[j, i]:g} back"
    for i, j in np.argwhere(np.triu(matrix == 0, k=1)):
        # Stations of one place, as PeMSD7 has, are as far from all others.
        if not what and not np.allclose(matrix[i], matrix[j], rtol=1e-2, atol=100):
            what = f"0 from {i} to {j}, which are not as far from others: no road?"
    if what:
        raise ValueError(
            f"'{path}' must hold the distance of each pair, the same both ways, or values='metres' "
            f"or values='weights' must say what it holds (got {what})"
        )


def speed_readings(table: np.ndarray, path: Path) -> tuple[Tensor, Tensor]:
    """Return speeds in mph `[T, N]` as `values` and `mask` `[T, N, 1]`; zero and NaN are missing.

    Raises:
        ValueError: If a speed is below zero or above 200.
    """
    check_range(path, "speed", table, 200, "mph")
    values = torch.from_numpy(table.astype(np.float32)).unsqueeze(-1)
    return values, (values != 0) & ~values.isnan()


def check_range(path: Path, name: str, readings: np.ndarray, most: float, unit: str) -> None:
    """Raise where a reading `[T, N]` that is not missing lies below zero or above the most."""
    bad = (readings < 0) | (readings > most)
    if bad.any():
        step, node = np.argwhere(bad)[0]
        low = readings[step, node] < 0
        article = "an" if name[0] in "aeiou" else "a"
        why = "standardised, or a marker of what is missing?" if low else f"not in {unit}?"
        raise ValueError(
            f"'{path}' must hold {article} {name} from 0 to {most:g} {unit} (got "
            f"{readings[step, node]:g} at step {step}, node {node}, and "
            f"{np.count_nonzero(bad) - 1} more: {why})"
        )


def number_stations(
    ids: np.ndarray, shape: tuple[int, ...], known: np.ndarray | None = None
) -> np.ndarray:
    """Node numbers `0 ... N - 1` of the station ids in a list of links.

    Args:
        ids (np.ndarray): The ids as given: from 0, from 1, or of the list.
        shape (tuple of int): The shape `[T, N, C]` of the series.
        known (np.ndarray, optional): The id list `[N]`, in the order of the nodes.

    Raises:
        ValueError: If the list is not as long as the series is wide, or an id cannot be placed.
    """
    num_nodes = shape[1]
    if known is not None and len(known) != num_nodes:
        raise ValueError(
            f"the id list must name the N = {num_nodes} stations of the series, which is [T, N, C] "
            f"= {shape}{axis_hint(shape, len(known))} (got {len(known)} ids)"
        )
    if known is not None and np.isin(ids, known).all():
        order = np.argsort(known)
        return order[np.searchsorted(known, ids, sorter=order)]
    low, high = int(ids.min()), int(ids.max())
    if low >= 0 and high < num_nodes:
        return ids
    if low >= 1 and high == num_nodes:
        return ids - 1
    raise ValueError(
        f"the links must name the N = {num_nodes} stations of the series, which is [T, N, C] = "
        f"{shape}{axis_hint(shape, high + (low == 0))}, by numbers from 0 or 1 or by the ids "
        f"of the list in a .txt file (got ids {low} to {high} and "
        f"{'no list' if known is None else 'a list without some of them'})"
    )
