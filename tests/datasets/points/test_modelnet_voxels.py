from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_stkd.datasets import ModelNetVoxels
from pyg_stkd.datasets.points.point_clouds import MODELNET10, unit_sphere

Array = np.ndarray[Any, Any]
real = pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)


def shapes() -> Array:
    """A random blob, a full grid, and one voxel, as [3, 24, 24, 24]."""
    grids = np.zeros((3, 24, 24, 24), dtype=np.int32)
    grids[0, 4:12, 4:12, 4:12] = np.random.default_rng(0).random((8, 8, 8)) < 0.9
    grids[1] = 1
    grids[2, 5, 6, 7] = 1
    return grids


def write(root: Path, split: str = "train", **changes: Any) -> Path:
    content = {f"X_{split}": np.pad(shapes(), ((0, 0), *[(3, 3)] * 3)), f"y_{split}": [4, 0, 9]}
    np.savez(root / "modelnet10.npz", **{**content, **changes})
    return root


def write_packed(root: Path, **changes: Any) -> Path:
    bits = np.packbits(shapes().reshape(3, -1).astype(bool), axis=1)
    content = {"test_bits": bits, "test_y": np.array([4, 0, 9], dtype=np.uint8)}
    np.savez(root / "modelnet10_vox24_packed.npz", **{**content, **changes})
    return root


def naive_surface(grid: Array) -> list[tuple[int, int, int]]:
    occupied = {(int(x), int(y), int(z)) for x, y, z in zip(*np.nonzero(grid), strict=True)}
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return sorted(
        (x, y, z)
        for x, y, z in occupied
        if not all((x + a, y + b, z + c) in occupied for a, b, c in steps)
    )


def test_voxels_surface(tmp_path: Path) -> None:
    dataset = ModelNetVoxels(write(tmp_path))
    assert repr(dataset) == "ModelNetVoxels(3, train=True)"
    assert dataset.classes == MODELNET10
    assert dataset.rows.tolist() == [0, 1, 2]
    assert dataset.y.tolist() == [4, 0, 9]
    for data, grid in zip(dataset, shapes(), strict=True):
        expected = np.array(naive_surface(grid), dtype=np.float32)
        assert data.pos.dtype == torch.float32
        np.testing.assert_allclose(data.pos, unit_sphere(expected, [len(expected)]), atol=1e-6)
    assert dataset[1].num_nodes == 24**3 - 22**3
    assert dataset[2].pos.tolist() == [[0, 0, 0]]
    assert [p.name for p in tmp_path.iterdir()] == ["modelnet10.npz"]


