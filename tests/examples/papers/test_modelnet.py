from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

METHODS = ["teacher", "student", "recipe", "KD", "FitNet", "AT", "LSP"]
SIZES = {
    "points": 24,
    "shapes": 40,
    "labelled": 16,
    "seeds": 1,
    "workers": 1,
    "epochs": 1,
    "teacher-epochs": 1,
    "teacher-width": 4,
    "student-width": 2,
    "batch-size": 8,
}
OPTIONS = [text for name, size in SIZES.items() for text in (f"--{name}", str(size))]

# One epoch of tiny models: their structures are of no interest here.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")


@pytest.fixture
def modelnet(examples: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in (
        "experiment",
        "schedule",
        "modelnet",
        "modelnet_task",
        "modelnet_report",
        "modelnet_page",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("modelnet")


def task(modelnet: ModuleType, *options: str) -> Any:
    return modelnet.load(modelnet.parse([*OPTIONS, *options]))


def test_runs_resumes_and_redraws(
    modelnet: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modelnet.main([*OPTIONS, "--out", str(tmp_path)])
    table = capsys.readouterr().out
    folder = tmp_path / "synthetic"
    names = ("results.html", "results.md", "results-scores.png", "results-features.png")
    for name in names:
        assert (folder / name).stat().st_size > 0, name
    results = json.loads((folder / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == METHODS
    for run in results["runs"]:
        assert 0 <= run["acc"] <= 1
        assert run["macc"] == pytest.approx(run["acc"])  # as many test shapes in every class
    assert {key: len(value) for key, value in results["features"].items()} == {
        "teacher": 1, "student": 1, "LSP": 1,
    }  # fmt: skip
    for cloud, distances in zip(results["scene"], results["features"]["LSP"]["1"], strict=True):
        assert len(distances) == len(cloud["pos"]) == 24
        assert (distances[cloud["anchor"]], max(distances)) == (0, 100)
        assert cloud["pos"][cloud["anchor"]][2] == max(z for _, _, z in cloud["pos"])
    assert "student + LSP" in table

    page = (folder / "results-features.html").read_text()
    data = json.loads(page.split("const DATA = ")[1].split(";\n")[0])
    assert data["shapes"] == results["scene"]
    assert [row["label"] for row in data["rows"]] == ["student alone", "student + LSP"]
    assert data["rows"][1]["cells"][0]["distances"] == results["features"]["LSP"]["1"]
    assert "http" not in page  # it needs nothing else

    # Finished runs are read, not run again.
    before = {path.name: path.read_bytes() for path in (folder / "raw").iterdir()}
    assert len(before) == len(METHODS)
    monkeypatch.setattr(modelnet, "train", lambda *_: pytest.fail("a finished run ran again"))
    modelnet.main([*OPTIONS, "--out", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in (folder / "raw").iterdir()} == before
    assert capsys.readouterr().out == table

    (folder / "results.html").unlink()
    modelnet.main(["--redraw", str(folder / "results.json")])
    assert capsys.readouterr().out.strip() in table
    assert (folder / "results.html").exists()


@pytest.mark.full
def test_kernels_and_variants_are_tuned_alike(modelnet: ModuleType, tmp_path: Path) -> None:
    options = ("--kernels", "--variants", "--trials", "2", "--seeds", "2", "--augment")
    options += ("--one-teacher",)
    modelnet.main([*OPTIONS, *options, "--out", str(tmp_path)])
    results = json.loads((tmp_path / "synthetic" / "results.json").read_text())
    keys = [
        (run["method"], run["config"].get("variant", ""), "trial" in run) for run in results["runs"]
    ]
    models = [(m, "") for m in (*METHODS, *(f"LSP {k}" for k in modelnet.TABLE_5))]
    models += [
        (m, v) for v in ("more channels", "more layers", "more MLPs") for m in ("student", "LSP")
    ]
    for method, variant in models:
        assert keys.count((method, variant, True)) == 2
        assert keys.count((method, variant, False)) == (1 if method == "teacher" else 2)
    assert len(keys) == 4 * len(models) - 1
    distilled = [run["config"]["teacher"] for run in results["runs"] if "weight" in run["config"]]
    assert len(set(distilled)) == 1
    text = (tmp_path / "synthetic" / "results.md").read_text()
    assert "student, more layers + LSP" in text
    assert "LSP SquaredEuclidean" in text


def test_the_papers_models(modelnet: ModuleType) -> None:
    data = task(modelnet)
    data.num_classes = 40
    sizes = {"teacher": modelnet.teacher_sizes(64), **modelnet.student_sizes(32)}
    models = {name: modelnet.build(size | {"dropout": 0.5}, data) for name, size in sizes.items()}
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert count["teacher"] == 1_809_576  # 1.81 M
    assert count[""] == 99_560  # 0.1 M
    assert round(count["more MLPs"] / 1e6, 2) == 0.30
    assert modelnet.tap(sizes["teacher"]) == "convs.3"
    assert modelnet.tap(sizes[""]) == "convs.2"
    assert modelnet.tap(sizes["more layers"]) == "convs.3"


def test_shapes_are_split_by_class_and_dealt_once(modelnet: ModuleType) -> None:
    data = task(modelnet, "--shapes-per-class", "3")

    def labels(part: str) -> list[int]:
        return sorted(int(y) for _, y in data.parts[part])

    assert labels("train") == sorted(2 * list(range(10)))
    assert labels("val") == list(range(10))
    assert len(data.parts["test"]) == 40
    known = {pos.numpy().tobytes() for pos, _ in data.parts["train"]}
    assert not any(pos.numpy().tobytes() in known for pos, _ in data.parts["val"])

    batches = data.train_batches(0)
    assert [len(clouds.y) for clouds in batches] == [7, 7, 6]
    again = data.train_batches(0)
    assert all(torch.equal(a.pos, b.pos) for a, b in zip(batches, again, strict=True))
    seen = torch.cat([clouds.pos for clouds in batches]).view(-1, 24 * 3)
    assert {row.numpy().tobytes() for row in seen} == known
    assert data.augmented(batches[0]) is batches[0]


def test_augmentation_moves_each_cloud_by_itself(modelnet: ModuleType) -> None:
    data = task(modelnet, "--augment")
    clouds = data.train_batches(0)[0]
    moved = data.augmented(clouds)
    assert torch.equal(moved.batch, clouds.batch)
    scales = []
    for old, new in zip(clouds.pos.view(-1, 24, 3), moved.pos.view(-1, 24, 3), strict=True):
        scale = new.std(dim=0) / old.std(dim=0)
        torch.testing.assert_close(
            new - new.mean(dim=0), scale * (old - old.mean(dim=0)), atol=1e-5, rtol=0
        )
        scales.append(scale)
    assert torch.stack(scales).std(dim=0).min() > 0.01


def test_kept_graphs_are_those_of_the_points(modelnet: ModuleType) -> None:
    data = task(modelnet)
    clouds = data.train_batches(0)[0]
    config = modelnet.student_sizes(4)[""] | {"dropout": 0.0}
    model = modelnet.build(config, data).eval()
    expected = model(clouds.pos, clouds.batch)
    model.convs[0].knn = modelnet.KeptGraphs(config["k"])
    for _ in range(2):
        torch.testing.assert_close(model(clouds.pos, clouds.batch), expected, rtol=0, atol=0)
    other = clouds.pos.flip(0)
    graph = model.convs[0].knn(other, clouds.batch)
    assert graph is model.convs[0].knn(other, clouds.batch)
    assert graph is not model.convs[0].knn(clouds.pos, clouds.batch)


def test_accuracy_of_classes_of_different_sizes(modelnet: ModuleType) -> None:
    data = task(modelnet)

    class First(torch.nn.Module):
        def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
            out = torch.zeros(int(batch.max()) + 1, 10)
            out[:, 0] = 1
            return out

    data.parts["test"] = [s for s in data.parts["test"] if int(s[1]) < 2][:5]
    assert [int(y) for _, y in data.parts["test"]] == [0, 1, 0, 1, 0]
    score = data.score(First(), "test")
    assert score["acc"] == pytest.approx(3 / 5)
    assert score["macc"] == pytest.approx(1 / 2)  # of the two classes that occur


def test_agreement_and_gap(modelnet: ModuleType) -> None:
    report = importlib.import_module("modelnet_report")
    a, b = [0, 10, 40, 100], [0, 30, 20, 90]
    assert report.agreement(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert report.agreement([0, 0], [0, 1]) == 0

    def runs(teacher: float) -> dict[tuple[str, str], list[dict[str, float]]]:
        acc = {"teacher": teacher, "student": 0.6, "KD": 0.7}
        return {(m, ""): [{"acc": v}, {"acc": v + 0.02}] for m, v in acc.items()}

    columns = report.compared(runs(0.8), "KD")
    assert columns["gap closed"].startswith("50% (")
    assert columns["gain over alone"] == "10.00 (10.00 to 10.00)"


def test_students_have_labels_of_a_part_of_the_shapes(modelnet: ModuleType) -> None:
    data = task(modelnet, "--labelled", "13")
    labelled, unlabelled, train = (data.parts[p] for p in ("labelled", "unlabelled", "train"))
    assert (len(labelled), len(labelled) + len(unlabelled)) == (13, len(train))
    counts = torch.stack([y for _, y in labelled]).bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 1
    assert data.about()["labelled"] == 13
    whole = task(modelnet, "--labelled", "1000")
    assert len(whole.parts["labelled"]) == len(train)
    assert whole.train_batches(0, "unlabelled") == []


def test_a_real_set_needs_its_folder(modelnet: ModuleType) -> None:
    with pytest.raises(SystemExit, match="--dataset modelnet10 needs --root"):
        modelnet.main(["--dataset", "modelnet10"])
    with pytest.raises(SystemExit):
        modelnet.main(["--trials", "9"])
