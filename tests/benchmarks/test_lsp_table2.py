"""What the table of the LSP paper on proteins is made of, in small."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path += [
    str(Path(__file__).parents[2] / folder)
    for folder in ("benchmarks/reproduce", "examples", "examples/papers")
]
pytest.importorskip("matplotlib")
pytest.importorskip("tabulate")
pytest.importorskip("tqdm")
import lsp_table2
from experiment import Run, Store
from protocol import ALONE

from pyg_stkd.distill import LSPLoss, OutputLoss
from pyg_stkd.graph import Graph
from pyg_stkd.nn import GAT


@pytest.mark.parametrize("kind", ["logits", "KD", "FitNet", "AT", "LSP"])
def test_a_loss_of_weight_0_is_none(kind: str) -> None:
    assert lsp_table2.losses_of({"kind": kind, "weight": 0.0}, 2) == []
    (loss,) = lsp_table2.losses_of({"kind": kind, "weight": 0.5}, 2)
    assert loss.weight == 0.5


def test_logits_stay_where_local_structures_have_no_weight() -> None:
    (left,) = lsp_table2.losses_of({"kind": "logits+LSP", "weight": 0.0}, 2)
    assert (type(left), left.weight) == (OutputLoss, 1.0)
    both = lsp_table2.losses_of({"kind": "logits+LSP", "weight": 0.1}, 2)
    assert [type(loss) for loss in both] == [OutputLoss, LSPLoss]
    assert both[1].weight == 0.1


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two small graphs for each split, in place of the generated ones."""
    torch.manual_seed(0)
    graphs = []
    for _ in range(2):
        labels = (torch.rand(12, 121) > 0.5).float()
        graphs.append((torch.randn(12, 50), Graph(torch.randint(12, (2, 40)), 12), labels))
    splits = SimpleNamespace(train=graphs, val=graphs, test=graphs, extra=graphs)
    monkeypatch.setattr(lsp_table2, "Data", SimpleNamespace(of=lambda scale: splits))
    return splits


def test_at_weight_0_a_student_learns_as_it_does_alone(data: Any, tmp_path: Path) -> None:
    fixed: dict[str, Any] = {"scale": 0.1, "steps": 4, "student": "shallow", "regime": "labels"}
    fixed |= {"lr": 0.01, "decay": 0.0}
    store, teacher = Store(tmp_path), GAT.teacher(50, 121)
    alone = lsp_table2.train(Run(ALONE, 0, fixed), store, None)
    given = fixed | {"kind": "LSP", "unlabelled": True}
    none = given | {"weight": 0.0}
    off = lsp_table2.train(Run("LSP", 0, none), store, teacher)
    assert off == alone | {"method": "LSP", "config": none}  # the seconds too: no other training
    assert off["late_gain"] >= 0
    pruned = none | {"pruned": True}
    start = lsp_table2.train(Run("pruned", 0, pruned), store, teacher)
    assert start["parameters"] != alone["parameters"]  # with no loss, but another start
    on = lsp_table2.train(Run("LSP", 0, given | {"weight": 1e4}), store, teacher)
    assert on["val"] != alone["val"]


def test_sizes_are_of_reported_runs_and_told_once() -> None:
    found = {
        "teachers": [{"parameters": 1000}, {"parameters": 1000}],
        "runs": [
            {"method": ALONE, "parameters": 50}, {"method": "KD", "parameters": 50},
            {"method": "pruned", "parameters": 80, "trial": True},
            {"method": "pruned", "parameters": 60}, {"method": "pruned", "parameters": 64},
        ],
    }  # fmt: skip
    names = {"teacher": "T", ALONE: "A", "KD": "K", "pruned": "P"}
    assert lsp_table2.sizes(found, names) == [
        {"model": "T", "parameters": "1,000", "share": "100.0 %"},
        {"model": "A", "parameters": "50", "share": "5.0 %"},
        {"model": "P", "parameters": "62", "share": "6.2 %"},
    ]


def test_rates_of_another_table_leave_one_axis(tmp_path: Path) -> None:
    methods = lsp_table2.methods_of("labels")
    path = tmp_path / "table.json"
    chosen = {method.name: {"config": {"lr": 0.03}} for method in methods}
    path.write_text(json.dumps({"chosen": chosen}))
    for method in lsp_table2.with_rates(methods, path):
        assert method.start["lr"] == 0.03
        assert [axis.name for axis in method.axes] == [
            "decay" if method.name == ALONE else "weight"
        ]
    path.write_text(json.dumps({"chosen": {ALONE: chosen[ALONE]}}))
    with pytest.raises(SystemExit, match=r"--rates must have what was chosen for KD, FitNet"):
        lsp_table2.with_rates(methods, path)


def test_the_student_alone_is_there_at_the_rates_of_others() -> None:
    chosen = {name: {"config": {"lr": lr}, "inside": True, "trials": 8} for name, lr in
              ((ALONE, 0.002), ("KD", 0.002), ("FitNet", 0.005), ("AT", 0.005))}  # fmt: skip

    def go(run: Run) -> dict[str, Any]:
        f1 = 0.8 + 10 * run.config["lr"] + 0.001 * run.seed + 0.002 * (run.method == "FitNet")
        return {"method": run.method, "seed": run.seed, "val": f1, "f1": f1, "best_share": 0.9,
                "parameters": 5, "config": run.config}  # fmt: skip

    runs = [go(Run(name, seed, told["config"])) for name, told in chosen.items() for seed in (0, 1)]
    found = lsp_table2.at_other_rates({"runs": runs, "chosen": chosen}, 2, go)
    beside = "alone, rate 0.005"
    assert list(found["chosen"]) == [*chosen, beside]
    assert found["chosen"][beside]["trials"] == 0
    added = found["runs"][len(runs) :]
    assert [(run["seed"], run["config"]["lr"], run["config"]["decay"]) for run in added] == [
        (0, 0.005, 0.0), (1, 0.005, 0.0)
    ]  # fmt: skip
    assert all("kind" not in run["config"] for run in added)
