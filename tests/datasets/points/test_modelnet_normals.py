from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_stkd.datasets import ModelNetNormals
from pyg_stkd.datasets.points.point_archive import read_names

real = pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)
SHAPES = {"train": ["night_stand_0001", "bed_0002"], "test": ["bed_0001"]}


def lines(start: int) -> str:
    table = np.arange(start, start + 18).reshape(3, 6) / 64
    return "".join(",".join(f"{v:.6f}" for v in row) + "\n" for row in table)


def write(root: Path, name: str = "40") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / f"modelnet{name}_shape_names.txt").write_text("bed\nnight_stand\n")
    start = 0
    for split, shapes in SHAPES.items():
        (root / f"modelnet{name}_{split}.txt").write_text("\n".join(shapes))
        for shape in shapes:
            folder = root / shape.rpartition("_")[0]
            folder.mkdir(exist_ok=True)
            (folder / f"{shape}.txt").write_text(lines(start))
            start += 18
    return root


def expected(start: int) -> np.ndarray:
    return np.arange(start, start + 18, dtype=np.float32).reshape(3, 6) / 64


@pytest.mark.parametrize("name", ["10", "40"])
def test_normals_splits(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    train = ModelNetNormals(tmp_path, name)
    test = ModelNetNormals(tmp_path, name, train=False)
    assert train.classes == ["bed", "night_stand"]
    assert (train.names, test.names) == (SHAPES["train"], SHAPES["test"])
    assert (train.y.tolist(), test.y.tolist()) == ([1, 0], [0])
    for i, data in enumerate([*train, *test]):
        np.testing.assert_allclose(data.pos, expected(18 * i)[:, :3], atol=1e-6)
        np.testing.assert_allclose(data.normal, expected(18 * i)[:, 3:], atol=1e-6)
        assert data.pos.dtype == data.normal.dtype == torch.float32


def test_normals_first_points(tmp_path: Path) -> None:
    dataset = ModelNetNormals(write(tmp_path / "modelnet40_normal_resampled").parent, points=2)
    np.testing.assert_allclose(dataset[1].pos, expected(18)[:2, :3], atol=1e-6)
    assert dataset[1].normal.shape == (2, 3)


def test_normals_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*normal_resampled.zip"):
        ModelNetNormals(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"'modelnet40_shape_names.txt' is not in it"):
        ModelNetNormals(tmp_path)
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"'modelnet10_shape_names.txt' is not in it"):
        ModelNetNormals(tmp_path, "10")
    (tmp_path / "bed" / "bed_0002.txt").unlink()
    text = r"1 of the 2 shapes of 'modelnet40_train.txt' are not, as bed_0002.txt"
    with pytest.raises(FileNotFoundError, match=text):
        ModelNetNormals(tmp_path)


@pytest.mark.parametrize(
    ("content", "points", "text"),
    [
        ("", None, r"must be a table of numbers \(got an empty file\)"),
        ("\n\n", None, r"must be a table of numbers \(got an empty file\)"),
        (lines(0)[: lines(0).index("\n") + 1], None, r"must hold 3 points, as the files before"),
        (lines(0)[:-20], None, r"must have 6 fields in each line \(got 4 in line 3\)"),
        ("1,2,3\n" * 3, None, r"must hold lines .* \(got 3 columns"),
        ("1,2,3,4,5,nan\n" * 3, None, r"finite numbers \(got 'nan' in line 1, column 6"),
        ("1,2,3,4,5,inf\n" * 3, 2, r"finite numbers \(got 'inf' in line 1, column 6"),
        ("1,2,3,4,5,1e300\n" * 3, 2, r"must be finite \(got 2 NaN or infinite"),
        ("1,2,3,4,5,x\n" * 3, None, r"finite numbers \(got 'x' in line 1, column 6"),
        ("1,2,3,4,5,\xff\n" * 3, None, "must be text in UTF-8"),
        ("1,2,3,4,5,6\n\n" * 3, None, r"6 fields in each line \(got none in line 2\)"),
        ("#1,2,3,4,5,6\n" * 3, None, r"finite numbers \(got '#1' in line 1, column 1"),
    ],
)
def test_normals_bad_file(tmp_path: Path, content: str, points: int | None, text: str) -> None:
    path = write(tmp_path) / "bed" / "bed_0002.txt"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=text) as caught:
        ModelNetNormals(tmp_path, points=points)
    assert str(path) in str(caught.value)


