from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_stkd.datasets import ModelNet149

FILE = "modelnet10_149x2048.npz"


def write(root: Path, **changes: Any) -> Path:
    """Three shapes of two points."""
    content = {
        "pos": np.arange(18).reshape(3, 2, 3).astype(np.float16) / 32,
        "normal": np.tile([0, 0, 1], (3, 2, 1)).astype(np.float16),
        "y": [9, 0, 3],
        "split": np.array([1, 0, 1], dtype=np.uint8),
        "name": ["toilet_0001", "bathtub_0001", "desk_0001"],
    }
    np.savez(root / FILE, **{**content, **changes})
    return root


def test_149_splits(tmp_path: Path) -> None:
    write(tmp_path)
    train, test = ModelNet149(tmp_path), ModelNet149(tmp_path, train=False)
    assert (len(train), len(test)) == (1, 2)
    assert (train.names, test.names) == (["bathtub_0001"], ["toilet_0001", "desk_0001"])
    assert (train.y.tolist(), test.y.tolist()) == ([0], [9, 3])
    assert train[0].pos.tolist() == (np.arange(6, 12).reshape(2, 3) / 32).tolist()
    assert test[1].pos.tolist() == (np.arange(12, 18).reshape(2, 3) / 32).tolist()
    assert test[1].normal.tolist() == [[0, 0, 1]] * 2
    assert test[1].pos.dtype == test[1].normal.dtype == torch.float32
    assert test.num_classes == 10
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_149_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*3D-Designs-Search"):
        ModelNet149(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=rf"'{FILE}' is not in it"):
        ModelNet149(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pos": np.zeros((3, 2, 2))}, r"'pos' .* numbers \[S, P, 3\].*\(got shape \(3, 2, 2\)"),
        ({"pos": np.zeros((3, 0, 3))}, r"'pos' .* \(got shape \(3, 0, 3\)"),
        ({"pos": np.full((3, 2, 3), np.nan)}, r"'pos' .* must be finite \(got 18 NaN"),
        ({"normal": np.full((3, 2, 3), np.inf)}, "'normal' .* must be finite"),
        ({"normal": np.zeros((3, 1, 3))}, r"'normal' .* shape of 'pos', \(3, 2, 3\) \(got \(3, 1"),
        ({"y": [0, 1]}, "'y' .* each of the 3 shapes"),
        ({"y": [0, 1, -1]}, "'y' .* classes 0 to 9 .* from -1 to 1"),
        ({"split": [0, 1, 2]}, "'split' .* classes 0 to 1"),
        ({"split": [1, 1, 1]}, r"'split' .* must hold 0 \(got no such shape\)"),
        ({"name": ["a"]}, r"'name' .* each of the 3 shapes \(got shape \(1,\)"),
    ],
)
def test_149_bad_file(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        ModelNet149(write(tmp_path, **changes))
    assert FILE in str(caught.value)


def test_149_damaged(tmp_path: Path) -> None:
    path = write(tmp_path) / FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be a complete npz file"):
        ModelNet149(tmp_path)
    np.savez(path, pos=np.zeros((3, 2, 3)))
    with pytest.raises(ValueError, match=r"must hold the key 'normal' \(got keys pos\)"):
        ModelNet149(tmp_path)
    write(tmp_path, name=np.array([{}, 1, 2], dtype=object))  # a pickle
    with pytest.raises(ValueError, match="must be a complete npz file"):
        ModelNet149(tmp_path)


@pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)
def test_149_real() -> None:
    root = Path(os.environ["PYG_STKD_DATA"]) / "modelnet10_off_subset"
    train, test = ModelNet149(root), ModelNet149(root, train=False)
    assert (len(train), len(test)) == (100, 49)
    assert train.y.bincount().tolist() == [10] * 10
    assert test.y.bincount().tolist() == [5, 5, 4, *[5] * 7]
    for dataset in (train, test):
        kinds = [name.rpartition("_")[0] for name in dataset.names]
        assert [dataset.classes[y] for y in dataset.y] == kinds
        pos = torch.stack([data.pos for data in dataset])
        normal = torch.stack([data.normal for data in dataset])
        assert pos.shape[1:] == (2048, 3)
        norms = torch.ones(len(dataset), 2048)
        torch.testing.assert_close(normal.norm(dim=2), norms, atol=2e-3, rtol=0)
        torch.testing.assert_close(pos.norm(dim=2).amax(1), norms[:, 0], atol=2e-3, rtol=0)
