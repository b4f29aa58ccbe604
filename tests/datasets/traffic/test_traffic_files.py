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
    read_table,
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "id_header", "header", "rows"),
    [
        ("1.5,2\n3,4\n", True, None, [[1.5, 2], [3, 4]]),
        ("1.5,2", False, None, [[1.5, 2]]),
        ("1,2,\r\n3,4,\r\n", False, None, [[1, 2], [3, 4]]),  # a comma ends each row
        ("\ufeffa,b\n1,2\n\n", False, ["a", "b"], [[1, 2]]),  # byte order mark, empty line
        ("773869,767541\n64.4,67.6\n", True, ["773869", "767541"], [[64.4, 67.6]]),
        ("773869,767541\n64.4,67.6\n", False, None, [[773869, 767541], [64.4, 67.6]]),
        ("0,1\n60,61\n", True, ["0", "1"], [[60, 61]]),  # the columns counted
        ("60,61\n62,63\n", True, None, [[60, 61], [62, 63]]),  # whole speeds are no header
        ('"x","y"\n1e1,-2\n', False, ["x", "y"], [[10, -2]]),
        ("7\n8\n", True, None, [[7], [8]]),
    ],
)
def test_read_table(
    tmp_path: Path, text: str, id_header: bool, header: list[str] | None, rows: list[list[float]]
) -> None:
    table, names = read_table(write(tmp_path / "t.csv", text), id_header)
    assert names == header
    assert table.tolist() == rows


def test_read_table_takes_empty_fields_for_nan(tmp_path: Path) -> None:
    table, _ = read_table(write(tmp_path / "t.csv", "1,2\n,3\nnan, \n"))
    np.testing.assert_array_equal(table, [[1, 2], [np.nan, 3], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n4,5\n", "corrupt or truncated"),
        ("1,2\n3,4,5\n", "corrupt or truncated"),
        ("1,2\n3,4\n5,6,7", "corrupt or truncated"),
        ("a,b\n1,2,3\n", "corrupt or truncated: 2 columns are named but a row has 3"),
        ("1,2\n3,x\n", "corrupt or truncated.*'x'"),
        ("", "its first line is empty"),
        ("a,b\n", "has a header but no rows"),
    ],
)
def test_read_table_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path / "t.csv", text))


def test_read_table_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"1,2\n\xff\xfe\x00\n")
    with pytest.raises(ValueError, match=r"t\.csv is corrupt"):
        read_table(tmp_path / "t.csv")


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
        ("from,to,cost\n1.5,2,3\n", "not a whole number"),
        ("from,to,cost\n1,2\n", "corrupt or truncated"),
        ("from,to,cost\n,2,3\n", "not a whole number"),
    ],
)
def test_read_links_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_links(write(tmp_path / "d.csv", text))


def test_read_ids(tmp_path: Path) -> None:
    assert read_ids(write(tmp_path / "i.txt", "317842\n318711\n")).tolist() == [317842, 318711]
    with pytest.raises(ValueError, match=r"each once \(got 2 ids\)"):
        read_ids(write(tmp_path / "i.txt", "1\n1\n"))
    with pytest.raises(ValueError, match="one whole number a line"):
        read_ids(write(tmp_path / "i.txt", "1\nx\n"))


def test_read_stations(tmp_path: Path) -> None:
    text = ",ID,Fwy,Dir,District,Latitude,Longitude\n0,716939,5,S,7,34.04,-118.21\n"
    names, pos = read_stations(write(tmp_path / "s.csv", text))
    assert names == ["716939"]
    assert pos.tolist() == [[-118.21, 34.04]]
    for broken in (text.replace("ID", "id"), text[:-16], text.replace("34.04", "north")):
        with pytest.raises(ValueError, match="lacks a column ID, Latitude, Longitude"):
            read_stations(write(tmp_path / "s.csv", broken))


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
