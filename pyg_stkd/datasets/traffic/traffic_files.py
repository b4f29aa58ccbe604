"""Reads the lists, links and archives of traffic data sets with numpy alone; never writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pyg_stkd.datasets.tables import read_table
from pyg_stkd.files import read_npz, read_text

__all__ = ["find_file", "read_ids", "read_links", "read_signal", "read_sparse", "read_stations"]

_LARGEST_ID = 2**53  # beyond, a number of a table may be another one


def find_file(root: str | Path, *names: str) -> Path:
    """Return the first of the named files in `root` or `root/raw`.

    Raises:
        FileNotFoundError: If there is none, with the names that were looked for.
    """
    for name in names:
        for folder in (Path(root), Path(root) / "raw"):
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(f"'root' must hold {' or '.join(names)} (got '{Path(root)}')")


def read_links(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return road links `from,to,cost` as ids `[L, 2]` (int64) and costs `[L]` (float64).

    Raises:
        ValueError: If there are not three columns or an id is not a whole number.
    """
    table = read_table(path, columns=3).values
    if table.shape[1] != 3:
        raise ValueError(f"'{path}' must have the columns from,to,cost (got {table.shape[1]})")
    ids = table[:, :2]
    bad = (ids != np.floor(ids)) | (np.abs(ids) > _LARGEST_ID)
    if bad.any():
        raise ValueError(
            f"'{path}' must hold whole numbers in its columns from,to (got {ids[bad][0]})"
        )
    return ids.astype(np.int64), table[:, 2]


def read_ids(path: Path) -> np.ndarray:
    """Return the station ids `[N]`, one a line (int64), in the order of the nodes."""
    fields = read_text(path).split()
    for field in fields:
        if not (field.isascii() and field.isdigit() and len(field) < 17):
            raise ValueError(f"'{path}' must hold one whole number a line (got {field[:40]!r})")
    ids = np.array([int(field) for field in fields], dtype=np.int64)
    if ids.size == 0 or np.unique(ids).size != ids.size:
        raise ValueError(f"'{path}' must hold at least one id, each once (got {ids.size} ids)")
    return ids


def read_stations(path: Path, num_nodes: int) -> tuple[list[str], np.ndarray]:
    """Return the names and `(longitude, latitude)` `[N, 2]` of a PeMSD7 station list."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        names = [str(row["ID"]) for row in rows]
        pos = np.array([[float(row["Longitude"]), float(row["Latitude"])] for row in rows])
    except (csv.Error, KeyError, TypeError) as error:
        raise ValueError(
            f"'{path}' must be a table with the columns ID, Latitude, Longitude (got {error!r})"
        ) from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"'{path}' must hold a Latitude and a Longitude (got {error})") from error
    if len(rows) != num_nodes:
        raise ValueError(
            f"'{path}' must list the N = {num_nodes} stations of the series "
            f"(got {len(rows)}: is it truncated, or of another set?)"
        )
    if not (np.abs(pos) <= (180, 90)).all():
        raise ValueError(f"'{path}' must hold degrees (got a Latitude or Longitude beyond them)")
    return names, pos


def read_signal(path: Path) -> np.ndarray:
    """Return the array `data` `[T, N, C]` of a PeMS archive.

    Raises:
        ValueError: If the archive is broken or holds no numeric array of that name.
    """
    data = read_npz(path, "data")["data"]
    if data.ndim != 3 or data.dtype.kind not in "iuf" or 0 in data.shape:
        raise ValueError(
            f"'data' of '{path}' must be a numeric [T, N, C] array: time steps, stations, features "
            f"(got shape {data.shape} of {data.dtype})"
        )
    return data


def read_sparse(path: Path, num_nodes: int) -> np.ndarray:
    """Return the dense form `[N, N]` of a csr, csc or coo that `scipy.sparse.save_npz` wrote.

    Raises:
        ValueError: If the archive is broken, the matrix has another size, or its places and values
            do not fit each other.
    """
    parts = ("row", "col", "indptr", "indices")
    arrays = read_npz(path, "format", "shape", "data", optional=parts)
    kind = arrays["format"].item() if arrays["format"].ndim == 0 else None
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    names = {"coo": parts[:2], "csr": parts[2:], "csc": parts[2:]}.get(str(kind))
    if names is None:
        raise ValueError(f"'format' of '{path}' must be csr, csc or coo (got {kind!r})")
    shape = arrays["shape"]
    if shape.dtype.kind not in "iu" or shape.tolist() != [num_nodes, num_nodes]:
        raise ValueError(
            f"'{path}' must be [N, N] = [{num_nodes}, {num_nodes}], as the series has N = "
            f"{num_nodes} sensors (got {shape.tolist()}: is it of another set?)"
        )
    data = arrays["data"]
    if data.ndim != 1 or data.dtype.kind not in "biuf":
        raise ValueError(
            f"'data' of '{path}' must be a list of numbers (got {data.shape} of {data.dtype})"
        )
    if kind == "coo":
        row, column = (_places(path, arrays, name, len(data), num_nodes) for name in names)
    else:
        end = _places(path, arrays, "indptr", num_nodes + 1, len(data) + 1)
        counts = np.diff(end)
        if end[0] != 0 or end[-1] != len(data) or (counts < 0).any():
            raise ValueError(
                f"'indptr' of '{path}' must rise from 0 to {len(data)} (got {end.tolist()[:8]} ...)"
            )
        row = np.repeat(np.arange(num_nodes), counts)
        column = _places(path, arrays, "indices", len(data), num_nodes)
        row, column = (row, column) if kind == "csr" else (column, row)
    out = np.zeros((num_nodes, num_nodes))
    np.add.at(out, (row, column), data)  # duplicates add up, as in scipy
    return out


def _places(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, length: int, end: int
) -> np.ndarray:
    """Return the list of places `0 ... end - 1` of a known length."""
    places = arrays.get(name)
    if places is None or places.shape != (length,) or places.dtype.kind not in "iu":
        got = "nothing" if places is None else f"{places.shape} of {places.dtype}"
        raise ValueError(f"{name!r} of '{path}' must be {length} whole numbers (got {got})")
    if length and not 0 <= places.min() <= places.max() < end:
        raise ValueError(
            f"{name!r} of '{path}' must hold 0 to {end - 1} (got {places.min()} to {places.max()})"
        )
    return places.astype(np.int64)
