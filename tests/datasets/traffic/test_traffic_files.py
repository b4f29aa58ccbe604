from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyg_stkd.datasets.traffic.traffic_files import (
    find_file,
    read_ids,
    read_links,
    read_signal,
    read_sparse,
    read_stations,
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_read_links(tmp_path: Path) -> None:
    ids, cost = read_links(write(tmp_path / "d.csv", "from,to,cost\r\n73,5,352.6\r\n5,154,347\r\n"))
    assert ids.tolist() == [[73, 5], [5, 154]]
    assert cost.tolist() == [352.6, 347.0]
    # Without a header, large whole numbers are ids all the same.
    assert read_links(write(tmp_path / "e.csv", "404,405,352\n"))[0].tolist() == [[404, 405]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,to\n1,2\n", r"columns from,to,cost \(got 2\)"),
        ("from,to,cost\n1.5,2,3\n", r"whole numbers in its columns from,to \(got 1.5\)"),
        ("from,to,cost\n1e300,2,3\n", r"whole numbers in its columns from,to \(got 1e\+300\)"),
        ("from,to,cost\n1,2\n", r"3 fields in each line \(got 2 in line 2\)"),
        ("from,to,cost\n,2,3\n", r"got '' in line 2, column 1"),
        ("from,to,cost\n1,2,NA\n", r"got 'NA' in line 2, column 3"),
        ("1,2,NA\n1,2,3\n", r"got 'NA' in line 1, column 3"),
        ("from,to,cost\n#1,2,3\n", r"got '#1' in line 2, column 1"),
    ],
)
def test_read_links_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_links(write(tmp_path / "d.csv", text))


def test_read_ids(tmp_path: Path) -> None:
    assert read_ids(write(tmp_path / "i.txt", "317842\n318711\n")).tolist() == [317842, 318711]
    with pytest.raises(ValueError, match=r"each once \(got 2 ids\)"):
        read_ids(write(tmp_path / "i.txt", "1\n1\n"))
    for bad in ("x", "1_0", "-1", "1.0", "٣", "9" * 17, "9" * 5000):
        with pytest.raises(ValueError, match=r"i\.txt' must hold one whole number a line"):
            read_ids(write(tmp_path / "i.txt", f"1\n{bad}\n"))


STATIONS = ",ID,Fwy,Dir,District,Latitude,Longitude\n0,716939,5,S,7,34.04,-118.21\n"


def test_read_stations(tmp_path: Path) -> None:
    names, pos = read_stations(write(tmp_path / "s.csv", STATIONS), 1)
    assert names == ["716939"]
    assert pos.tolist() == [[-118.21, 34.04]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STATIONS.replace("ID", "id"), "must be a table with the columns ID, Latitude, Longitude"),
        (STATIONS[:-16], "must be a table with the columns ID, Latitude, Longitude"),
        (STATIONS.replace("34.04", "north"), "must hold a Latitude and a Longitude"),
        (STATIONS.replace("34.04", "nan"), "must hold degrees"),
        (STATIONS.replace("34.04", "3404"), "must hold degrees"),
        (STATIONS.replace("-118.21", "-inf"), "must hold degrees"),
        (STATIONS.replace("716939", "7" * 200_000), "must be a table"),
        (STATIONS * 2, "must hold a Latitude and a Longitude"),
        (STATIONS + "1,716941,5,S,7,34,-118\n", r"must list the N = 1 stations .* \(got 2: is it"),
        (STATIONS[: STATIONS.index("\n")], r"must list the N = 1 stations .* \(got 0"),
        ("", r"must list the N = 1 stations .* \(got 0"),
    ],
)
def test_read_stations_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_stations(write(tmp_path / "s.csv", text), 1)
    assert str(tmp_path / "s.csv") in str(error.value)


def test_read_stations_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"ID,Latitude,Longitude\n\xf1,1,2\n")
    with pytest.raises(ValueError, match=r"s\.csv' must be text in UTF-8"):
        read_stations(tmp_path / "s.csv", 1)


