"""The models themselves, saved as weights and built anew."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from pyg_stkd.graph import Graph
from pyg_stkd.nn import STGCN, cheb_operator
from pyg_stkd.prune import Magnitude, Pruner

SERVING = Path(__file__).parents[3] / "examples" / "serving"


@pytest.mark.parametrize("name", ["teacher", "student", "pruned"])
def test_a_model_is_built_anew_from_its_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.syspath_prepend(str(SERVING))
    eager = importlib.import_module("eager")
    monkeypatch.delitem(sys.modules, "eager")
    torch.manual_seed(0)
    edges, weight = torch.randint(6, (2, 20)), torch.rand(20)
    model = STGCN.student(1, 12) if name == "student" else STGCN.teacher(1, 12)
    if name == "pruned":
        pruner = Pruner(model, Magnitude(), keep=0.3)
        pruner.step()
        model = pruner.compact()
    model.eval()
    eager.save_roads(tmp_path / "roads.npz", edges, weight, 6)
    eager.save(model, tmp_path / f"{name}.safetensors")
    again, graph = eager.load(tmp_path / f"{name}.safetensors", 12), Graph(edges, 6)
    x = torch.randn(2, 12, 6, 1)
    with torch.inference_mode():
        expected = model(x, cheb_operator(graph, graph.sort_edges(weight)))
        torch.testing.assert_close(again(x), expected)
