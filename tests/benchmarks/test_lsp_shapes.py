"""What the tables of the LSP paper on point clouds are made of, in small."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torch_geometric.seed import seed_everything

sys.path += [
    str(Path(__file__).parents[2] / folder)
    for folder in ("benchmarks/reproduce", "examples/papers")
]
pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytest.importorskip("tabulate")
pytest.importorskip("torchmetrics")
pytest.importorskip("tqdm")
import lsp_shapes
from protocol import ALONE

TINY = ["--seeds", "2", "--epochs", "2", "--shapes", "40", "--points", "24"]
TINY += ["--teacher-width", "4", "--student-width", "2"]


@pytest.mark.parametrize("table", [4, 5, 6])
def test_all_methods_of_a_table_have_as_many_trials(table: int) -> None:
    for methods in lsp_shapes.methods_of(table).values():
        assert methods[0].name == ALONE
        assert len({tuple(len(axis.values) for axis in method.axes) for method in methods}) == 1
        for method in methods:
            assert all(method.start[axis.name] in axis.values for axis in method.axes)


def test_the_larger_students_each_have_themselves_alone_beside_them() -> None:
    parts = lsp_shapes.methods_of(6)
    assert list(parts) == ["the student", "more channels", "more layers", "more MLPs"]
    for title, methods in parts.items():
        variants = {method.fixed["variant"] for method in methods}
        assert variants == {"" if title == "the student" else title}


def settings(tmp_path: Path, **chosen: dict[str, float]) -> argparse.Namespace:
    path = tmp_path / "table.json"
    known = {name: {"config": config, "inside": True} for name, config in chosen.items()}
    path.write_text(json.dumps({"parts": {"Scores": {"chosen": known}}}))
    return argparse.Namespace(settings=path, seeds=2)


def test_the_larger_students_take_the_settings_of_table_4(tmp_path: Path) -> None:
    args = settings(tmp_path, alone={"lr": 0.1, "dropout": 0.0}, LSP={"lr": 0.2, "dropout": 0.0})
    for methods in lsp_shapes.methods_of(6).values():
        found = lsp_shapes.gather(args, methods, lambda run: {"lr": run.config["lr"]})
        assert [run["lr"] for run in found["runs"]] == [0.1, 0.1, 0.2, 0.2]
    without = settings(tmp_path, alone={"lr": 0.1, "dropout": 0.4}, LSP={"lr": 0.2})
    with pytest.raises(SystemExit, match=r"chosen for alone, no dropout \("):
        lsp_shapes.gather(without, lsp_shapes.methods_of(6)["the student"], lambda run: {})
    args = settings(tmp_path, alone={"lr": 0.1, "dropout": 0.0}, LSP={"lr": 0.2, "dropout": 0.0})
    with pytest.raises(SystemExit, match=r"chosen for LSP RBF, LSP Linear.*table\.json"):
        lsp_shapes.gather(args, lsp_shapes.methods_of(5)["Scores"], lambda run: {})


def go(run: Any) -> dict[str, Any]:
    """Return scores that a dropout adds to, more than a teacher does."""
    config = run.config
    val = 0.6 + 0.1 * config["dropout"] + 0.02 * ("weight" in config) - abs(config["lr"] - 0.01)
    return {"method": run.method, "seed": run.seed, "val": val, "acc": val + 0.001 * run.seed,
            "best_share": 0.5, "lr": config["lr"]}  # fmt: skip


def test_a_student_that_is_tuned_to_a_dropout_is_there_without_too() -> None:
    args = argparse.Namespace(settings=None, seeds=3)
    found = lsp_shapes.gather(args, lsp_shapes.methods_of(4)["Scores"], go)
    assert found["chosen"][ALONE]["config"]["dropout"] > 0.4
    assert found["chosen"][lsp_shapes.BARE]["config"] == {"lr": 0.01, "dropout": 0.0}
    budgets = {name: told["trials"] for name, told in found["chosen"].items()}
    assert set(budgets.values()) == {budgets[ALONE]}
    teachers = [{"acc": 0.9 + 0.002 * i, "val": 0.9} for i in range(3)]
    tuned, without = lsp_shapes.scores({"Scores": found}, teachers).values()
    gains = {row["model"]: row["gain over alone"] for row in tuned[2:]}
    assert set(gains) == {"KD", "FitNet", "AT", "LSP", "logits"}
    assert all(gain.startswith("-") for gain in gains.values())
    assert [row["model"] for row in without][1] == "student alone, no dropout"
    assert all(row["gain over alone"].startswith("2.00") for row in without[2:])


def test_larger_students_are_compared_with_the_first_one_seed_by_seed() -> None:
    scores = {"the student": [0.5, 0.6, 0.55], "more layers": [0.7, 0.81, 0.74]}
    parts = {
        title: {"runs": [
            {"method": ALONE, "seed": 7, "acc": 0.0, "trial": True},
            {"method": "LSP", "seed": 0, "acc": 0.1},
            *({"method": ALONE, "seed": seed, "acc": acc} for seed, acc in enumerate(values)),
        ]}
        for title, values in scores.items()
    }  # fmt: skip
    (row,) = lsp_shapes.larger(parts)
    assert (row["model"], row["above"]) == ("student alone, more layers", "student alone")
    assert row["by"].startswith("20.00 (")
    assert "not sure" not in row["p (Holm)"]


def test_one_that_is_tuned_to_none_is_there_once() -> None:
    def dry(run: Any) -> dict[str, Any]:
        return go(run) | {"val": -run.config["dropout"]}

    args = argparse.Namespace(settings=None, seeds=2)
    found = lsp_shapes.gather(args, lsp_shapes.methods_of(5)["Scores"], dry)
    assert lsp_shapes.BARE not in found["chosen"]


def test_it_takes_the_settings_of_table_4_where_they_are(tmp_path: Path) -> None:
    dropped = {"lr": 0.02, "dropout": 0.4}
    args = settings(tmp_path, **{ALONE: dropped, "LSP": {"lr": 0.01, "dropout": 0.0},
                                 lsp_shapes.BARE: {"lr": 0.04, "dropout": 0.0}})  # fmt: skip
    found = lsp_shapes.gather(args, lsp_shapes.methods_of(6)["more layers"], go)
    assert [(run["method"], run["lr"]) for run in found["runs"][-2:]] == [
        (lsp_shapes.BARE, 0.04), (lsp_shapes.BARE, 0.04)
    ]  # fmt: skip


def test_rank_correlation_is_that_of_the_order_and_a_mean_over_shapes() -> None:
    assert lsp_shapes.rank_correlation([[0, 1, 5, 9]], [[0, 10, 20, 100]]) == pytest.approx(1)
    assert lsp_shapes.rank_correlation([[0, 1, 5, 9]], [[9, 8, 7, 0]]) == pytest.approx(-1)
    both = lsp_shapes.rank_correlation([[0, 1, 2, 3], [0, 1, 2, 3]], [[0, 1, 2, 3], [3, 2, 1, 0]])
    assert both == pytest.approx(0)


def test_figure_4_has_a_row_for_each_method_and_a_column_for_each_epoch() -> None:
    found = [
        {"method": method, "epoch": epoch, "correlation": [0.5, 0.7]}
        for method in ("alone", "LSP")
        for epoch in (1, 5)
    ]
    table = lsp_shapes.figure_4(found)
    assert [row["method"] for row in table] == ["alone", "LSP"]
    assert table[0]["epoch 1"] == table[1]["epoch 5"] == "0.60 ± 0.14"


@pytest.mark.full
def test_a_table_is_made_and_made_again_from_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsp_shapes, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", *TINY, "--out", str(tmp_path / "runs")])
    seed_everything(0)
    lsp_shapes.main()
    page = tmp_path / "lsp_table4_synthetic.md"
    first = page.read_text()
    document = json.loads(page.with_suffix(".json").read_text())
    assert set(document["parts"]["Scores"]["chosen"]) == {
        ALONE, "KD", "FitNet", "AT", "LSP", "logits"
    }  # fmt: skip
    assert len(document["figure_4"]) == 4  # two methods, after the first and the last epoch
    assert all(len(each["correlation"]) == 2 for each in document["figure_4"])
    monkeypatch.setattr(lsp_shapes, "execute", _no_training(lsp_shapes.execute))
    lsp_shapes.main()
    assert page.read_text() == first


def _no_training(execute: Any) -> Any:
    def stored(run: Any, task: Any, store: Any, teacher: Any) -> Any:
        assert store.result(run) is not None
        return execute(run, task, store, teacher)

    return stored
