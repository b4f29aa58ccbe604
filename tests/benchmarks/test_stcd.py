"""What the tables of the STCD paper are made of, in small."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path += [
    str(Path(__file__).parents[2] / folder)
    for folder in ("benchmarks/reproduce", "examples/papers")
]
pytest.importorskip("matplotlib")
pytest.importorskip("networkx")
pytest.importorskip("tabulate")
pytest.importorskip("torchmetrics")
pytest.importorskip("tqdm")
import stcd_interpretation
import stcd_pruning
import stcd_sensitivity
import stcd_task
import stcd_teachers
import stcd_warmup
from experiment import Run, Store
from protocol import ALONE
from traffic_task import Task

from pyg_stkd.datasets.traffic import SyntheticTraffic, TrafficSeries
from pyg_stkd.distill import ResponseLoss
from pyg_stkd.nn import STGCN

SMALL = {"batch": 8, "steps": 6, "every": 3, "lr": 0.01}
DENSE = {"widths": [[4, 4, 4], [4, 4, 4], [4, 4]]}


@pytest.fixture(scope="module")
def task() -> Task:
    task = Task("tiny", SyntheticTraffic(6, 200), (0.6, 0.2, 0.2), 4, "cpu", False)
    task.num_nodes = None
    return task


@pytest.fixture(scope="module")
def teacher(task: Task) -> STGCN:
    torch.manual_seed(0)
    model = stcd_task.build({"widths": stcd_task.wide(12)}, task)
    assert isinstance(model, STGCN)
    return model.eval()


def test_a_part_of_a_network_is_what_is_nearest() -> None:
    # A chain 0-1-2-3-4-5, the strongest link of which is between 3 and 4, and an island 6.
    chain = torch.stack([torch.arange(5), torch.arange(1, 6)])
    edges = torch.cat([chain, chain.flip(0)], dim=1)
    weight = torch.tensor([0.1, 0.2, 0.3, 1.0, 0.1] * 2)
    values = torch.arange(7.0).expand(3, 7).unsqueeze(-1).clone()
    series = TrafficSeries(values, None, edges, weight, names=list("abcdefg"))
    part = stcd_task.around(series, 3)
    assert part.names == ["c", "d", "e"]
    assert part.values[0, :, 0].tolist() == [2.0, 3.0, 4.0]
    assert part.edge_index.tolist() == [[0, 1, 1, 2], [1, 2, 0, 1]]
    assert part.edge_weight.tolist() == pytest.approx([0.3, 1.0, 0.3, 1.0])
    assert stcd_task.around(series, 100).num_nodes == 6  # the island cannot be reached


def test_stations_are_linked_with_the_nearest() -> None:
    apart = torch.tensor([[0.0, 1.0, 5.0], [1.0, 0.0, 2.0], [5.0, 2.0, 0.0]])
    links, length = stcd_task.nearest(apart, 1)
    assert links.tolist() == [[1, 0, 1], [0, 1, 2]]
    assert length.tolist() == [1.0, 1.0, 2.0]


def test_the_odds_of_the_teacher_are_a_share() -> None:
    response, spatial, temporal = stcd_task.losses_of(
        {"odds": 3.0, "spatial": 10.0, "beta": 0.5, "sigma": 2.0}, ("a", "b")
    )
    assert isinstance(response, ResponseLoss)
    assert (response.alpha, response.delta) == (0.75, 0.5)
    assert (spatial.weight, temporal.weight) == (10.0, 1.0)
    assert spatial.kernel.sigma == 2.0  # type: ignore[attr-defined]
    assert len(stcd_task.losses_of({"odds": 1.0, "temporal": 0.0}, ("a", "b"))) == 2


@pytest.mark.parametrize("stage_steps", [2, 0])
@pytest.mark.parametrize("odds", [None, 1.0], ids=["labels alone", "distilled"])
def test_pruned_students_have_as_many_steps_as_others(
    task: Task, teacher: STGCN, tmp_path: Path, odds: float | None, stage_steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    count = 0
    step = torch.optim.Adam.step

    def counted(self: torch.optim.Adam, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    config: dict[str, Any] = SMALL | {"keep": [0.5, 0.3], "min_width": 2}
    config |= {"stage_steps": stage_steps}
    config |= {} if odds is None else {"odds": odds}
    store = Store(tmp_path)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    result = stcd_task.train(Run("pruned", 0, config), task, store, teacher)
    assert count == SMALL["steps"]
    assert [stage["share"] <= target for stage, target in zip(
        result["stages"], config["keep"], strict=True)] == [True, True]  # fmt: skip
    assert result["parameters"] == result["stages"][-1]["parameters"]
    assert (
        sum(p.numel() for p in stcd_task.build({"widths": result["left"]}, task).parameters())
        == (result["parameters"])
    )
    assert all((teacher.state_dict()[name] == value).all() for name, value in before.items())
    assert 0 <= result["best_share"] <= 1
    assert {"commit", "machine", "seed", "mae/15", "mae/mean"} <= set(result)
    count = 0
    assert stcd_task.train(Run("pruned", 0, config), task, store, teacher)["val"] == result["val"]
    assert count == 0  # what is finished is not run again


def test_a_student_may_be_of_another_class_than_its_teacher(
    task: Task, teacher: STGCN, tmp_path: Path
) -> None:
    config = SMALL | {"model": "ASTGCN", "width": 2, "odds": 1.0}
    result = stcd_task.train(Run("across", 0, config), task, Store(tmp_path), teacher)
    assert result["left"] is None
    assert result["mae/mean"] > 0


def found_of(excess: list[float]) -> dict[str, Any]:
    """Return what a table is made of: teachers at 2 and better, students above them."""
    teachers = [
        {"method": "teacher", "seed": s, "mae/mean": 2.0 - 0.1 * s, "val": -2.0 + 0.1 * s,
         "parameters": 1000, "flops": 10000, "left": [[4, 4, 4], [4, 4]]}
        for s in range(len(excess))
    ]  # fmt: skip
    best = teachers[-1]["mae/mean"]
    runs = []
    for rank, name in enumerate(stcd_pruning.NAMES_SHOWN):
        if name != "teacher":
            runs += [
                {"method": name, "seed": s, "val": -best, "best_share": 0.5, "parameters": 30,
                 "mae/mean": best * (1 + e / 100) + 0.01 * rank * (1 + 0.01 * s),
                 "flops": 400, "left": [[4, 4, 4], [4, 4]]}
                for s, e in enumerate(excess)
            ]  # fmt: skip
    chosen = {"config": {"lr": 0.01}, "trials": 12, "inside": True}
    return {"teachers": teachers, "runs": runs, "persistence": 3.0,
            "chosen": dict.fromkeys(stcd_pruning.NAMES_SHOWN, chosen)}  # fmt: skip


def told_of(found: dict[str, Any]) -> dict[str, str]:
    """Return the verdict of each method, by its words."""
    return {part.split(", of ")[0]: part for part in stcd_pruning.verdicts(found).split("; ")}


@pytest.mark.parametrize(
    ("excess", "words"),
    [([1.0, 1.1, 0.9], ": within 3 %"), ([9.0, 9.1, 8.9], ": not within 3 %"),
     ([1.0, 4.0, 2.0], ": not told from 3 %")],
    ids=["within", "not", "open"],
)  # fmt: skip
def test_the_verdict_is_what_the_numbers_say(excess: list[float], words: str) -> None:
    told = told_of(found_of(excess))
    assert set(told) == {n for k, n in stcd_pruning.NAMES_SHOWN.items() if k != "teacher"}
    assert told[stcd_pruning.NAMES_SHOWN[ALONE]].endswith(words)
    assert all("of 3.0 % of the parameters" in part for part in told.values())


def test_what_the_paper_does_not_claim_is_corrected() -> None:
    found = found_of([0.0, 0.0, 0.0])
    shown = stcd_pruning.NAMES_SHOWN
    for run in found["runs"]:
        run["mae/mean"] = 1.8 * (1 + [1.3, 1.8, 0.8][run["seed"]] / 100)  # p = 0.028
    told = told_of(found)
    assert told[shown[stcd_pruning.BOTH]].endswith(": within 3 %")
    assert told[shown[ALONE]].endswith(": not told from 3 %")


def test_the_best_teacher_is_that_of_validation() -> None:
    found = found_of([1.0, 2.0, 3.0])
    best = stcd_pruning.above(found, ALONE, best=True)
    assert best == pytest.approx([1.0 + 1 / 1.8, 2.0 + 1.01 / 1.8, 3.0 + 1.02 / 1.8])
    own = stcd_pruning.above(found, ALONE, best=False)
    assert own[0] < 0 < own[2]  # the first teacher is worse than its student


def test_one_teacher_is_that_of_all_students(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def train(run: Run, task: Task, store: Store, teacher: Any) -> dict[str, Any]:
        asked.append((run.method, run.seed, run.config.get("teacher"), teacher))
        of = {"method": run.method, "seed": run.seed, "left": [[4, 4, 4], [4, 4]]}
        return of | {"mae/mean": 2.0, "val": -2.0}

    found = {s: (f"model {s}", {"seed": s, "val": v}) for s, v in enumerate([-3.0, -1.0, -2.0])}
    monkeypatch.setattr(stcd_pruning, "train", train)
    monkeypatch.setattr(stcd_pruning, "teachers_of", lambda *args, **kwargs: dict(found))
    methods = [ALONE, "pruned", stcd_pruning.BOTH, "widths"]
    args = options(untuned=True, one_teacher=True, methods=methods)
    made = stcd_pruning.experiment(args, task, Store(tmp_path))
    assert [teacher["seed"] for teacher in made["teachers"]] == [1, 1, 1]
    assert {teacher for *_, teacher in asked} == {"model 1"}
    assert {(method, of) for method, _, of, _ in asked} == {
        (ALONE, None), ("pruned", 1), (stcd_pruning.BOTH, 1), ("widths", None)
    }  # fmt: skip
    assert {seed for _, seed, *_ in asked} == {0, 1, 2}


def test_errors_and_pairs_have_their_sign() -> None:
    found = found_of([1.0, 1.1, 0.9])
    table = {row["model"]: row for row in stcd_pruning.scores(found)}
    assert table["dense student, distilled"]["gain over alone"].startswith("-0.01")
    assert table["teacher"]["validation"].startswith("1.90")
    pairs = {(row["method"], row["against"]): row for row in stcd_pruning.pairs(found)}
    row = pairs["teacher pruned, distilled", "its widths from scratch, distilled"]
    assert row["error lower by"].startswith("0.02")


def test_a_table_may_be_of_some_methods() -> None:
    found = found_of([1.0, 1.1, 0.9])
    some = (ALONE, "distilled")
    found["runs"] = [run for run in found["runs"] if run["method"] in some]
    found["chosen"] = {name: found["chosen"][name] for name in some}
    assert [row["model"] for row in stcd_pruning.scores(found)] == [
        "teacher", "dense student alone", "dense student, distilled"
    ]  # fmt: skip
    assert len(stcd_pruning.pairs(found)) == 1
    assert len(stcd_pruning.sizes(found)) == 3


def test_methods_have_equal_budgets() -> None:
    methods = stcd_pruning.methods_of(DENSE["widths"], 30)
    assert len({sum(len(axis.values) for axis in m.axes) for m in methods}) == 1
    assert [m.name for m in methods] == [n for n in stcd_pruning.NAMES_SHOWN if n != "teacher"]


def test_untuned_methods_have_the_settings_that_they_start_with() -> None:
    methods = stcd_pruning.methods_of(DENSE["widths"], 30)[:2]
    args = options(untuned=True)
    found = stcd_task.gather(args, methods, lambda run: {"method": run.method} | run.config)
    assert not stcd_task.is_tuned(args)
    assert {run["lr"] for run in found["runs"]} == {methods[0].start["lr"]}
    assert len(found["runs"]) == 2 * args.seeds
    assert "no trial" in stcd_pruning.tuning(found | {"options": vars(args)})
    told = stcd_pruning.tuning(found | {"options": {"settings": "other.json"}})
    assert told == "Settings are those that other.json has found."


@pytest.mark.parametrize("step", [0.03, 0.2, 0.5, 0.8])
def test_stages_end_at_what_is_to_be_left(step: float) -> None:
    shares = stcd_sensitivity.stages(step)
    assert shares[-1] == 0.03
    assert shares == sorted(shares, reverse=True)
    assert all(b / a >= step - 1e-9 for a, b in zip([1.0, *shares], shares, strict=False))
    assert len(shares) == {0.03: 1, 0.2: 3, 0.5: 6, 0.8: 16}[step]


def test_rates_that_rise_are_compared_seed_by_seed() -> None:
    errors = {0.0: [4.0, 9.0, 5.0], 0.1: [3.0, 4.0, 4.5]}
    runs = [
        {"mae/mean": error, "config": {"lr": lr} | ({"rise": rise} if rise else {})}
        for lr in stcd_warmup.RATES
        for rise, known in errors.items()
        for error in known
    ]
    first, second, *_ = stcd_warmup.students({"runs": runs})
    assert first["error"] == "6.00 ± 2.65"
    assert second["by seed"] == "3.00, 4.00, 4.50"
    assert second["lower by"].startswith("2.167 (")
    assert not first["lower by"]


def test_a_rate_rises_for_its_share_of_the_steps_and_falls_to_zero() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = stcd_task.rises(optimizer, 0.01, 100, 0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < 100 else None
    assert rates.index(max(rates)) == 9
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] < 1e-6
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_cell_sets_what_its_axes_say() -> None:
    grids = stcd_sensitivity.GRIDS
    kernel = stcd_sensitivity.settings(grids["kernel"], "median", 10.0)
    assert kernel == {"odds": 1.0, "sigma": "median", "spatial": 10.0, "temporal": 10.0}
    response = stcd_sensitivity.settings(grids["response"], 10.0, stcd_sensitivity.AUTO)
    assert response["odds"] == 10.0
    assert response["beta"] is None
    pruning = stcd_sensitivity.settings(grids["pruning"], 0.2, 3)
    assert pruning["stage_steps"] == 3
    assert pruning["keep"] == stcd_sensitivity.stages(0.2)
    assert all(
        grid.default[0] in grid.row_values and grid.default[1] in grid.column_values
        for grid in grids.values()
    )


@pytest.mark.parametrize("lead", [0.1, 0.001], ids=["clear", "chance"])
def test_a_default_stays_where_chance_may_have_made_the_best(lead: float) -> None:
    grid = stcd_sensitivity.GRIDS["kernel"]
    noise = (0.0, 0.01, -0.01)
    cells = [
        {"row": row, "column": column, "runs": [
            {"val": -(2.0 + (0.5 if (row, column) not in (grid.default, (1.0, 1.0)) else 0.0)
                      - (lead + n if (row, column) == (1.0, 1.0) else 0.0)), "mae/mean": 2.0}
            for n in noise
        ]}
        for row in grid.row_values for column in grid.column_values
    ]  # fmt: skip
    told = stcd_sensitivity.recommend({"grids": {"kernel": cells}}, "kernel")
    assert (told["best"]["row"], told["best"]["column"]) == (1.0, 1.0)
    chosen = (told["chosen"]["row"], told["chosen"]["column"])
    assert chosen == ((1.0, 1.0) if lead == 0.1 else grid.default)


def test_several_teachers_are_of_different_seeds() -> None:
    for seed in range(5):
        assert len(set(stcd_teachers.others(seed, 5, 3))) == 3
        assert stcd_teachers.others(seed, 5, 3)[0] == seed
    assert stcd_teachers.others(1001, 5, 3) == [1001, 1000, 0]


def agreements(**values: list[float]) -> dict[str, Any]:
    """Return what the table is made of: one kind of agreement, of some methods."""
    some = dict.fromkeys(stcd_interpretation.METHODS, values[ALONE]) | values
    return {"runs": [
        {"method": method, "seed": seed, "agreement": {"edges": value}}
        for method, told in some.items() for seed, value in enumerate(told)
    ]}  # fmt: skip


def test_what_cannot_be_compared_is_left_out_and_told() -> None:
    nan = float("nan")
    some = agreements(
        alone=[0.1, 0.2, nan, 0.3], distilled=[0.5, 0.7, 0.6, nan], pruned=[nan] * 4,
        **{stcd_pruning.BOTH: [nan, nan, 0.4, 0.6], "widths distilled": [0.5, nan, nan, nan]},
    )  # fmt: skip
    cells = [row["edges"] for row in stcd_interpretation.table(some)]
    assert cells[0] == "0.20 ± 0.10 of 3 seeds"
    assert cells[1] == "0.60 ± 0.10 of 3 seeds, +0.45 of 2 seeds (not sure)"
    assert cells[2] == ""
    assert cells[3] == "0.50 ± 0.14 of 2 seeds"  # one pair has no interval
    assert cells[4] == "0.50 of 1 seeds"


def test_agreements_are_corrected_for_their_number() -> None:
    alone, distilled = [0.1, 0.2, 0.3, 0.2], [0.30, 0.38, 0.53, 0.4]
    found = agreements(alone=alone, distilled=distilled)
    assert stcd_interpretation.table(found)[1]["edges"] == "0.40 ± 0.10, +0.20"
    rough = agreements(alone=alone, distilled=[0.3, 0.6, 0.5, 0.3])  # p = 0.038, of four
    assert stcd_interpretation.table(rough)[1]["edges"].endswith("+0.22 (not sure)")


def options(**more: Any) -> argparse.Namespace:
    return argparse.Namespace(**{
        "dataset": "metr-la-week", "sensors": 6, "stride": 4, "batch": 8, "steps": 4, "width": 8,
        "teacher_steps": 4, "seeds": 3, "dense": json.dumps(DENSE["widths"]), "stage_steps": 1,
        "lr": 0.01, "ast_teacher": 2, "ast_student": 2, "students": ["STGCN"],
        "teachers": ["STGCN", "3 STGCN"], "grids": ["kernel"], "settings": None,
        "untuned": False, "one_teacher": False, "methods": list(stcd_pruning.NAMES_SHOWN),
    } | more)  # fmt: skip


STORED = sorted(stcd_task.RESULTS.glob("stcd_*.json"))


@pytest.mark.parametrize("path", STORED, ids=[path.stem for path in STORED])
def test_stored_pages_are_written_from_raw_results(path: Path, tmp_path: Path) -> None:
    scripts = {
        "pruning": stcd_pruning, "sensitivity": stcd_sensitivity, "teachers": stcd_teachers,
        "interpretation": stcd_interpretation, "warmup": stcd_warmup,
    }  # fmt: skip
    for kept in path.parent.glob(f"{path.stem}.txt"):
        shutil.copy(kept, tmp_path)
    scripts[path.stem.split("_")[1]].show(json.loads(path.read_text()), tmp_path / path.name)
    page = (tmp_path / path.name).with_suffix(".md").read_text()
    assert page == path.with_suffix(".md").read_text()


@pytest.mark.full
@pytest.mark.parametrize("name", ["pruning", "sensitivity", "teachers", "interpretation", "warmup"])
def test_a_script_starts_by_itself(name: str) -> None:
    path = Path(stcd_task.__file__).with_name(f"stcd_{name}.py")
    told = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "--untuned" in told.stdout


@pytest.mark.full
@pytest.mark.parametrize("name", ["pruning", "sensitivity", "teachers", "warmup"])
def test_a_table_is_made_from_start_to_end(name: str, task: Task, tmp_path: Path) -> None:
    script = {"pruning": stcd_pruning, "sensitivity": stcd_sensitivity, "teachers": stcd_teachers,
              "warmup": stcd_warmup}  # fmt: skip
    found = script[name].experiment(options(), task, Store(tmp_path / "runs"))
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(found))
    script[name].show(json.loads(path.read_text()), path)
    page = path.with_suffix(".md").read_text()
    assert "METR-LA-week" in page
    assert "nan" not in page
    if name == "pruning":
        costs = stcd_pruning.measure(found, task)
        assert set(costs) == set(stcd_pruning.NAMES_SHOWN)
        stcd_pruning.show(found | {"costs": costs}, path)
        assert "faster at 32" in path.with_suffix(".md").read_text()
        more = options(windows=2, seeds=2)
        figures, one = stcd_interpretation.experiment(more, found, task, Store(tmp_path / "runs"))
        stcd_interpretation.show(json.loads(json.dumps(figures)), tmp_path / "reasons.json")
        assert "teacher pruned, distilled" in (tmp_path / "reasons.md").read_text()
        kept = {each.layer: int(each.kept.sum()) for each in one.channels}
        both = stcd_pruning.final(found)[stcd_pruning.BOTH][0]
        assert kept["lin1"] == both["left"][-1][1]