def test_read_signal(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((5, 4, 3))
    np.savez_compressed(tmp_path / "a.npz", data=data)
    np.testing.assert_array_equal(read_signal(tmp_path / "a.npz"), data)

    whole = (tmp_path / "a.npz").read_bytes()
    for broken in (whole[:-40], whole[: len(whole) // 2], b"", b"no archive", whole[:4]):
        (tmp_path / "b.npz").write_bytes(broken)
        with pytest.raises(ValueError, match=r"b\.npz' must be a complete npz file"):
            read_signal(tmp_path / "b.npz")
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    (tmp_path / "b.npz").write_bytes(flipped)
    with pytest.raises(ValueError, match=r"b\.npz' must be a complete npz file"):
        read_signal(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 2, 3))}, r"the key 'data' \(got keys x\)"),
        ({"data": np.zeros((2, 2))}, r"numeric \[T, N, C\] array.*\(got shape \(2, 2\)"),
        ({"data": np.zeros((0, 2, 3))}, r"got shape \(0, 2, 3\)"),
        ({"data": np.array([[["a"]]])}, "numeric"),
        ({"data": np.array([[[1j]]])}, "numeric"),
        ({"data": np.array([None])}, "must be a complete npz file"),  # a pickle is never loaded
    ],
)
def test_read_signal_refuses(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        read_signal(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_read_sparse_reads_what_scipy_writes(tmp_path: Path, kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]])
    sparse.save_npz(tmp_path / "adj.npz", sparse.csr_matrix(dense).asformat(kind))
    np.testing.assert_array_equal(read_sparse(tmp_path / "adj.npz", 3), dense)


def test_read_sparse_adds_duplicates(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", format="coo", shape=[2, 2], row=[0, 0], col=[1, 1], data=[1, 2.5])
    assert read_sparse(tmp_path / "a.npz", 2).tolist() == [[0, 3.5], [0, 0]]


CSR = {"format": b"csr", "shape": [2, 2], "indptr": [0, 1, 2], "indices": [0, 1], "data": [1.0, 2]}
COO = {"format": "coo", "shape": [2, 2], "row": [0, 1], "col": [0, 1], "data": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("good", "change", "message"),
    [
        (CSR, {"format": b"dia"}, "'format' of .* must be csr, csc or coo"),
        (CSR, {"format": b"\xff"}, "'format' of .* must be csr, csc or coo"),
        (CSR, {"format": ["csr"]}, "'format' of .* must be csr, csc or coo"),
        (CSR, {"indices": [0, 5]}, r"'indices' of .* must hold 0 to 1 \(got 0 to 5\)"),
        (CSR, {"indices": [0, -1]}, r"must hold 0 to 1 \(got -1 to 0\)"),
        (CSR, {"indices": [0.0, 1.0]}, "2 whole numbers"),
        (CSR, {"indices": [0]}, "2 whole numbers"),
        (CSR, {"indices": None}, r"'indices' of .* must be 2 whole numbers \(got nothing\)"),
        (CSR, {"data": [1.0, 2.0, 3.0]}, "'indptr' of .* must rise from 0 to 3"),
        (CSR, {"data": [[1.0, 2.0]]}, "'data' of .* must be a list of numbers"),
        (CSR, {"data": ["1", "2"]}, "'data' of .* must be a list of numbers"),
        (CSR, {"data": None}, "must hold the key 'data'"),
        (CSR, {"indptr": [0, 1, 5]}, "'indptr' of .* must hold 0 to 2"),
        (CSR, {"indptr": [0, 2, 1]}, "'indptr' of .* must rise from 0 to 2"),
        (CSR, {"indptr": [1, 1, 2]}, "'indptr' of .* must rise from 0 to 2"),
        (CSR, {"indptr": [0, 2]}, "'indptr' of .* must be 3 whole numbers"),
        (CSR, {"shape": [[2, 2]]}, r"must be \[N, N\] = \[2, 2\]"),
        (CSR, {"shape": [2.0, 2.0]}, r"must be \[N, N\] = \[2, 2\]"),
        (CSR, {"shape": [10**6, 10**6]}, r"must be \[N, N\] = \[2, 2\]"),
        (COO, {"row": [0, 1, 1], "col": [1, 0, 1], "data": [0.5]}, "'row' of .* must be 1 whole"),
        (COO, {"row": [0, -1]}, "'row' of .* must hold 0 to 1"),
        (COO, {"col": [[0, 1]]}, "'col' of .* must be 2 whole numbers"),
    ],
)
def test_read_sparse_refuses(
    tmp_path: Path, good: dict[str, object], change: dict[str, object], message: str
) -> None:
    path = tmp_path / "adj.npz"
    np.savez(path, **good)  # type: ignore[arg-type]
    assert read_sparse(path, 2).tolist() == [[1, 0], [0, 2]]
    arrays = {name: value for name, value in {**good, **change}.items() if value is not None}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as error:
        read_sparse(path, 2)
    assert str(path) in str(error.value)


def test_find_file(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "b.csv").touch()
    assert find_file(tmp_path, "a.csv", "b.csv") == tmp_path / "raw" / "b.csv"
    (tmp_path / "a.csv").touch()
    assert find_file(str(tmp_path), "a.csv", "b.csv") == tmp_path / "a.csv"
    with pytest.raises(FileNotFoundError, match=r"must hold c\.csv or d\.csv \(got "):
        find_file(tmp_path, "c.csv", "d.csv")
