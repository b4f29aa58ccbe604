"""Tensors in files beside those of captures: what was written is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyg_stkd.distill.recording.disk.beside import Beside

pytest.importorskip("safetensors")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    first, second = Beside(tmp_path / "new", "a"), Beside(tmp_path / "new", "b")
    value = torch.randn(3, 4, requires_grad=True).t()  # neither contiguous nor a constant
    assert first.read("x") is None
    first.write("x", value)
    found = first.read("x")
    assert found is not None
    assert torch.equal(found, value)
    assert not found.requires_grad
    for of, what in ((first, "y"), (second, "x")):
        assert of.read(what) is None
    first.write("x", value + 1)  # as another process may
    assert torch.equal(first.read("x"), value + 1)


def test_refuses_a_damaged_file(tmp_path: Path) -> None:
    beside = Beside(tmp_path, "a")
    beside.write("x", torch.ones(3))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], b"x" * len(whole)):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="must be a file of a structure"):
            beside.read("x")


def test_refuses_any_other_bit_of_its_numbers(tmp_path: Path) -> None:
    beside = Beside(tmp_path, "a")
    beside.write_all("x", {"odd": torch.arange(7, dtype=torch.int32), "even": torch.ones(4)})
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for place in range(len(whole) - 7 * 4 - 4 * 4, len(whole)):
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"(?s)structure.*other numbers in '(odd|even)'"):
                beside.read_all("x")


def test_reads_what_was_written_before_there_were_sums(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    beside = Beside(tmp_path, "a")
    save_file({"structure": torch.ones(3)}, beside.file("x"))
    assert torch.equal(beside.read("x"), torch.ones(3))


def test_sums_are_compared_once_by_those_that_share_what_was_checked(tmp_path: Path) -> None:
    checked: set[Path] = set()
    first = Beside(tmp_path, "a", checked)
    first.write("x", torch.ones(3))
    first.read("x")
    assert checked == {first.file("x")}
    damaged = bytearray(first.file("x").read_bytes())
    damaged[-1] ^= 1
    first.file("x").write_bytes(damaged)
    assert Beside(tmp_path, "a", checked).read("x") is not None
    with pytest.raises(ValueError, match="other numbers in 'structure'"):
        Beside(tmp_path, "a").read("x")
