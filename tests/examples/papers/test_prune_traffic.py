from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("networkx")
pytest.importorskip("tabulate")
pytest.importorskip("torchmetrics")
pytest.importorskip("tqdm")

METHODS = ["recipe", "recipe's widths from scratch"]
METHODS += ["KDIS", "KDIS at once", "KDIS's widths from scratch", "KDIS's widths from the teacher"]
SIZES = {
    "nodes": "5",
    "steps": "800",
    "seeds": "1",
    "workers": "1",
    "labelled-days": "1",
    "epochs": "2",
    "teacher-epochs": "1",
    "stride": "16",
    "teacher-width": "8",
}
OPTIONS = [text for name, size in SIZES.items() for text in (f"--{name}", size)]
OPTIONS += ["--keep", "0.6", "0.4", "--stage-epochs", "1"]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in (
        "experiment", "schedule", "traffic", "traffic_task", "traffic_report", "prune_measure",
        "prune_report",
        "prune_student", "prune_traffic", "presentation",
    ):  # fmt: skip
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("prune_traffic")


def test_runs_resumes_and_redraws(
    example: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = [*OPTIONS, "--methods", *METHODS, "--out", str(tmp_path)]
    example.main(options)
    table = capsys.readouterr().out
    folder = tmp_path / "synthetic"
    for name in ("results.html", "results.md", "results-stages.png", "results-widths.png"):
        assert (folder / name).stat().st_size > 0, name

    results = json.loads((folder / "results.json").read_text())
    teacher, *pruned = results["runs"]
    assert [run["method"] for run in results["runs"]] == ["teacher", *METHODS]
    for run in pruned:
        assert run["parameters"] <= 0.4 * teacher["parameters"]
        assert run["flops"] < teacher["flops"]
        assert run["bytes"] < teacher["bytes"]
        parts = [run[f"mae/{h}"] for h in (15, 30, 45, 60)]
        assert min(parts) <= run["mae/mean"] <= max(parts) + 2
    recipe, dense, kdis, once, scratch, sliced = pruned
    assert recipe["widths"] == dense["widths"]
    assert recipe["stages"][0]["unlabelled"].keys() == {"loss", "output"}
    assert kdis["stages"][0]["unlabelled"] == {}
    assert [stage["target"] for stage in kdis["stages"]] == [0.6, 0.4]
    assert [stage["target"] for stage in once["stages"]] == [0.4]
    # All have the same epochs in all.
    assert [len(run["history"]) for run in pruned] == [1, 2, 1, 2, 2, 2]
    assert kdis["widths"] == scratch["widths"] == sliced["widths"]
    assert scratch["history"] != sliced["history"]

    # Finished runs are read, not run again.
    monkeypatch.setattr(example, "train", lambda *_: pytest.fail("a finished run ran again"))
    example.main(options)
    assert capsys.readouterr().out == table
    monkeypatch.setattr(example, "cost", lambda *_: {"1": [2.0, 8.0], "32": [1.0, 5.0]})
    example.main([*options, "--time-again"])
    table = capsys.readouterr().out
    assert table.count("| 2.00            | 4.0x") == len(METHODS)
    (folder / "results.html").unlink()
    example.main(["--redraw", str(folder / "results.json")])
    assert capsys.readouterr().out.strip() in table
    assert (folder / "results.html").exists()


def test_an_interrupted_run_keeps_its_stages(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    options = [*OPTIONS, "--methods", "KDIS", "--out", str(tmp_path)]
    train = example.train
    monkeypatch.setattr(example, "train", kill)
    with pytest.raises(Killed):
        example.main(options)
    (path,) = (tmp_path / "synthetic" / "models").glob("*.stages.pt")
    before = path.read_bytes()
    monkeypatch.setattr(example, "train", train)
    example.main(options)
    assert path.read_bytes() == before
    run = json.loads((tmp_path / "synthetic" / "results.json").read_text())["runs"][-1]
    assert [stage["stage"] for stage in run["stages"]] == [1, 2]


def test_the_dense_student_has_new_weights_and_the_other_those_of_the_teacher(
    example: ModuleType, tmp_path: Path
) -> None:
    example.main([*OPTIONS, "--methods", "KDIS", "--out", str(tmp_path)])
    (path,) = (tmp_path / "synthetic" / "models").glob("*.stages.pt")
    (weights,) = (tmp_path / "synthetic" / "models").glob("teacher-*.pt")
    teacher = example.traffic.STGCN(
        4, 4, 12, temporal_channels=8, head_channels=16
    )  # fmt: skip
    teacher.load_state_dict(torch.load(weights, weights_only=True))
    student = example.copy_of(teacher)
    pruner = example.Pruner(student, keep=(0.6, 0.4))
    pruner.load_state_dict(torch.load(path, weights_only=True)["pruner"], shrink=True)
    own = {round(v, 6) for v in teacher.lin2.weight.flatten().tolist()}
    assert {round(v, 6) for v in student.lin2.weight.flatten().tolist()} < own
    pruner.reset_parameters()
    assert not {round(v, 6) for v in student.lin2.weight.flatten().tolist()} & own


def test_options_that_make_no_sense(
    example: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, text in (
        (["--stage-epochs", "1"], "one less than --keep"),
        (["--epochs", "4"], "leave some of --epochs"),
        (["--methods", "KDIS's widths from scratch"], "must hold KDIS"),
    ):
        with pytest.raises(SystemExit):
            example.parse(wrong)
        assert text in capsys.readouterr().err
    with pytest.raises(SystemExit, match="--dataset pemsd8 needs --root"):
        example.main(["--dataset", "pemsd8"])
