from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyg_stkd.datasets.points.point_archive import (
    check_finite,
    check_labels,
    check_points,
    find_root,
    missing,
    read_names,
)

PATH = Path("folder/a.npz")


def test_find_root_and_missing(tmp_path: Path) -> None:
    assert find_root(str(tmp_path), "a.npz", "https://example.org") == tmp_path
    text = r"'root' must be a folder with a.npz \(got '.*/b': no such folder\).*example.org"
    with pytest.raises(FileNotFoundError, match=text):
        find_root(tmp_path / "b", "a.npz", "https://example.org")
    assert "nothing is downloaded" in str(missing(tmp_path, "what", "a", "b")).lower()


def test_read_names(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("bed_0001\r\nnight_stand_0002\n")
    assert read_names(path) == ["bed_0001", "night_stand_0002"]
    path.write_text("data/x/a.h5\ndata/b.h5\n")
    assert read_names(path, places=True) == ["a.h5", "b.h5"]
    path.write_bytes(b"bed\xff\n")
    with pytest.raises(ValueError, match=r"list.txt' must be text in UTF-8"):
        read_names(path)


@pytest.mark.parametrize(
    "name", [".", "..", "a/b", "/etc/passwd", "a\\b", "c:d", "a\0b", "a" * 300]
)
@pytest.mark.parametrize("places", [False, True])
def test_read_names_lead_nowhere_else(tmp_path: Path, name: str, places: bool) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"bed\n{name}\n")
    if places and name in ("a/b", "/etc/passwd"):  # the last part of a place is a plain name
        assert read_names(path, places)[1] in ("b", "passwd")
        return
    with pytest.raises(ValueError, match=r"list.txt' must hold plain names, which lead nowhere"):
        read_names(path, places)


def test_check_points() -> None:
    points = check_points(np.ones((2, 3, 3), dtype=np.int64), "pos", PATH)
    assert points.dtype == np.float32
    for bad in (np.ones((2, 3)), np.ones((2, 3, 2)), np.ones((0, 3, 3)), np.full((1, 1, 3), "1")):
        with pytest.raises(
            ValueError, match=r"'pos' of 'folder/a.npz' must be numbers \[S, P, 3\]"
        ):
            check_points(bad, "pos", PATH)
    with pytest.raises(ValueError, match=r"must be finite \(got 3 NaN or infinite\)"):
        check_points(np.full((1, 1, 3), 1e300), "pos", PATH)


def test_check_finite() -> None:
    check_finite(np.array([1, 2]), "x", PATH)
    check_finite(np.array([1.0]), "x", PATH)
    with pytest.raises(ValueError, match=r"'x' of 'folder/a.npz' must be finite \(got 2 NaN"):
        check_finite(np.array([1.0, np.nan, np.inf]), "x", PATH)


def test_check_labels() -> None:
    for given in (np.array([1, 0], dtype=np.uint8), np.array([[1], [0]], dtype=np.int16)):
        labels = check_labels(given, "y", PATH, 2, 2)
        assert labels.tolist() == [1, 0]
        assert labels.dtype == np.int64
    for bad, text in (
        (np.array([1]), "a label for each of the 2 shapes"),
        (np.array([1.0, 0.0]), "must be of integers"),
        (np.array([1, 2]), "the classes 0 to 1"),
        (np.array([-1, 0]), "the classes 0 to 1"),
        (np.array([2**64 - 1, 0], dtype=np.uint64), "the classes 0 to 1"),
    ):
        with pytest.raises(ValueError, match=text):
            check_labels(bad, "y", PATH, 2, 2)