def test_voxels_packed_file_is_the_same_data(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for points in (None, 40):
        a = ModelNetVoxels(write(tmp_path / "a", "test"), train=False, points=points)
        b = ModelNetVoxels(write_packed(tmp_path / "b"), train=False, points=points)
        assert a.y.tolist() == b.y.tolist()
        for one, two in zip(a, b, strict=True):
            assert torch.equal(one.pos, two.pos)


@pytest.mark.parametrize("points", [1, 100, 1024])
def test_voxels_points_spread_evenly(tmp_path: Path, points: int) -> None:
    dataset = ModelNetVoxels(write(tmp_path), points=points)
    for data in dataset:
        assert data.pos.shape == (points, 3)
        assert len(torch.unique(data.pos, dim=0)) == points
        assert data.pos.mean(0).abs().max() < 1e-5
        if points > 1:
            assert data.pos.norm(dim=1).max().item() == pytest.approx(1, abs=1e-6)


def test_voxels_points_lie_in_surface_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pyg_stkd.datasets.points.modelnet_voxels.unit_sphere", lambda pos, sizes: pos
    )
    dataset = ModelNetVoxels(write(tmp_path), points=700)
    for data, grid in zip(dataset, shapes(), strict=True):
        surface = naive_surface(grid)
        voxels, counts = np.unique(
            np.floor(data.pos.numpy()).astype(int), axis=0, return_counts=True
        )
        assert {tuple(v) for v in voxels.tolist()} <= set(surface)
        # every voxel floor(P / S) or ceil(P / S) times
        assert set(counts.tolist()) <= {700 // len(surface), -(-700 // len(surface))} - {0}
        within = data.pos - data.pos.floor()
        torch.testing.assert_close(within.mean(0), torch.full((3,), 0.5), atol=0.06, rtol=0)


def test_voxels_seed(tmp_path: Path) -> None:
    write(tmp_path)
    a, b, c = (ModelNetVoxels(tmp_path, points=64, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a[0].pos, b[0].pos)
    assert not torch.equal(a[0].pos, c[0].pos)


def test_voxels_global_generators_are_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    ModelNetVoxels(write(tmp_path), points=64)
    assert torch.equal(torch.get_rng_state(), before)


def test_voxels_missing(tmp_path: Path) -> None:
    text = r"folder with modelnet10.npz or .*packed.npz \(got '.*': {}\).*guoguo12/modelnet-cnn"
    with pytest.raises(FileNotFoundError, match=text.format("no such folder")):
        ModelNetVoxels(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=text.format("neither is in it")):
        ModelNetVoxels(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"X_train": shapes()}, r"'X_train' .* grids \[S, 30, 30, 30\] \(got \(3, 24, 24, 24\)"),
        ({"X_train": np.zeros((0, 30, 30, 30))}, r"\(got \(0, 30"),
        ({"X_train": np.full((3, 30, 30, 30), 1)}, "0 in the outer 3 voxels"),
        ({"X_train": np.full((3, 30, 30, 30), np.nan)}, "must be 0 and 1"),
        ({"X_train": np.zeros((3, 30, 30, 30))}, "empty grids in rows 0, 1, 2 of 'train'"),
        ({"y_train": [0, 1]}, r"'y_train' .* each of the 3 shapes \(got shape \(2,\)"),
        ({"y_train": [0, 1, 10]}, r"'y_train' .* classes 0 to 9 \(got int64 values from 0 to 10"),
        ({"y_train": [0.0, 1.0, 2.0]}, r"must be of integers \(got float64"),
        ({"y_train": ["0", "1", "2"]}, r"must be of integers \(got <U1"),
    ],
)
def test_voxels_bad_file(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        ModelNetVoxels(write(tmp_path, **changes))
    assert str(tmp_path / "modelnet10.npz") in str(caught.value)


def test_voxels_bad_packed_file(tmp_path: Path) -> None:
    write_packed(tmp_path, test_bits=np.ones((3, 1727), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"'test_bits' .* uint8 \[S, 1728\] \(got shape \(3, 1727"):
        ModelNetVoxels(tmp_path, train=False)
    with pytest.raises(ValueError, match=r"must hold the key 'train_bits' \(got keys test_bits"):
        ModelNetVoxels(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_voxels_truncated(tmp_path: Path, share: float) -> None:
    path = write(tmp_path) / "modelnet10.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"modelnet10.npz' must be a complete npz file"):
        ModelNetVoxels(tmp_path)


def test_voxels_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'points' must be at least 1 \(got 0\)"):
        ModelNetVoxels(tmp_path, points=0)
    with pytest.raises(ValueError, match=r"'seed' must be at least 0 \(got -1\)"):
        ModelNetVoxels(tmp_path, seed=-1)
    with pytest.raises(TypeError, match=r"'train' must be True or False \(got 'train'\)"):
        ModelNetVoxels(tmp_path, "train")  # type: ignore[arg-type]


# The official split is 3991 + 908; 7 and 1 of the grids in the file are empty.
TRAIN = [106 - 5, 515, 889, 200, 200, 465, 200, 680, 392 - 1, 344 - 1]
TEST = [50, 100, 100, 86 - 1, 86, 100, 86, 100, 100, 100]


@real
@pytest.mark.parametrize(
    ("train", "official", "counts", "empty"),
    [(True, 3991, TRAIN, [6, 15, 21, 24, 60, 3392, 3857]), (False, 908, TEST, [304])],
)
def test_voxels_real(train: bool, official: int, counts: list[int], empty: list[int]) -> None:
    root = Path(os.environ["PYG_STKD_DATA"]) / "modelnet10_voxel30"
    dataset = ModelNetVoxels(root, train)
    assert len(dataset) == sum(counts) == official - len(empty)
    assert dataset.y.bincount().tolist() == counts
    assert sorted({*range(official)} - {*dataset.rows.tolist()}) == empty
    with np.load(root / "modelnet10_vox24_packed.npz") as file:
        assert file["classes"].tolist() == dataset.classes
        bits = file["train_bits" if train else "test_bits"]
    for i in (0, len(dataset) - 1):
        row = bits[dataset.rows[i]]
        expected = np.array(naive_surface(np.unpackbits(row).reshape(24, 24, 24)), dtype=np.float32)
        np.testing.assert_allclose(
            dataset[i].pos, unit_sphere(expected, [len(expected)]), atol=1e-6
        )
    if train:
        # the figures of the folder's notes, which count the empty grids
        sizes = np.append(np.diff(dataset.slices["pos"]), [0] * len(empty))  # type: ignore[index]
        assert [int(p) for p in np.percentile(sizes, [5, 50, 95])] == [453, 992, 2032]


@real
def test_voxels_real_points() -> None:
    root = Path(os.environ["PYG_STKD_DATA"]) / "modelnet10_voxel30"
    dataset = ModelNetVoxels(root, train=False, points=256)
    pos = torch.stack([data.pos for data in dataset])  # [907, 256, 3]
    assert pos.isfinite().all()
    torch.testing.assert_close(pos.norm(dim=2).amax(1), torch.ones(907))
    assert pos.mean(1).abs().max() < 1e-5
    batch = next(iter(DataLoader(dataset, batch_size=8)))
    assert batch.batch.bincount().tolist() == [256] * 8


@real
@pytest.mark.full
def test_voxels_real_files_agree(tmp_path: Path) -> None:
    root = Path(os.environ["PYG_STKD_DATA"]) / "modelnet10_voxel30"
    (tmp_path / "modelnet10.npz").symlink_to(root / "modelnet10.npz")
    for train in (True, False):
        a, b = ModelNetVoxels(tmp_path, train), ModelNetVoxels(root, train)
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.y, b.y)
        assert torch.equal(a._data.pos, b._data.pos)
