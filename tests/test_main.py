from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
import torch
import torch_geometric.typing

import pyg_stkd
from pyg_stkd.__main__ import MISSING, describe


def test_the_command_prints_what_a_report_of_a_bug_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyg_stkd"], capture_output=True, text=True, check=True
    )
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    told = {name.strip(): value.strip() for name, value in lines.items()}
    assert told["pyg-stkd"] == pyg_stkd.__version__
    assert told["torch"] == metadata.version("torch")
    assert told["GPU"] == "none" or torch.cuda.is_available()
    assert set(told) == set(describe())


def test_a_package_that_pyg_cannot_load_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SPARSE", False)
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", True)
    monkeypatch.setattr(torch_geometric.typing, "WITH_PYG_LIB", False)
    found = describe()
    assert found["torch-sparse"] == "1.0 (PyG cannot load it)"
    assert found["torch-scatter"] == "1.0"
    assert found["segment sums on a GPU"] == "torch-scatter"
    assert found["neighbours of a node sampled by"].startswith("nothing")


def test_a_package_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    assert describe()["onnx"] == MISSING
