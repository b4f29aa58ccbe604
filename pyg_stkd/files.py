"""Files, in one way each: written whole or not at all, read without trust in what they say."""

from __future__ import annotations

import contextlib
import glob
import importlib
import io
import json
import math
import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "read_json",
    "read_npy",
    "read_npz",
    "read_text",
    "remove_parts",
    "safetensors",
    "write_atomic",
]

# Deflate cannot shrink more than this: a larger claim is false, whatever the archive says.
_DEFLATE = 1032
_LONGEST_HEADER = 10_000  # bytes; as numpy has it
_CHUNK = 1 << 20
# What zipfile and zlib raise on damaged archives, with the archive already open.
_BROKEN = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_atomic(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    r"""Write a file so that a reader sees either the old content or all of the new one.

    The content goes into a file of a name of its own beside it, to the disk, and takes the place
    of the old one in one step. Where anything fails nothing is left behind. Two that write the
    same file do not meet: the last one stays.

    Args:
        path (str or Path): The file; its folder is made where it is missing. A link stays one.
        content (bytes or callable): The new content, or what writes it into an open file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a" / "result.json"
        >>> write_atomic(path, b"{}")
        >>> path.read_text()
        '{}'
        >>> write_atomic(path, lambda file: file.write(b"[]"))
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('[]', 1)
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name[:100]}.{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(path, part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(path: str | Path) -> None:
    r"""Remove what :func:`write_atomic` left of a file where its process was killed meanwhile.

    Call it where no other process writes the same file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "result.json"
        >>> part = path.parent / ".result.json.0123456789abcdef.part"
        >>> part.touch()
        >>> remove_parts(path)
        >>> part.exists()
        False
    """
    path = Path(os.path.realpath(path))
    for part in path.parent.glob(f".{glob.escape(path.name[:100])}.{'[0-9a-f]' * 16}.part"):
        part.unlink(missing_ok=True)


def read_text(path: str | Path) -> str:
    r"""Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not text.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' must be text in UTF-8 (got {error})") from error


def read_json(path: str | Path) -> dict[str, Any]:
    r"""Return the object that a JSON file holds.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not complete, holds no object, or is nested too deeply.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "graph.json"
        >>> write_atomic(path, b'{"nodes": []}')
        >>> read_json(path)
        {'nodes': []}
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (RecursionError, ValueError) as error:  # also integers of thousands of digits
        raise ValueError(f"'{path}' must be a complete JSON file (got {error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' must hold a JSON object (got {type(content).__name__})")
    return content


def read_npy(path: str | Path) -> NDArray[np.generic]:
    r"""Return the array of an npy file, in the byte order of this machine.

    Nothing is unpickled, and no memory is taken for more than the file holds.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, or not of numbers, truth values or text.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _read_array(file, size, size)
        except _BROKEN as error:
            raise ValueError(f"'{path}' must be a complete npy file (got {error})") from error


def read_npz(
    path: str | Path, *names: str, optional: Iterable[str] = ()
) -> dict[str, NDArray[np.generic]]:
    r"""Return the named arrays of an npz file, in the byte order of this machine.

    Other arrays of the file are not touched, nothing is unpickled, and no memory is taken for
    more than an archive of its size can hold.

    Args:
        path (str or Path): The file.
        *names (str): Arrays that must be there.
        optional (iterable of str): Arrays that are returned if they are there. (default: :obj:`()`)

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, lacks an array, or one is not of numbers, truth values or
            text.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "graph.npz"
        >>> np.savez(path, x=np.eye(2), other=np.zeros(3))
        >>> read_npz(path, "x", optional=["y"])
        {'x': array([[1., 0.],
               [0., 1.]])}
    """
    arrays = {}
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
                absent = [name for name in names if name not in members]
                for name in (*names, *optional) if not absent else ():
                    if name in members:
                        arrays[name] = _read_member(archive, members[name], size)
        except _BROKEN as error:
            raise ValueError(f"'{path}' must be a complete npz file (got {error})") from error
    if absent:
        keys = ", ".join(members) or "none"
        raise ValueError(f"'{path}' must hold the key {absent[0]!r} (got keys {keys})")
    return arrays


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, archive_size: int
) -> NDArray[np.generic]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename!r} neither stored nor deflated")
    stored = member.compress_type == zipfile.ZIP_STORED
    most = min(member.compress_size, archive_size) * (1 if stored else _DEFLATE)
    with archive.open(member) as file:
        try:
            array = _read_array(file, member.file_size, most)
            file.read(1)  # at its end the archive's checksum is compared
        except _BROKEN as error:
            raise ValueError(f"{member.filename!r}: {error}") from error
    return array


def _read_array(file: IO[bytes], size: int, most: int) -> NDArray[np.generic]:
    """Return the array of an open npy file of a declared size, and of at most so many bytes."""
    shape, fortran, dtype, start = _read_header(file)
    if dtype.kind not in "biufcSU" or not dtype.itemsize:
        raise ValueError(f"an array of {dtype}")
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or start + wanted != size or size > most:
        raise ValueError(f"an array of shape {shape} and {dtype} in {min(size, most)} bytes")
    buffer = np.empty(wanted, dtype=np.uint8)
    place = 0
    while place < wanted:
        data = file.read(min(_CHUNK, wanted - place))
        if not data:
            raise EOFError(f"{place} of {wanted} bytes")
        buffer[place : place + len(data)] = np.frombuffer(data, dtype=np.uint8)
        place += len(data)
    array: NDArray[np.generic] = buffer.view(dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return the shape, whether it is in Fortran's order, the type, and the bytes of a header."""
    head = file.read(8)
    if head[:6] != b"\x93NUMPY" or head[6:] not in (b"\1\0", b"\2\0"):
        raise ValueError(f"a first line of {head!r}, no array")
    prefix = file.read(2 if head[6] == 1 else 4)
    length = int.from_bytes(prefix, "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    text = io.BytesIO(prefix + file.read(length))
    try:
        if head[6] == 1:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(text)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(text)
    except Exception as error:  # numpy evaluates and tokenises the text: the kinds are many
        raise ValueError(f"a header that cannot be read: {error}") from error
    return shape, fortran, dtype, len(head) + len(prefix) + length


def safetensors(user: str) -> tuple[Any, type[Exception]]:
    """Return the module that reads and writes safetensors, and the exception that it raises.

    Args:
        user (str): Who needs it, for the text where it is not installed.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        library = importlib.import_module("safetensors.torch")
        return library, importlib.import_module("safetensors").SafetensorError
    except ImportError as error:
        raise ImportError(
            f"{user} needs the package safetensors: pip install 'pyg-stkd[safe]'"
        ) from error
