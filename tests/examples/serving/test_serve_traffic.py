"""The example that serves: every form of every model is written, and forecasts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "serve_traffic.py"


@pytest.mark.full
def test_exports_and_measures_every_form(tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript", "safetensors"):
        pytest.importorskip(package)
    # As wide as ever: small weights are folded by the exporter itself.
    small = ["--nodes=8", "--steps=300", "--epochs=1", "--rounds=1", f"--out={tmp_path}"]
    for command in ("export", "measure"):
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), command, *small],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    rows = {
        row["model"]: row for row in json.loads((tmp_path / "serving.json").read_text())["rows"]
    }
    ends = ".safetensors", ".pt2", ".onnx"
    names = [f"{m}{end}" for m in ("teacher", "student", "pruned") for end in ends]
    assert set(rows) == {*names, *(n.replace(".onnx", ".int8.onnx") for n in names if "onnx" in n)}
    for name in names:
        model = name.partition(".")[0]
        assert rows[name]["MAE mph"] == pytest.approx(rows[f"{model}.onnx"]["MAE mph"], abs=0.01)
        assert rows[f"{model}.int8.onnx"]["MAE mph"] < 2 * rows[f"{model}.onnx"]["MAE mph"]
    # A small model is mostly what its operators are called.
    assert rows["teacher.int8.onnx"]["kB"] < 0.75 * rows["teacher.onnx"]["kB"]
