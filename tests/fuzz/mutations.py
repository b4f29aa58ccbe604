"""Damage of all kinds, from one source of choices: hypothesis, a seed, or a fuzzer.

A source is a function: ``pick(n)`` is one of 0 ... n - 1.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

Pick = Callable[[int], int]

# What readers trip over: words, numbers at the edges of types, brackets, bytes that are no text.
TOKENS = [
    *(b"", b"-", b"NA", b"NaN", b"NULL", b"inf", b"-inf", b"1e400", b"-1", b"0", b"1", b"201"),
    *(b"0.5", b"1e-320", b"5o.0", b"1_0", b"0x10", b"9" * 30, b"9" * 400, b"9" * 5000),
    *(b"2147483648", b"-9223372036854775809", b"18446744073709551616", b"true", b"null"),
    *(b"#", b",", b";", b'"', b"'", b"\n", b"\r", b"\n\n", b"\t", b" ", b"\0", b"\\", b"/", b".."),
    *(b"../", b"[", b"]", b"{", b"}", b"(", b")", b":", b"[" * 2000, b"{}", b"[]", b'"a"'),
    *(b"\xff", b"\xef\xbb\xbf", b"\xd9\xa3", b"\xe2\x80\xa8", b"PK\3\4", b"\x93NUMPY"),
    *(b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"\0\0\0\x80"),
    *(b"'|O'", b"'<f8'", b"'>i4'", b"'<U1'", b"'|V8'", b"'<c16'", b"'<f2'", b"(1099511627776,)"),
]


def damage(data: bytes, pick: Pick) -> bytes:
    """Return bytes changed in one place or two."""
    for _ in range(1 + pick(2)):
        data = _OPERATIONS[pick(len(_OPERATIONS))](data, pick)
    return data


def damage_archive(members: dict[str, bytes], pick: Pick, packed: bool) -> bytes:
    """Return a zip archive with whole checksums of which a member is changed, or left out."""
    members = dict(members)
    name = sorted(members)[pick(len(members))]
    if pick(12) == 0:
        del members[name]
    else:
        members[name] = damage(members[name], pick)
    return pack(members, packed)


def pack(members: dict[str, bytes], packed: bool) -> bytes:
    """Return a zip archive of the members."""
    file = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def _span(data: bytes, pick: Pick) -> tuple[int, int]:
    start = pick(len(data) + 1)
    return start, min(start + pick(16), len(data))


def _flip(data: bytes, pick: Pick) -> bytes:
    if not data:
        return data
    place = pick(len(data))
    return data[:place] + bytes([data[place] ^ (1 << pick(8))]) + data[place + 1 :]


def _set(data: bytes, pick: Pick) -> bytes:
    place = pick(len(data) + 1)
    return data[:place] + bytes([pick(256)]) + data[place + 1 :]


def _cut(data: bytes, pick: Pick) -> bytes:
    return data[: pick(len(data) + 1)]


def _remove(data: bytes, pick: Pick) -> bytes:
    start, end = _span(data, pick)
    return data[:start] + data[end:]


def _repeat(data: bytes, pick: Pick) -> bytes:
    start, end = _span(data, pick)
    return data[:end] + data[start:end] * (1 + pick(3)) + data[end:]


def _insert(data: bytes, pick: Pick) -> bytes:
    place = pick(len(data) + 1)
    return data[:place] + TOKENS[pick(len(TOKENS))] + data[place:]


def _overwrite(data: bytes, pick: Pick) -> bytes:
    place, token = pick(len(data) + 1), TOKENS[pick(len(TOKENS))]
    return data[:place] + token + data[place + len(token) :]


def _field(data: bytes, pick: Pick) -> bytes:
    """Replace what lies between two separators, such as a number of a table or of JSON."""
    place = pick(len(data) + 1)
    start = max(data.rfind(mark, 0, place) for mark in (b",", b"\n", b":", b"[", b" ")) + 1
    ends = [data.find(mark, place) for mark in (b",", b"\n", b"}", b"]", b" ")]
    end = min([e for e in ends if e >= 0], default=len(data))
    return data[:start] + TOKENS[pick(len(TOKENS))] + data[end:]


def _line(data: bytes, pick: Pick) -> bytes:
    """Remove, repeat, or swap lines."""
    lines = data.split(b"\n")
    a, b = pick(len(lines)), pick(len(lines))
    how = pick(3)
    if how == 0:
        del lines[a]
    elif how == 1:
        lines.insert(b, lines[a])
    else:
        lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


_OPERATIONS = (_flip, _set, _cut, _remove, _repeat, _insert, _overwrite, _field, _line)
