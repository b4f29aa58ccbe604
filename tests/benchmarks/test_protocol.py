"""The rules that the tables of the papers are made by."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "reproduce"))
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
from protocol import (
    ALONE,
    FURTHEST,
    TUNING,
    Axis,
    Method,
    collect,
    differences,
    late_gain,
    rows,
    settled,
    tune,
)

from pyg_stkd.distill import Epoch


def test_a_grid_whose_best_is_at_an_edge_is_extended() -> None:
    axis = Axis("lr", (1.0, 2.0, 4.0), 2.0)
    tried: list[float] = []

    def score(value: float) -> float:
        tried.append(value)
        return -abs(math.log2(value) - 3)  # best at 8

    assert axis.search(score, more=2) == (8.0, True)
    assert tried == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_grid_whose_best_is_inside_is_refined() -> None:
    axis = Axis("lr", (1.0, 4.0, 16.0), 4.0)
    best, inside = axis.search(lambda value: -abs(math.log2(value) - 2.8))
    assert (best, inside) == (8.0, True)


def test_zero_is_a_natural_end() -> None:
    tried: list[float] = []
    axis = Axis("decay", (0.0, 1.0, 2.0), 2.0)
    best, inside = axis.search(lambda value: tried.append(value) or -value)  # type: ignore[func-returns-value]
    assert (best, inside, tried) == (0.0, True, [0.0, 1.0, 2.0, 0.5])


def test_a_grid_that_ends_too_early_is_said() -> None:
    assert Axis("lr", (1.0, 2.0), 2.0).search(lambda value: value) == (4.0, False)


def test_below_the_least_value_comes_zero() -> None:
    tried: list[float] = []
    axis = Axis("weight", (0.1, 1.0), 10.0, least=0.01)
    best, inside = axis.search(lambda value: tried.append(value) or -value, more=3)  # type: ignore[func-returns-value]
    assert (best, inside) == (0.0, True)
    assert tried == pytest.approx([0.1, 1.0, 0.01, 0.0, 0.005])


def test_nothing_is_tried_above_the_most_that_may_be() -> None:
    tried: list[float] = []
    axis = Axis("dropout", (0.0, 0.4), 1.5, most=0.95)
    best, inside = axis.search(lambda value: tried.append(value) or value, more=3)  # type: ignore[func-returns-value]
    assert (best, inside) == (pytest.approx(0.9), True)
    assert tried == pytest.approx([0.0, 0.4, 0.6, 0.9, math.sqrt(0.54)])


def go(run: Any) -> dict[str, Any]:
    offset = {"alone": 0.0, "better": 0.1, "same": 0.0}[run.method]
    noise = 0.01 * math.sin(7 * run.seed + len(run.method))
    test = 0.5 + offset + noise
    val = test - abs(run.config["lr"] - 2.0)
    return {"method": run.method, "seed": run.seed, "val": val, "f1": test, "best_share": 0.5,
            "lr": run.config["lr"]}  # fmt: skip


def methods() -> list[Method]:
    axes = (Axis("lr", (1.0, 2.0, 4.0), 2.0), Axis("weight", (1.0, 2.0, 4.0), 2.0))
    return [Method(n, {"kind": n}, {"lr": 1.0, "weight": 1.0}, axes) for n in
            (ALONE, "better", "same")]  # fmt: skip


def test_settings_of_another_table_are_taken_without_a_trial() -> None:
    chosen = {m.name: {"config": {"lr": 0.5}, "trials": 10, "inside": True} for m in methods()}
    found = settled(methods(), chosen, 3, go)
    assert [(run["method"], run["seed"]) for run in found["runs"]] == [
        (method.name, seed) for method in methods() for seed in range(3)
    ]
    assert {run["val"] - run["f1"] for run in found["runs"]} == {-1.5}  # of the rate given
    assert {told["trials"] for told in found["chosen"].values()} == {0}


def test_tuning_seeds_are_not_reported_and_budgets_are_equal() -> None:
    found = collect(methods(), 5, go)
    final = [run for run in found["runs"] if "trial" not in run]
    assert {run["seed"] for run in final} == set(range(5))
    assert {run["seed"] for run in found["runs"] if "trial" in run} == set(TUNING)
    assert len({chosen["trials"] for chosen in found["chosen"].values()}) == 1
    assert found["chosen"]["better"]["config"]["lr"] == 2.0


def test_a_run_that_broke_down_is_never_chosen() -> None:
    def broken(run: Any) -> dict[str, Any]:
        result = go(run)
        return result | ({"val": math.nan} if run.config["lr"] == 2.0 else {})

    assert tune(methods()[:1], broken)[ALONE].config["lr"] != 2.0


def test_all_methods_have_the_trials_of_the_one_that_needs_most() -> None:
    def climbing(run: Any) -> dict[str, Any]:
        best = 13.0 if run.method == "better" else 2.0  # 16 is next to it, from 4 by 8 and 32
        return go(run) | {"val": -abs(run.config["lr"] - best) - run.config["weight"]}

    found = tune([replace(m, axes=(m.axes[0],)) for m in methods()], climbing)
    assert found["better"].config["lr"] == 16.0
    assert all(trials.inside for trials in found.values())
    values = {name: {run["lr"] for run in trials.runs} for name, trials in found.items()}
    assert {name: len(tried) for name, tried in values.items()} == dict.fromkeys(found, 6)
    assert values["better"] == {1.0, 2.0, 4.0, 8.0, 16.0, 32.0}


def test_a_search_beside_another_has_as_many_trials() -> None:
    one = [replace(methods()[0], axes=(Axis("lr", (1.0, 2.0, 4.0), 2.0),))]
    assert len(tune(one, go)[ALONE].runs) == 8
    assert len(tune(one, go, trials=11)[ALONE].runs) == 12
    first = replace(one[0], axes=(Axis("weight", (1.0, 2.0), 2.0), *one[0].axes))
    assert len(tune([first], go, trials=14)[ALONE].runs) == 14  # the last axis makes up for it


def test_methods_that_cannot_be_tuned_alike() -> None:
    assert collect([], 2, go) == {"runs": [], "chosen": {}}
    with pytest.raises(ValueError, match=r"'methods' must have as many axes each \(got \[1, 2\]\)"):
        tune([methods()[0], replace(methods()[1], axes=methods()[1].axes[:1])], go)
    for values in ((1.0,), (2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match=r"'values' must be two or more that rise \(got "):
            Axis("lr", values, 2.0)


def test_a_search_that_never_ends_is_given_up_and_told() -> None:
    found = tune(methods(), lambda run: go(run) | {"val": run.config["lr"]})
    assert not any(trials.inside for trials in found.values())
    assert found[ALONE].config["lr"] == 4.0 * 2.0**FURTHEST


def test_a_table_marks_what_is_not_sure() -> None:
    found = collect(methods(), 5, go)
    teachers = [{"f1": 0.7 + 0.01 * i, "val": 0.7} for i in range(5)]
    names = {ALONE: "student alone", "better": "A", "same": "B"}
    table = {row["model"]: row for row in rows(found, teachers, names, "f1")}
    assert "not sure" not in table["A"]["p (Holm)"]
    assert "not sure" in table["B"]["p (Holm)"]
    assert table["A"]["gain over alone"].startswith("10.")
    assert "gain over alone" not in table["student alone"]


def test_what_validation_won_late_is_of_the_last_tenth() -> None:
    errors = {6: 9.0, 7: 7.0, 8: 8.0, 9: 6.5, 10: 6.75}
    epochs = [Epoch(i, i, {}, {}, error, True, 0.01) for i, error in errors.items()]
    assert late_gain(epochs, 10) == 0  # best at the 9th step of 10
    assert late_gain(epochs, 9) == 0.5  # 7.0 at the 7th of 9
    assert late_gain(epochs, 5) == 2.5  # before the last tenth nothing is known but the first
    broken = replace(epochs[0], metric=math.nan)
    assert late_gain([broken, *epochs[1:]], 9) == 0.5
    assert math.isnan(late_gain([broken], 9))


def test_a_table_tells_what_was_won_late_if_all_runs_do() -> None:
    found = collect(methods(), 3, lambda run: go(run) | {"late_gain": 0.01 * run.seed})
    teachers = [{"f1": 0.7, "val": 0.7}] * 3
    names = {ALONE: "alone", "better": "A"}
    told = [row["won in the last tenth"] for row in rows(found, teachers, names, "f1")]
    assert told == ["", "1.00", "1.00"]  # the mean of 0, 1 and 2 percent
    del next(run for run in found["runs"] if run["method"] == "better" and "trial" not in run)[
        "late_gain"
    ]
    assert "won in the last tenth" not in rows(found, teachers, names, "f1")[-1]


def test_errors_that_fall_are_gains() -> None:
    found = collect(methods(), 3, go)
    teachers = [{"f1": 0.7, "val": 0.7}] * 3
    table = rows(found, teachers, {ALONE: "alone", "better": "A"}, "f1", larger=False)
    assert table[-1]["gain over alone"].startswith("-10.")


def test_differences_are_paired_by_seed() -> None:
    runs = [{"method": m, "seed": s, "f1": f1} for m, s, f1 in (
        ("a", 0, 0.5), ("a", 1, 0.7), ("a", 2, 0.9), ("b", 2, 0.8), ("b", 0, 0.4), ("b", 1, 0.61),
    )]  # fmt: skip
    tried = {"method": "a", "seed": 0, "trial": 1, "f1": 9.0}
    names = {"a": "A", "b": "B"}
    (row, back) = differences({"runs": [tried, *runs]}, [("a", "b"), ("b", "a")], names, "f1")
    assert (row["model"], row["above"]) == ("A", "B")
    assert row["by"].startswith("9.67 (")
    assert back["by"].startswith("-9.67 (")
    assert "not sure" not in row["p (Holm)"]
