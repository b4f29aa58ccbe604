from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("networkx")
pytest.importorskip("tabulate")
pytest.importorskip("torchmetrics")
pytest.importorskip("tqdm")

EXAMPLES = Path(__file__).parents[3] / "examples" / "papers"
METHODS = ["teacher", "student", "recipe", "outputs", "imitation", "FitNet"]
METHODS += ["L_SCD", "L_TCD", "L_STCD"]
SIZES = {
    "nodes": 5,
    "steps": 800,
    "labelled-days": 1,
    "seeds": 1,
    "workers": 1,
    "epochs": 1,
    "stride": 16,
    "teacher-width": 8,
    "student-width": 4,
}
OPTIONS = [text for name, size in SIZES.items() for text in (f"--{name}", str(size))]

# One epoch of tiny models: their structures are of no interest here.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    for name in ("experiment", "schedule", "traffic", "traffic_task", "traffic_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("traffic")


def test_runs_resumes_and_redraws(
    traffic: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traffic.main([*OPTIONS, "--out", str(tmp_path)])
    table = capsys.readouterr().out
    folder = tmp_path / "synthetic-stgcn"
    for name in ("results.html", "results.md", "results-errors.png", "results-map.png"):
        assert (folder / name).stat().st_size > 0, name

    results = json.loads((folder / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == METHODS
    for run in results["runs"]:
        parts = [run[f"mae/{h}"] for h in (15, 30, 45, 60)]
        # The mean of 5 to 60 minutes, in mph; these four leave out the first ones.
        assert min(parts) - 2 <= run["mae/mean"] <= max(parts) + 2
        assert all(0 < run[f"mae/{h}"] <= run[f"rmse/{h}"] for h in (15, 30, 45, 60, "mean"))
        assert len(run["node_mae"]) == 5
        assert len(run["forecast"]) == len(results["scene"]["truth"])
    for name in ("persistence", "historical average", "student + L_STCD"):
        assert table.count(f"| {name} ") >= 3

    # Finished runs are read, not run again.
    before = {path.name: path.read_bytes() for path in (folder / "raw").iterdir()}
    assert len(before) == len(METHODS)
    monkeypatch.setattr(traffic, "train", lambda *_: pytest.fail("a finished run ran again"))
    traffic.main([*OPTIONS, "--out", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in (folder / "raw").iterdir()} == before
    again = capsys.readouterr().out
    assert again == table

    (folder / "results.html").unlink()
    traffic.main(["--redraw", str(folder / "results.json")])
    assert capsys.readouterr().out.strip() in table
    assert (folder / "results.html").exists()


@pytest.mark.full
def test_astgcn_and_tuning(traffic: ModuleType, tmp_path: Path) -> None:
    traffic.main([*OPTIONS, "--model", "astgcn", "--trials", "2", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "synthetic-astgcn" / "results.json").read_text())
    assert [run["method"] for run in results["runs"] if "trial" not in run] == METHODS
    assert sum("trial" in run for run in results["runs"]) == 2 * len(METHODS)


def test_students_have_labels_of_the_first_days(traffic: ModuleType) -> None:
    data = traffic.load(traffic.parse(OPTIONS))
    origins = data.windows["train"].origins
    known, others = (origins[data.parts[part]] for part in ("labelled", "unlabelled"))
    assert (known + 12).max() <= 288 < (others + 12).min()  # what follows is known to the end
    assert len(known) + len(others) == len(origins) == len(data.parts["train"])
    dealt = data.fixed_batches(4, 0, "labelled")
    assert sorted(i for batch in dealt for i in batch) == data.parts["labelled"].tolist()
    data.parts["unlabelled"] = data.parts["unlabelled"][:0]
    assert data.fixed_batches(4, 0, "unlabelled") == []
    order = traffic.passes(3, 7)  # two passes, and one more
    assert [sorted(order[:3]), sorted(order[3:6]), len(order)] == [[0, 1, 2], [0, 1, 2], 7]


def test_a_real_set_needs_its_folder(traffic: ModuleType) -> None:
    with pytest.raises(SystemExit, match="--dataset pemsd8 needs --root"):
        traffic.main(["--dataset", "pemsd8"])
    with pytest.raises(SystemExit):
        traffic.main(["--trials", "9"])