def test_normals_more_points_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"night_stand_0001.txt' .* least 4 points \(got 3\)"):
        ModelNetNormals(write(tmp_path), points=4)


def test_normals_lists(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "modelnet40_train.txt").write_text("bed_0001\nsofa_0001\n")
    with pytest.raises(ValueError, match=r"names <class>_NNNN .* \(got the classes 'sofa'\)"):
        ModelNetNormals(tmp_path)
    (tmp_path / "modelnet40_train.txt").write_text("bed_0001\nbed_0001\n")
    with pytest.raises(ValueError, match=r"each once \(got 2, 1 distinct\)"):
        ModelNetNormals(tmp_path)


@pytest.mark.parametrize("name", ["../bed_0001", "..", "bed/../../x_1", "C:x_1", "bed\\\\x_1"])
@pytest.mark.parametrize("file", ["shape_names", "train"])
def test_normals_lists_lead_nowhere_else(tmp_path: Path, name: str, file: str) -> None:
    write(tmp_path / "set")
    (tmp_path / "bed_0001.txt").write_text(lines(0))  # what a hostile list would reach
    listed = tmp_path / "set" / f"modelnet40_{file}.txt"
    listed.write_text(f"{listed.read_text()}\n{name}\n")
    with pytest.raises(ValueError, match=rf"{file}.txt' must hold plain names, which lead nowhere"):
        ModelNetNormals(tmp_path / "set")


def test_normals_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'name' must be one of '10', '40' \(got 10\)"):
        ModelNetNormals(tmp_path, 10)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'points' must be an integer \(got '1'\)"):
        ModelNetNormals(tmp_path, points="1")  # type: ignore[arg-type]


@real
def test_normals_real_file(tmp_path: Path) -> None:
    lists = Path(os.environ["PYG_STKD_DATA"]) / "modelnet_lists"
    (tmp_path / "bench").symlink_to(lists / "modelnet40_normal_resampled" / "bench")
    names = lists / "modelnet40_shape_names.txt"
    (tmp_path / "modelnet40_shape_names.txt").write_text(names.read_text())
    (tmp_path / "modelnet40_train.txt").write_text("bench_0001\n")
    dataset = ModelNetNormals(tmp_path)
    data = dataset[0]
    assert (dataset.num_classes, dataset.classes[int(data.y)]) == (40, "bench")
    assert data.pos.shape == data.normal.shape == (10000, 3)
    first = [[-0.7204, -0.09483, -0.01067], [-0.128, -0.9918, 0.0]]
    torch.testing.assert_close(torch.stack([data.pos[0], data.normal[0]]), torch.tensor(first))
    torch.testing.assert_close(data.normal.norm(dim=1), torch.ones(10000), atol=1e-3, rtol=0)
    assert data.pos.norm(dim=1).max().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(ModelNetNormals(tmp_path, points=1024)[0].pos, data.pos[:1024])


@real
@pytest.mark.parametrize(("name", "train", "test"), [("10", 3991, 908), ("40", 9843, 2468)])
def test_normals_real_lists(name: str, train: int, test: int) -> None:
    lists = Path(os.environ["PYG_STKD_DATA"]) / "modelnet_lists"
    assert len(read_names(lists / f"modelnet{name}_train.txt")) == train
    assert len(read_names(lists / f"modelnet{name}_test.txt")) == test
    classes = read_names(lists / f"modelnet{name}_shape_names.txt")
    found = {s.rpartition("_")[0] for s in read_names(lists / f"modelnet{name}_train.txt")}
    assert sorted(found) == classes
    # every shape is listed but there is no cloud of it
    with pytest.raises(FileNotFoundError, match=rf"of the {test} shapes of 'modelnet{name}_test"):
        ModelNetNormals(lists, name, train=False)
