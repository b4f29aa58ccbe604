from __future__ import annotations

import io
import json
import os
import re
import stat
import struct
import threading
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyg_stkd.files import read_json, read_npy, read_npz, read_text, write_atomic


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomic(path, b"old")
    write_atomic(str(path), lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_write_atomic_leaves_the_old_file_and_nothing_else_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    write_atomic(path, b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomic_is_on_the_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "a", b"x")
    assert done == ["fsync", "replace"]


def test_write_atomic_keeps_permissions_and_links(tmp_path: Path) -> None:
    path, link = tmp_path / "secret", tmp_path / "link"
    path.touch(mode=0o600)
    link.symlink_to(path)
    write_atomic(link, b"x")
    assert link.is_symlink()
    assert path.read_bytes() == b"x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    umask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "new", b"x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    # Both are in the middle of their content at the same time: each ends, and one of both stays.
    path, meet = tmp_path / "stage.pt", threading.Barrier(2)

    def write(letter: bytes) -> None:
        def content(file: BinaryIO) -> None:
            file.write(letter * 1000)
            meet.wait(timeout=10)
            file.write(letter * 1000)

        write_atomic(path, content)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (b"a" * 2000, b"b" * 2000)
    assert list(tmp_path.iterdir()) == [path]


def test_read_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffä\r\n".encode())
    assert read_text(tmp_path / "a.txt") == "ä\r\n"
    (tmp_path / "a.txt").write_bytes(b"a\xff")
    with pytest.raises(ValueError, match=r"a\.txt' must be text in UTF-8 \(got "):
        read_text(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        read_text(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', r"must be a complete JSON file \(got "),
        (b"[" * 200_000, r"must be a complete JSON file \(got "),
        (b'{"a": ' + b"1" * 5000 + b"}", r"must be a complete JSON file \(got "),
        (b"[1]", r"must hold a JSON object \(got list\)"),
        (b'{"a": "\xff"}', "must be text in UTF-8"),
        (b"", r"must be a complete JSON file \(got "),
    ],
    ids=["cut", "deep", "long number", "list", "bytes", "empty"],
)
def test_read_json_refuses(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "g.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"'{re.escape(str(path))}' {message}"):
        read_json(path)


@given(
    array=hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(endianness="?"),
            hnp.floating_dtypes(endianness="?"),
            hnp.unicode_string_dtypes(max_len=5),
            hnp.byte_string_dtypes(max_len=5),
        ),
        hnp.array_shapes(min_dims=0, min_side=0),
    ),
    fortran=st.booleans(),
    packed=st.booleans(),
)
def test_arrays_are_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, array: Any, fortran: bool, packed: bool
) -> None:
    array = np.asarray(array, order="F" if fortran else "C")
    folder = tmp_path_factory.mktemp("a")
    np.save(folder / "a.npy", array)
    (np.savez_compressed if packed else np.savez)(folder / "a.npz", a=array, b=np.zeros(3))
    for read in (read_npy(folder / "a.npy"), read_npz(folder / "a.npz", "a")["a"]):
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype.newbyteorder("=")
        assert read.flags.writeable


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def header(shape: str, descr: str = "'<f8'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


BAD_ARRAYS = {
    "terabytes": npy(header("(1099511627776,)")),
    "terabytes of nothing": npy(header("(1099511627776,)", "'<S0'")),
    "no rows of endless length": npy(header("(0, 10000000000000000000000000)")),
    "negative": npy(header("(-1, -2)"), bytes(16)),
    "too short": npy(header("(3,)"), bytes(16)),
    "too long": npy(header("(1,)"), bytes(16)),
    "a pickle": npy(header("(1,)", "'|O'"), b"cos\nsystem\n(S'true'\ntR."),
    "fields": npy(header("(1,)", "[('a', '<f8')]"), bytes(8)),
    "times": npy(header("(1,)", "'<M8[s]'"), bytes(8)),
    "no brace": npy(header("(1,)")[:-1], bytes(8)),
    "no sense": npy("print('hello')", bytes(8)),
    "a call": npy("{'descr': open('x'), 'shape': (1,)}", bytes(8)),
    "deep": npy("(" * 5000, bytes(8)),
    "a long header": npy(" " * 60_000 + header("(1,)"), bytes(8)),
    "a header of gigabytes": b"\x93NUMPY\2\0\xff\xff\xff\xff",
    "version 3": npy(header("(1,)"), bytes(8), 3),
    "no array": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
@pytest.mark.filterwarnings("error")
def test_bad_arrays_are_refused_by_the_name_of_the_file(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.npy").write_bytes(BAD_ARRAYS[what])
    with pytest.raises(ValueError, match=r"a\.npy' must be a complete npy file \(got .+\)"):
        read_npy(tmp_path / "a.npy")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("a.npy", BAD_ARRAYS[what])
        with pytest.raises(ValueError, match=r"a\.npz' must be a complete npz file \(got 'a.npy'"):
            read_npz(tmp_path / "a.npz", "a")


def test_read_npz_names_what_is_missing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(2), y=np.eye(3))
    with pytest.raises(ValueError, match=r"must hold the key 'z' \(got keys x, y\)"):
        read_npz(tmp_path / "a.npz", "x", "z")
    with pytest.raises(FileNotFoundError, match=r"b\.npz"):
        read_npz(tmp_path / "b.npz", "x")
    np.save(tmp_path / "c.npz", np.eye(2))
    (tmp_path / "c.npz.npy").rename(tmp_path / "c.npz")
    with pytest.raises(ValueError, match="must be a complete npz file"):
        read_npz(tmp_path / "c.npz", "x")


def test_read_npz_takes_no_memory_for_what_is_not_asked_for(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.eye(2), big=np.zeros(1 << 24))
    tracemalloc.start()
    try:
        assert list(read_npz(tmp_path / "a.npz", "x")) == ["x"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_false_size_takes_no_memory(tmp_path: Path) -> None:
    # The directory agrees with the header on 2 GiB, which 300 bytes cannot hold.
    content = npy(header("(268435456,)"))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    raw = bytearray((tmp_path / "a.npz").read_bytes())
    place = raw.rfind(b"PK\1\2") + 24
    raw[place : place + 4] = struct.pack("<I", (1 << 31) + len(content))
    (tmp_path / "a.npz").write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a\.npz' must be .* in \d{5} bytes"):
            read_npz(tmp_path / "a.npz", "a")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def archive_bytes(method: int) -> bytes:
    file = io.BytesIO()
    data = io.BytesIO()
    np.save(data, np.arange(30.0))
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", data.getvalue())
    return file.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_every_changed_byte_is_read_alike_or_refused(tmp_path: Path, method: int) -> None:
    # Whatever byte of an archive changes: the same numbers, or a ValueError that names the file.
    whole = archive_bytes(method)
    path = tmp_path / "a.npz"
    refused = same = 0
    for place in range(len(whole)):
        for flip in (0x01, 0x80, 0xFF):
            raw = bytearray(whole)
            raw[place] ^= flip
            path.write_bytes(raw)
            try:
                read = read_npz(path, "x")["x"]
            except ValueError as error:
                refused += str(path) in str(error)
            else:
                same += read.tolist() == list(range(30))
    assert refused + same == 3 * len(whole)
    assert refused > len(whole)


def test_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, {"b": "ä"}]}))
    assert read_json(tmp_path / "a.json") == {"a": [1, {"b": "ä"}]}
