"""The four short examples: short, alone in their files, and running."""

from __future__ import annotations

import ast
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["distil_gat", "distil_dgcnn", "distil_stgcn", "prune_and_export"]
STUDENTS = {"teacher", "student, labels alone", "student, distilled"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_is_one_short_file(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    tops = {node.module.split(".")[0] for node in nodes if node.module}
    assert tops - set(sys.stdlib_module_names) <= {"torch", "torch_geometric", "pyg_stkd"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("distil_gat", {"steps": 12, "scale": 0.01}),
        ("distil_dgcnn", {"steps": 5, "num_shapes": 40}),
        ("distil_stgcn", {"steps": 5, "num_steps": 400}),
    ],
)
def test_distils(name: str, options: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    scores = load(name).main(**options)
    assert scores.keys() == STUDENTS
    assert all(math.isfinite(score) for score in scores.values())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step ")
    sizes = [int(line.split("parameters")[0].split()[-1].replace(",", "")) for line in lines[-3:]]
    assert sizes[0] > 10 * sizes[1] == 10 * sizes[2]


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="needs torch 2.7")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_prunes_and_exports(tmp_path: Path) -> None:
    module = load("prune_and_export")
    small = module.main(tmp_path / "new", epochs=1)
    assert sum(p.numel() for p in small.parameters()) <= 0.25 * sum(
        p.numel() for p in module.Net().parameters()
    )
    x, edge_index = torch.randn(7, 50), torch.randint(7, (2, 20))
    program = torch.export.load(tmp_path / "new" / "small.pt2").module()
    torch.testing.assert_close(program(x, edge_index), small(x, edge_index), rtol=1e-4, atol=1e-5)
