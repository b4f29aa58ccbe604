"""Reads and checks the arrays of point-cloud archives; never writes."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pyg_stkd.files import read_text

__all__ = ["check_finite", "check_labels", "check_points", "find_root", "missing", "read_names"]


def find_root(root: str | os.PathLike[str], needs: str, source: str) -> Path:
    """Return the folder itself.

    Raises:
        FileNotFoundError: If there is none, with the files it must hold and where they come from.
    """
    path = Path(root)
    if not path.is_dir():
        raise missing(path, "no such folder", needs, source)
    return path


def missing(root: Path, what: str, needs: str, source: str) -> FileNotFoundError:
    """Return the error for a folder that lacks files."""
    return FileNotFoundError(
        f"'root' must be a folder with {needs} (got '{root}': {what}). Nothing is downloaded: "
        f"get the files from {source}"
    )


def read_names(path: Path, places: bool = False) -> list[str]:
    """Return the names of a list, one a line; of places with folders, the last part of each.

    Raises:
        ValueError: If there is none, or one twice, or one that could lead out of its folder.
    """
    names = read_text(path).split()
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"'{path}' must hold a name a line, each once "
            f"(got {len(names)}, {len(set(names))} distinct)"
        )
    names = [PurePosixPath(name).name for name in names] if places else names
    for name in names:
        if name in ("", ".", "..") or len(name) > 200 or not set(name).isdisjoint("/\\:\0"):
            raise ValueError(
                f"'{path}' must hold plain names, which lead nowhere else (got {name[:40]!r})"
            )
    return names


def check_points(array: NDArray[np.generic], name: str, path: Path) -> NDArray[np.float32]:
    """Return checked `[S, P, 3]` points or normals as float32.

    Raises:
        ValueError: If the shape is another, a cloud is empty, or a value is not finite.
    """
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape or array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name!r} of '{path}' must be numbers [S, P, 3]: shapes, points, coordinates "
            f"(got shape {array.shape} of {array.dtype})"
        )
    with np.errstate(over="ignore"):
        points = array.astype(np.float32)
    check_finite(points, name, path)
    return points


def check_finite(array: NDArray[np.generic], name: str, path: Path) -> None:
    """Raise where a value is NaN or infinite."""
    if array.dtype.kind == "f":
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise ValueError(f"{name!r} of '{path}' must be finite (got {bad} NaN or infinite)")


def check_labels(
    array: NDArray[np.generic], name: str, path: Path, num_shapes: int, num_classes: int
) -> NDArray[np.int64]:
    """Return checked labels `[S]` or `[S, 1]` as int64 `[S]`.

    Raises:
        ValueError: If there is not one a shape, or one is no class.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (num_shapes,):
        raise ValueError(
            f"{name!r} of '{path}' must have a label for each of the {num_shapes} shapes "
            f"(got shape {array.shape})"
        )
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name!r} of '{path}' must be of integers (got {array.dtype})")
    if array.min() < 0 or array.max() >= num_classes:
        raise ValueError(
            f"{name!r} of '{path}' must hold the classes 0 to {num_classes - 1} "
            f"(got {array.dtype} values from {array.min()} to {array.max()})"
        )
    return array.astype(np.int64)
