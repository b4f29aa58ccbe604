"""Tensors in files beside those of captures: what was written is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyg_stkd.distill.recording.beside import Beside

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
