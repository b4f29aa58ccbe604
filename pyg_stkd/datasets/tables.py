"""Tables of numbers in comma-separated files: a field is a number, missing, or refused."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_table"]

# In lower case; the empty field is one of them.
MISSING = ("", "-", "na", "nan", "null")
_ABSENT = re.compile(r"(?<![^,])\s*(?:-|na|nan|null)?\s*(?![^,])", re.IGNORECASE | re.ASCII)
# A name of a column begins like a word: `5o.0` and `#61` are damaged numbers.
_NAME = re.compile(r"[^\W\d_][ \w:()/-]*")
# Words for a missing number that are not taken for one, but are no name of a column either.
_NO_NAME = (*MISSING, "inf", "infinity", "missing", "n/a", "nil", "none", "undefined", "unknown")
_LEAST_ID = 200  # no speed in mph is higher


class Table(NamedTuple):
    """A table of numbers, and the names of its columns if its first line holds them."""

    values: NDArray[np.float64]  # [rows, columns], NaN where missing
    names: list[str] | None


def read_table(
    path: Path,
    *,
    columns: int | None = None,
    rows: int | None = None,
    missing: bool = False,
    id_header: bool = False,
) -> Table:
    r"""Return a comma-separated table of numbers in UTF-8.

    The first line is a header if each of its fields is a name: a word that no other field has, and
    none that stands for a missing number. No line is passed over: a comment or an empty line, but
    for those at the end, would shift all that follows, and is refused. A comma at the end of every
    line is no column.

    Args:
        path (Path): The file.
        columns (int, optional): The number of columns, if it is known. (default: :obj:`None`)
        rows (int, optional): Read no more than so many lines. (default: :obj:`None`)
        missing (bool): Take an empty field, ``-``, ``NA``, ``NaN`` and ``NULL``, in upper or lower
            case, for a missing number, and return NaN. (default: :obj:`False`)
        id_header (bool): Also take a first line of whole numbers for a header if it counts the
            columns or holds distinct numbers above 200: ids of sensors, not speeds.
            (default: :obj:`False`)

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a field is neither a finite number nor missing, a line is empty or of
            another length than the first, or there is none; by line and column.
    """
    lines = _lines(path, rows)
    width = lines[0].count(",") + 1
    if width > 1 and width != columns and all(line.endswith(",") for line in lines):
        lines = [line[:-1] for line in lines]
        width -= 1
    names = _header(lines[0], id_header)
    body = lines[1:] if names else lines
    if not body:
        raise ValueError(f"'{path}' must have rows below its header (got none: is it truncated?)")
    values = _quick(body, width)
    if values is None and missing and all(body):
        values = _quick([_ABSENT.sub("nan", line) for line in body], width)
    if values is None or not (np.isfinite(values) | (missing and np.isnan(values))).all():
        values = _slow(path, body, 1 + len(lines) - len(body), width, missing)
    return Table(values, names)


def _lines(path: Path, rows: int | None) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.rstrip() for line in islice(file, rows)]
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' must be text in UTF-8 (got {error})") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"'{path}' must be a table of numbers (got an empty file)")
    return lines


def _fields(line: str) -> list[str]:
    fields = [field.strip() for field in line.split(",")]
    return [f[1:-1].strip() if len(f) > 1 and f[0] == f[-1] == '"' else f for f in fields]


def _header(line: str, id_header: bool) -> list[str] | None:
    fields = _fields(line)
    named = all(_NAME.fullmatch(f) and f.lower() not in _NO_NAME for f in fields)
    if named and len(set(fields)) == len(fields):
        return fields
    if not id_header or not all(f.isascii() and f.isdigit() and len(f) < 19 for f in fields):
        return None
    ids = [int(field) for field in fields]
    counted = len(ids) > 1 and ids in (list(range(len(ids))), list(range(1, len(ids) + 1)))
    return fields if counted or (min(ids) > _LEAST_ID and len(set(ids)) == len(ids)) else None


def _quick(lines: list[str], width: int) -> NDArray[np.float64] | None:
    """Return what numpy reads if it reads every line, else None."""
    if not any(map(str.strip, lines)):  # of which numpy warns
        return None
    try:
        values = np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
    except ValueError:
        return None
    return values if values.shape == (len(lines), width) else None  # it skips empty lines


def _slow(
    path: Path, lines: list[str], first: int, width: int, missing: bool
) -> NDArray[np.float64]:
    values = np.empty((len(lines), width))
    for row, line in enumerate(lines):
        fields = _fields(line)
        if len(fields) != width or not line:
            raise ValueError(
                f"'{path}' must have {width} fields in each line "
                f"(got {len(fields) if line else 'none'} in line {first + row})"
            )
        for column, field in enumerate(fields):
            number = _number(field, missing)
            if number is None:
                known = " or missing" if missing else ""
                raise ValueError(
                    f"'{path}' must hold finite numbers{known} (got {field[:40]!r} in line "
                    f"{first + row}, column {column + 1})"
                )
            values[row, column] = number
    return values


def _number(field: str, missing: bool) -> float | None:
    if field.lower() in MISSING:
        return np.nan if missing else None
    try:
        number = float(field)
    except ValueError:
        return None
    # float() also reads 1_000 and digits of other scripts
    return number if np.isfinite(number) and field.isascii() and "_" not in field else None
