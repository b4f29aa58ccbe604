"""The protocol of students in bfloat16."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("tabulate")
import precision
from precision import Task, fit, students

BATCHES = [((torch.randn(8, 3),), torch.randn(8, 2)) for _ in range(4)]


def task(rate: float = 0.005) -> Task:
    model = lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))  # noqa: E731
    score = lambda model: float(model(BATCHES[0][0][0]).square().sum())  # noqa: E731
    return Task(model, model, list, BATCHES, nn.functional.mse_loss, score, "unit", (1, 2), rate)


def test_the_rate_falls_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def kept(self: torch.optim.Adam, *args: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", kept)
    fit(task(), task().student(), 2, 0)
    assert len(rates) == 8
    assert rates[0] == 0.005
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.0002


def test_only_the_seeds_that_were_asked_for_and_each_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(precision.TASKS, "tiny", task)
    path = tmp_path / "tiny.json"
    first = students("tiny", range(10, 12), path)
    assert list(first["float32"]) == list(first["bfloat16"]) == ["10", "11"]
    more = students("tiny", range(10, 13), path)
    assert list(more["float32"]) == ["10", "11", "12"]
    assert {seed: more["float32"][seed] for seed in ("10", "11")} == first["float32"]
    monkeypatch.delitem(precision.TASKS, "tiny")  # nothing is trained again
    assert students("tiny", range(11, 13), path) == more
    once = students_of_another_run(monkeypatch, tmp_path / "other.json")
    assert once["float32"]["12"] == more["float32"]["12"]


def students_of_another_run(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> dict[str, dict[str, float]]:
    """Return a seed that is trained alone: no seed depends on those before it."""
    monkeypatch.setitem(precision.TASKS, "tiny", task)
    return students("tiny", range(12, 13), path)
