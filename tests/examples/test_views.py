from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")


@pytest.fixture
def views_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    import views_task

    return views_task


@pytest.mark.parametrize(
    ("task", "views"),
    [
        ("shapes", ["rotated, scaled and jittered", "half of the points another cloud's"]),
        pytest.param(
            "proteins", ["mixed features", "a fifth of the edges dropped"], marks=pytest.mark.full
        ),
        pytest.param(
            "traffic", ["jittered", "shifted by 5 to 15 minutes", "mixed windows"],
            marks=pytest.mark.full,
        ),
    ],
)  # fmt: skip
def test_every_view_runs_resumes_and_is_drawn(
    task: str,
    views: list[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    args = ["views.py", task, "--small", "--seeds", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "argv", args)
    runpy.run_path(str(folder / "views.py"), run_name="__main__")
    first = capsys.readouterr().out
    results = json.loads((tmp_path / task / "results.json").read_text())
    assert [run["method"] for run in results] == [v for v in ("none", *views) for _ in "12"]
    assert len({json.dumps(run["config"]) for run in results}) == 1  # equal steps and rates
    assert all(len(run["history"]) >= 1 for run in results)
    assert first.count("to") >= len(views)  # intervals
    runpy.run_path(str(folder / "views.py"), run_name="__main__")  # nothing is trained again
    assert capsys.readouterr().out == first


def test_views_are_of_what_they_say(views_task: ModuleType, tmp_path: Path) -> None:
    case = views_task.of_shapes(0, tmp_path, small=True)
    torch.manual_seed(0)
    clouds = case.labelled[0]
    moved, halves = (change(clouds) for change in case.views.values())
    assert moved.pos.shape == clouds.pos.shape
    assert not torch.allclose(moved.pos, clouds.pos)
    center = [z.pos[z.batch == 0].norm(dim=1).max() for z in (clouds, moved)]
    assert 0.7 < float(center[1] / center[0]) < 1.4  # scaled a little, rotated about the origin
    points = {row.numpy().tobytes() for row in clouds.pos}
    assert all(row.numpy().tobytes() in points for row in halves.pos)
    own = (halves.pos == clouds.pos).all(dim=1).float().mean()
    assert 0.3 < float(own) < 0.8
    for view in (moved, halves):
        assert torch.equal(view.batch, clouds.batch)

    a, b = torch.zeros(5), torch.ones(5)
    between = torch.stack([views_task.mixed(a, b) for _ in range(50)])
    assert 0 <= between.min() <= between.max() <= 0.5  # nearer to the first
    loader = views_task.Views([1, 2, 3], lambda batch: 10 * batch)
    assert sorted(loader) == [10, 20, 30]
