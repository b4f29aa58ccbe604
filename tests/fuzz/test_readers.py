"""Whatever bytes a file holds: it is read, or refused by ValueError or OSError with its name."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damage, damage_archive, pack
from readers import READERS, TARGETS, NotRefusedRightError, Reader


@pytest.mark.parametrize("name", READERS)
def test_the_valid_set_is_read(tmp_path: Path, name: str) -> None:
    READERS[name].write(tmp_path)
    assert READERS[name].run(tmp_path) == "read"


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(name: str, data: st.DataObject) -> None:
    assert TARGETS[name](lambda n: data.draw(st.integers(0, n - 1))) in ("read", "refused")


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    needed = [
        file for file in READERS[name].content if "Station" not in file and "08.t" not in file
    ]
    for file in needed:
        READERS[name].write(tmp_path)
        (tmp_path / file).unlink()
        if not name.startswith("PPI") or not file.startswith(("valid", "test")):
            assert READERS[name].run(tmp_path) == "refused"


def fails(error: Exception) -> Reader:
    def read(folder: Path) -> object:
        raise error

    return Reader(read, {"some.bin": b""})


@pytest.mark.parametrize(
    "error", [KeyError("a"), ValueError("no name"), UnicodeDecodeError("utf-8", b"", 0, 1, "bad")]
)
def test_the_harness_sees_errors_of_other_kinds(tmp_path: Path, error: Exception) -> None:
    with pytest.raises((NotRefusedRightError, KeyError)):
        fails(error).run(tmp_path)
    assert fails(ValueError(f"'{tmp_path}/some.bin' must")).run(tmp_path) == "refused"


def test_damage_depends_on_the_choices_alone() -> None:
    data, members = b"1,2\n3,4\n", {"a": b"12", "b": b"34"}
    changed = set()
    for seed in range(200):
        once = damage(data, Random(seed).randrange)
        assert once == damage(data, Random(seed).randrange)
        changed.add(once)
        again = damage_archive(members, Random(seed).randrange, packed=True)
        assert again == damage_archive(members, Random(seed).randrange, packed=True)
    assert len(changed) > 100
    assert pack(members, packed=True) == pack(members, packed=True)
