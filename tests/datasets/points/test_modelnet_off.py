from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_stkd.datasets import ModelNetOFF
from pyg_stkd.datasets.points.point_clouds import MODELNET10, MODELNET40

# a box of 1 x 2 x 4 as six rectangles, and the header on one line as in some files
BOX = """OFF8 6 0
0 0 0
1 0 0
1 2 0
0 2 0
0 0 4
1 0 4
1 2 4
0 2 4
4 0 1 2 3
4 4 5 6 7
4 0 1 5 4
4 3 2 6 7
4 0 3 7 4
4 1 2 6 5
"""


def write(root: Path, classes: list[str] = MODELNET10) -> Path:
    for kind in classes:
        for split, numbers in (("train", (2, 1)), ("test", (3,))):
            folder = root / kind / split
            folder.mkdir(parents=True)
            for number in numbers:
                (folder / f"{kind}_{number:04d}.off").write_text(BOX)
    return root


@pytest.mark.parametrize("place", [".", "raw", "ModelNet10", "raw/ModelNet10"])
def test_off_layouts(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    train, test = ModelNetOFF(tmp_path, points=8), ModelNetOFF(tmp_path, train=False, points=8)
    assert train.classes == MODELNET10
    assert (len(train), len(test)) == (20, 10)
    assert train.names[:3] == ["bathtub_0001", "bathtub_0002", "bed_0001"]
    assert test.names == [f"{kind}_0003" for kind in MODELNET10]
    assert train.y.tolist() == [i // 2 for i in range(20)]
    assert train[0].pos.shape == (8, 3)
    assert sorted(train[0].keys()) == ["pos", "y"]


def test_off_modelnet40(tmp_path: Path) -> None:
    dataset = ModelNetOFF(write(tmp_path, MODELNET40), "40", train=False, points=2)
    assert dataset.classes == MODELNET40
    assert dataset.y.tolist() == list(range(40))


def test_off_points_are_uniform_on_the_surface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyg_stkd.datasets.points.modelnet_off.unit_sphere", lambda pos, sizes: pos)
    pos = ModelNetOFF(write(tmp_path), train=False, points=2000)._data.pos  # [20000, 3]
    size = torch.tensor([1.0, 2.0, 4.0])
    near = torch.stack([pos, size - pos], dim=1).abs() < 1e-5  # [P, 2, 3]
    on = near.any(dim=1)  # [P, 3]
    assert on.any(dim=1).all()
    # faces of 8, 4 and 2 on either side: shares of 28
    share = on.float().mean(dim=0)
    torch.testing.assert_close(share, torch.tensor([16, 8, 4]) / 28, atol=0.015, rtol=0)
    torch.testing.assert_close(pos.mean(dim=0), size / 2, atol=0.03, rtol=0)


def test_off_clouds_are_normalised(tmp_path: Path) -> None:
    for data in ModelNetOFF(write(tmp_path), train=False, points=64):
        assert data.pos.mean(0).abs().max() < 1e-6
        assert data.pos.norm(dim=1).max().item() == pytest.approx(1, abs=1e-6)


def test_off_seed(tmp_path: Path) -> None:
    write(tmp_path)
    before = torch.get_rng_state()
    a = ModelNetOFF(tmp_path, points=16)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)  # of no influence
    b, c = ModelNetOFF(tmp_path, points=16), ModelNetOFF(tmp_path, points=16, seed=1)
    d = ModelNetOFF(tmp_path, train=False, points=16)
    assert torch.equal(a._data.pos, b._data.pos)
    assert not torch.equal(a[0].pos, c[0].pos)
    assert not torch.equal(a[0].pos, a[1].pos)  # the same mesh, another seed
    assert not torch.equal(a[0].pos, d[0].pos)


def test_off_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*ModelNet10.zip"):
        ModelNetOFF(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no file 'airplane/test/.*ModelNet40.zip"):
        ModelNetOFF(tmp_path, "40", train=False)
    write(tmp_path)
    for path in (tmp_path / "sofa" / "test").iterdir():
        path.unlink()
    assert len(ModelNetOFF(tmp_path, points=1)) == 20
    with pytest.raises(FileNotFoundError, match=r"no file 'sofa/test/sofa_\*.off'"):
        ModelNetOFF(tmp_path, train=False)


def test_off_damaged(tmp_path: Path) -> None:
    path = write(tmp_path) / "desk" / "train" / "desk_0002.off"
    path.write_text(BOX[:-20])
    with pytest.raises(ValueError, match=r"desk_0002.off' must be a complete OFF mesh"):
        ModelNetOFF(tmp_path, points=4)


def test_off_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'name' must be '10' or '40' \(got '20'\)"):
        ModelNetOFF(tmp_path, "20")
    with pytest.raises(TypeError, match=r"'points' must be an integer \(got None\)"):
        ModelNetOFF(tmp_path, points=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'points' must be at least 1 \(got 0\)"):
        ModelNetOFF(tmp_path, points=0)


@pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)
def test_off_real() -> None:
    root = Path(os.environ["PYG_STKD_DATA"]) / "modelnet10_off_subset"
    dataset = ModelNetOFF(root, train=False, points=512)
    assert dataset.y.tolist() == np.repeat(np.arange(10), 2).tolist()
    assert dataset.names[:2] == ["bathtub_0108", "bathtub_0116"]
    pos = torch.stack([data.pos for data in dataset])
    torch.testing.assert_close(pos.norm(dim=2).amax(1), torch.ones(20))
    with pytest.raises(FileNotFoundError, match="no file 'bathtub/train/"):
        ModelNetOFF(root)  # only meshes of the test part are there
