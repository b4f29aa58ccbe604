"""The snippets of the README run as they stand."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.nn import GCN, GCNConv

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
DISTIL, PRUNE, SERVE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def given() -> dict[str, Any]:
    """Return what the snippets take for granted."""
    x, edge_index = torch.randn(30, 34), torch.randint(30, (2, 120))
    y = torch.randint(4, (30,))
    return {
        "torch": torch, "GCNConv": GCNConv, "x": x, "edge_index": edge_index,
        "teacher": GCN(34, 32, 2, 4), "student": GCN(34, 8, 2, 4),
        "labelled": [(x, edge_index, y)], "unlabelled": [(2 * x, edge_index)],
        "criterion": torch.nn.functional.cross_entropy,
        "error": lambda model: float((model(x, edge_index).argmax(-1) != y).float().mean()),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_distilling(given: dict[str, Any]) -> None:
    before = [p.clone() for p in given["student"].parameters()]
    with redirect_stdout(io.StringIO()) as said:
        exec(DISTIL.replace("steps=1000", "steps=20"), given)
    assert said.getvalue().count("Epoch(") == 10  # each of a step with labels and one without
    after = list(given["student"].parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pruning_and_serving(given: dict[str, Any], tmp_path: Path) -> None:
    with redirect_stdout(io.StringIO()) as said:
        exec(PRUNE, given)
    small, pruner = given["small"], given["pruner"]
    x, edge_index = given["x"], given["edge_index"]
    assert sum(p.numel() for p in small.parameters()) <= 0.55 * (34 * 64 + 64 + 64 * 4 + 4)
    masked = pruner.model.eval()(x, edge_index)
    torch.testing.assert_close(small(x, edge_index), masked, rtol=1e-4, atol=1e-5)
    assert said.getvalue().strip()
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = tmp_path / "small.onnx"
    exec(SERVE.replace("small.onnx", str(path)), given)
    onnx.checker.check_model(str(path))
