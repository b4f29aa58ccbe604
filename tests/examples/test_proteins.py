from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

METHODS = ["teacher", "student", "labelled", "unlabelled", "LSP", "pruned", "all labels"]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["proteins.py", *args])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(folder / "proteins.py"), run_name="__main__")


@pytest.mark.filterwarnings("ignore:.*is blind here")
@pytest.mark.parametrize("student", ["shallow", pytest.param("paper", marks=pytest.mark.full)])
def test_every_method_runs_resumes_and_is_drawn(
    student: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ("--scale", "0.02", "--steps", "2", "--seeds", "2", "--workers", "1")
    args += ("--student", student, "--out", str(tmp_path))
    run(folder, monkeypatch, *args)
    first = capsys.readouterr().out
    stem = tmp_path / student
    results = json.loads((stem / "results.json").read_text())
    assert [r["method"] for r in results] == ["teacher", *(m for m in METHODS[1:] for _ in "12")]
    assert results[0]["parameters"] > 17 * results[1]["parameters"]
    for result in results:
        assert 0 <= result["f1"] <= 1
    assert "has seen the labels of 16 graphs that the student has not" in first
    assert "data:image/png" in (stem / "results.html").read_text()
    run(folder, monkeypatch, *args)  # everything is there: nothing is trained again
    assert capsys.readouterr().out == first
    run(folder, monkeypatch, "--redraw", str(stem / "results.json"))
    assert capsys.readouterr().out.strip() in first


def test_trials_of_the_student_alone(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ("--scale", "0.02", "--steps", "2", "--workers", "1", "--out", str(tmp_path))
    run(folder, monkeypatch, *args, "--tune")
    stem = tmp_path / "shallow-trials"
    results = json.loads((stem / "results.json").read_text())
    assert {r["seed"] for r in results} == {1000, 1001}
    configs = [tuple(r["config"].get(k, 0) for k in ("lr", "decay", "times")) for r in results]
    assert len(set(configs)) == 8  # no budget below that of what is distilled
    assert all(r["method"] == "student" and r["trial"] for r in results)
    steps = {r["config"].get("times", 1): r["history"][-1][0] for r in results}
    assert steps == {0.5: 1, 1: 2, 2.0: 4}
    assert "| lr 0.02, decay 0, times 1 " in capsys.readouterr().out


def test_what_is_said_follows_the_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    from proteins import in_words, micro_f1

    def results(gain: float, spread: float) -> list[dict[str, object]]:
        rows = [{"method": "teacher", "seed": 0, "f1": 0.90, "parameters": 36, "pace": 6.04}]
        for seed in range(3):
            rows.append({"method": "student", "seed": seed, "f1": 0.80})
            for method in ("unlabelled", "pruned"):
                f1 = 0.80 + gain + spread * (seed - 1)
                rows.append({"method": method, "seed": seed, "f1": f1, "parameters": 2})
        return rows

    assert "5.0 (3.8 to 6.2) points, 50% (38% to 62%) of the" in in_words(results(0.05, 0.005))
    assert "cannot tell from 0" not in in_words(results(0.05, 0.005))
    assert "cannot tell from 0" in in_words(results(0.01, 0.05))
    near = results(0.05, 0.005)
    for run in near:
        if run["method"] == "student":
            run["f1"] = 0.80 + 0.15 * float(str(run["seed"]))  # 10 points below, 5 and 20 above
    told = in_words(near)
    assert "points, of a lead of the teacher's that these seeds cannot tell from 0" in told
    assert "inf" not in told
    size = "The student has 1/18 of the teacher's parameters and answers 6.0 times as fast."
    assert size in in_words(results(0.05, 0.005))

    import torch

    y = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    said = torch.tensor([[1.0, 1.0, -1.0, -1.0]])  # one hit, one false alarm, one miss
    assert micro_f1(lambda x, graph: x, [(said, None, y)]) == pytest.approx(2 / 4)
