"""The page from a laptop to production: its files run as they stand there, in their order."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist

PAGE = Path(__file__).parents[1] / "docs" / "production.rst"
BLOCK = re.compile(r"\.\. code-block:: \w+\n +:caption: (\S+)\n\n((?: {3}.*\n|\n)+)")
NEEDS = ("safetensors",)
SERVES = ("fastapi", "httpx", "onnx", "onnxruntime", "onnxscript")


def files() -> dict[str, str]:
    """Return the files of the page by name."""
    return {n: textwrap.dedent(text) for n, text in BLOCK.findall(PAGE.read_text("utf-8"))}


def test_the_page_has_its_files() -> None:
    found = files()
    assert list(found) == ["distil.py", "job.sh", "job.yaml", "export.py", "serve.py"]
    for name, text in found.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def run(folder: Path, *command: str) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder, capture_output=True, text=True, env=env, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:Using `httpx` with")  # starlette's own
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes_end_as_one_and_the_student_serves(tmp_path: Path) -> None:
    for package in NEEDS:
        pytest.importorskip(package)
    found = files()
    (tmp_path / "distil.py").write_text(found["distil.py"])
    students = []
    for count in (1, 2):
        torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
        run(tmp_path, *torchrun, "distil.py")
        students.append(torch.load(tmp_path / "runs" / "student.pt", weights_only=True))
    assert len(list((tmp_path / "runs" / "cache").glob("*.safetensors"))) == 1
    assert len(list((tmp_path / "runs" / "cache" / "structures").iterdir())) == 1
    torch.testing.assert_close(*students, rtol=1e-3, atol=1e-4)
    for package in SERVES:
        pytest.importorskip(package)
    (tmp_path / "export.py").write_text(found["export.py"])
    run(tmp_path, "export.py")
    before = Path.cwd()
    try:
        os.chdir(tmp_path)
        serve = load(found["serve.py"], tmp_path / "serve.py")
    finally:
        os.chdir(before)
    from fastapi.testclient import TestClient
    from torch_geometric.datasets import KarateClub
    from torch_geometric.nn import GCN

    data = KarateClub()[0]
    student = GCN(34, 6, num_layers=2, out_channels=4).eval()
    student.load_state_dict(students[1])
    client = TestClient(serve.app)
    assert client.get("/health").json() == {"ready": True}
    graph = {"x": data.x.tolist(), "edges": data.edge_index.t().tolist()}
    expected = student(data.x, data.edge_index).argmax(dim=-1)
    assert (expected == data.y).float().mean() > 0.6
    assert client.post("/classify", json=graph).json() == {"classes": expected.tolist()}
    for wrong in ({"x": [[1.0]]}, {"edges": [[0, 34]]}, {"edges": [[-1, 0]]}, {"x": []}):
        assert client.post("/classify", json={**graph, **wrong}).status_code == 422


def load(text: str, path: Path) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("serve", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve"] = module  # pydantic looks for it
    spec.loader.exec_module(module)
    return module
