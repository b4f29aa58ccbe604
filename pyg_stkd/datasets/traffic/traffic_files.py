"""Reads the tables and archives of traffic data sets with numpy alone; never writes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pyg_stkd.files import read_npz


def find_file(root: str | Path, *names: str) -> Path:
    """The first of the named files in `root` or `root/raw`.

    Raises:
        FileNotFoundError: If there is none, with the names that were looked for.
    """
    for name in names:
        for folder in (Path(root), Path(root) / "raw"):
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(f"`root` must hold {' or '.join(names)} (got {Path(root)})")


def read_table(path: Path, id_header: bool = False) -> tuple[np.ndarray, list[str] | None]:
    """A comma-separated table of numbers as float64 `[rows, columns]`, and its header if any.

    An empty field or `nan` becomes NaN; a comma at the end of each row is allowed.

    Args:
        path (Path): The file.
        id_header (bool): Also take a first row of numbers for a header if it counts the columns or
            holds distinct whole numbers beyond 200: sensor ids, not speeds. Text always is one.
            (default: :obj:`False`)

    Raises:
        ValueError: If the rows differ in length or a field is not a number.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is corrupt: it is not text ({error})") from error
    if not first:
        raise ValueError(f"{path} is not a table: its first line is empty")
    fields = [field.strip().strip('"') for field in first.split(",")]
    if len(fields) > 1 and not fields[-1]:
        fields.pop()
    header = _is_header(fields, id_header)
    try:
        table = _load(path, header, len(fields), None)
    except ValueError:
        try:  # Slower, but knows empty fields.
            table = _load(path, header, len(fields), lambda s: float(s) if s.strip() else np.nan)
        except ValueError as error:
            raise ValueError(f"{path} is corrupt or truncated: {error}") from error
    if not table.size:
        raise ValueError(f"{path} has a header but no rows: is it truncated?")
    return table, fields if header else None


def _load(path: Path, header: bool, columns: int, converter: object) -> np.ndarray:
    with path.open(encoding="utf-8-sig") as file:
        lines: Iterable[str] = (line.rstrip("\r\n") for line in file)
        # A comma at the end is no column; a row of another length must still be refused.
        lines = (
            line[:-1] if line.count(",") == columns and line[-1] == "," else line for line in lines
        )
        if header:
            next(iter(lines))
        rows = (line for line in lines if line)
        first = next(rows, None)
        if first is None:
            return np.empty((0, columns))
        if first.count(",") != columns - 1:
            raise ValueError(f"{columns} columns are named but a row has {first.count(',') + 1}")
        chained = (row for part in ((first,), rows) for row in part)
        return np.loadtxt(chained, delimiter=",", ndmin=2, converters=converter)  # type: ignore


def _is_header(fields: list[str], id_header: bool) -> bool:
    try:
        numbers = [float(field) if field else np.nan for field in fields]
    except ValueError:
        return True
    if not id_header or not all(field.isdigit() for field in fields):
        return False
    counts = [int(n) for n in numbers]
    if len(counts) > 1 and counts in (list(range(len(counts))), list(range(1, len(counts) + 1))):
        return True
    return min(counts) > 200 and len(set(counts)) == len(counts)


def read_links(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Road links `from,to,cost` as ids `[L, 2]` (int64) and costs `[L]` (float64).

    Raises:
        ValueError: If there are not three columns or an id is not a whole number.
    """
    table, _ = read_table(path)
    if table.shape[1] != 3:
        raise ValueError(f"{path} must have the columns from,to,cost (got {table.shape[1]})")
    ids = table[:, :2]
    if not np.isfinite(ids).all() or (ids != np.floor(ids)).any():
        raise ValueError(f"{path} is corrupt: an id in its columns from,to is not a whole number")
    return ids.astype(np.int64), table[:, 2]


def read_ids(path: Path) -> np.ndarray:
    """Station ids `[N]`, one a line (int64), in the order of the nodes."""
    try:
        ids = np.array([int(field) for field in path.read_text(encoding="utf-8-sig").split()])
    except ValueError as error:
        raise ValueError(f"{path} must hold one whole number a line: {error}") from error
    if ids.size == 0 or np.unique(ids).size != ids.size:
        raise ValueError(f"{path} must hold at least one id, each once (got {ids.size} ids)")
    return ids


def read_stations(path: Path) -> tuple[list[str], np.ndarray]:
    """Station names and `(longitude, latitude)` `[N, 2]` of a PeMSD7 station list."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        names = [row["ID"] for row in rows]
        pos = np.array([[float(row["Longitude"]), float(row["Latitude"])] for row in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is corrupt or lacks a column ID, Latitude, Longitude: {error!r}"
        ) from error
    return names, pos.reshape(-1, 2)


def read_signal(path: Path) -> np.ndarray:
    """The array `data` `[T, N, C]` of a PeMS archive.

    Raises:
        ValueError: If the archive is broken or holds no numeric array of that name.
    """
    data = read_npz(path, "data")["data"]
    if data.ndim != 3 or not np.issubdtype(data.dtype, np.number) or 0 in data.shape:
        raise ValueError(
            f"`data` in {path} must be a numeric [T, N, C] array: time steps, stations, features "
            f"(got shape {data.shape} of {data.dtype})"
        )
    return data


def read_sparse(path: Path, num_nodes: int) -> np.ndarray:
    """The dense float64 form `[N, N]` of a matrix that `scipy.sparse.save_npz` wrote (csr, csc or
    coo).

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
    """A list of places `0 ... end - 1` of a known length."""
    places = arrays.get(name)
    if places is None or places.shape != (length,) or places.dtype.kind not in "iu":
        got = "nothing" if places is None else f"{places.shape} of {places.dtype}"
        raise ValueError(f"{name!r} of '{path}' must be {length} whole numbers (got {got})")
    if length and not 0 <= places.min() <= places.max() < end:
        raise ValueError(
            f"{name!r} of '{path}' must hold 0 to {end - 1} (got {places.min()} to {places.max()})"
        )
    return places.astype(np.int64)
