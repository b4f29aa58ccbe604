"""The example of several processes: a run that was killed and resumed ends as one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

EXAMPLE = Path(__file__).parents[2] / "examples" / "distributed.py"

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed"),
    pytest.mark.skipif(not (WITH_PYG_LIB or WITH_TORCH_SPARSE), reason="nothing here samples"),
]


def torchrun(out: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Two batches a process: the drill is in the second, when the checkpoint before is written.
    small = ["--nodes=2880", "--epochs=3", "--teacher-steps=5", f"--out={out}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(EXAMPLE), *small, *args],
        capture_output=True, text=True, env=env, check=False, timeout=600,
    )  # fmt: skip


def test_killed_and_resumed(tmp_path: Path) -> None:
    whole = torchrun(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "student: " in whole.stdout
    killed = torchrun(tmp_path / "parts", "--die-at=1")
    assert killed.returncode != 0
    assert "exitcode  : 1" in killed.stderr  # which process, and how it ended
    kept = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert kept["epoch"] == 1
    resumed = torchrun(tmp_path / "parts", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    first, second = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "parts")
    )
    assert first["epoch"] == second["epoch"] == 3
    assert list(first["distiller"]) == list(second["distiller"])
    for name, value in first["distiller"].items():
        assert torch.equal(value, second["distiller"][name]), name
    assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]
