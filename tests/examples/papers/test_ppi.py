from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

LOSSES = ("recipe", "KD", "FitNet", "AT", "LSP", "LSP-raw")
METHODS = ("teacher", "student", *LOSSES)
SMALL = ("--scale", "0.02", "--epochs", "1", "--teacher-epochs", "1", "--workers", "1")


def run(examples: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["ppi.py", *args])
    runpy.run_path(str(examples / "ppi.py"), run_name="__main__")


@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_every_method_runs_resumes_and_is_drawn(
    examples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = (*SMALL, "--seeds", "1", "--out", str(tmp_path), "--methods", *LOSSES)
    run(examples, monkeypatch, *args)
    first = capsys.readouterr().out
    folder = tmp_path / "synthetic"
    results = json.loads((folder / "results.json").read_text())
    assert [r["method"] for r in results] == list(METHODS)
    assert results[0]["parameters"] > 15 * results[1]["parameters"]
    of_student = [{k: r["config"].get(k) for k in ("student", "labelled")} for r in results]
    assert of_student[0] == {"student": None, "labelled": None}
    assert of_student[1:] == [{"student": "shallow", "labelled": 4}] * (len(METHODS) - 1)
    assert "labels of the first 4 graphs" in (folder / "results.md").read_text()
    for result in results:
        assert 0 < result["f1"] < 1
        assert f"{100 * result['f1']:.2f}" in first
        assert result["machine"]["torch"]
    assert "data:image/png" in (folder / "results.html").read_text()
    raw = {path: path.stat().st_mtime_ns for path in (folder / "raw").iterdir()}
    assert len(raw) == len(METHODS)

    run(examples, monkeypatch, *args)  # everything is there: nothing is trained again
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (folder / "raw").iterdir()} == raw

    table = (folder / "results.md").read_text()
    (folder / "results.md").unlink()
    run(examples, monkeypatch, "--redraw", str(folder / "results.json"))
    assert (folder / "results.md").read_text() == table


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*is blind here")
def test_the_regime_of_the_paper(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ("--student", "paper", "--labelled", "20", "--methods", "recipe")
    run(examples, monkeypatch, *SMALL, "--seeds", "1", "--out", str(tmp_path), *own)
    results = json.loads((tmp_path / "synthetic" / "results.json").read_text())
    assert results[1]["parameters"] == results[2]["parameters"] == 185_958
    assert [r["config"].get("labelled") for r in results] == [None, 20, 20]


def test_students_learn_from_their_labels_alone_for_as_many_steps(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ppi

    seen: list[int] = []
    taught = ppi.of_rows

    def of_rows(out: Tensor, target: tuple[Tensor, Any]) -> Tensor:
        seen.append(target[0].data_ptr())
        return taught(out, target)

    monkeypatch.setattr(ppi, "of_rows", of_rows)
    task = ppi.load(ppi.parse(SMALL))
    first = [data.y.data_ptr() for data in task.splits["train"]]
    assert len(first) == 20
    common = {"lr": 0.01, "dropout": 0.0, "epochs": 2, "patience": 2}
    for labelled in (None, 4):
        seen.clear()
        config = common | ({} if labelled is None else {"student": "shallow", "labelled": labelled})
        method = "teacher" if labelled is None else "student"
        ppi.execute(ppi.Run(method, 0, config), task, ppi.Store(tmp_path), None)
        assert len(seen) == 40
        assert set(seen) == set(first[:labelled])


def test_a_missing_folder_is_said_plainly(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="--dataset pcg needs --root"):
        run(examples, monkeypatch, "--dataset", "pcg")
    with pytest.raises(FileNotFoundError, match=r"pcg\.npz"):
        run(examples, monkeypatch, "--dataset", "pcg", "--root", "/nonexistent")


def test_the_share_of_a_gap_that_is_noise_is_not_given() -> None:
    from ppi_report import summarize

    def results(teacher: float) -> list[dict[str, object]]:
        f1 = {"teacher": teacher, "student": 0.6}
        return [
            {
                "method": m, "seed": s, "f1": f1.get(m, 0.7) + 0.01 * s * (m == "teacher"),
                "ap": 0.5, "best_epoch": 3,
                "latency_ms": 1.0, "parameters": 10,
                "config": {"lr": 0.1, "dropout": 0.0, "weight": 1.0},
            }
            for m in METHODS for s in (0, 1)
        ]  # fmt: skip

    columns = {row["model"]: row for row in summarize(results(0.8))}
    assert columns["student + LSP"]["gap closed"] == "49% (37% to 71%)"
    assert columns["student + LSP"]["gain over alone"].startswith("10.00 (")
    assert columns["teacher"]["gap closed"] == columns["student"]["gap closed"] == ""
    one = [r for r in results(0.8) if (r["method"], r["seed"]) != ("teacher", 1)]  # for all seeds
    columns = {row["model"]: row for row in summarize(one)}
    assert columns["student + LSP"]["gap closed"] == "50% (50% to 50%)"
    columns = {row["model"]: row for row in summarize(results(0.605))}
    assert columns["student + LSP"]["gap closed"] == "no clear gap"
