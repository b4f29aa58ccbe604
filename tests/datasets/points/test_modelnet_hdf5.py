from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_stkd.datasets import ModelNetHDF5
from pyg_stkd.datasets.points.point_clouds import MODELNET40

NAMES = ["ply_data_train0.h5", "ply_data_train1.h5", "ply_data_test0.h5"]


def write_lists(root: Path) -> Path:
    """The text files of the official folder; the lists name a place in a repository."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "shape_names.txt").write_text("\n".join(MODELNET40) + "\n")
    lines = [f"data/modelnet40_ply_hdf5_2048/{name}\n" for name in NAMES]
    (root / "train_files.txt").write_text("".join(lines[:2]))
    (root / "test_files.txt").write_text(lines[2])
    return root


def write(root: Path, **changes: np.ndarray | None) -> Path:
    """Two, one and one shapes of four points."""
    h5py = pytest.importorskip("h5py")
    write_lists(root)
    start = 0
    for name, labels in zip(NAMES, ([7, 39], [0], [12]), strict=True):
        count = len(labels)
        pos = np.arange(start, start + 12 * count, dtype=np.float32).reshape(count, 4, 3)
        arrays = {"data": pos, "label": np.array(labels, dtype=np.uint8)[:, None]}
        start += 12 * count
        if name == NAMES[0]:
            arrays.update(changes)  # type: ignore[arg-type]
        with h5py.File(root / name, "w") as file:
            for key, value in arrays.items():
                if value is not None:
                    file[key] = value
            file["normal"] = np.full_like(pos, np.nan)  # there, but not read
    return root


def test_hdf5_splits(tmp_path: Path) -> None:
    train, test = ModelNetHDF5(write(tmp_path)), ModelNetHDF5(tmp_path, train=False)
    assert (len(train), len(test)) == (3, 1)
    assert train.classes == MODELNET40
    assert train.num_classes == 40
    assert (train.y.tolist(), test.y.tolist()) == ([7, 39, 0], [12])
    for i, data in enumerate([*train, *test]):
        assert data.pos.dtype == torch.float32
        assert data.pos.flatten().tolist() == list(range(12 * i, 12 * i + 12))
        assert "normal" not in data
    assert len(list(tmp_path.iterdir())) == 6


def test_hdf5_folder_above(tmp_path: Path) -> None:
    write(tmp_path / "modelnet40_ply_hdf5_2048")
    assert ModelNetHDF5(tmp_path).y.tolist() == [7, 39, 0]


def test_hdf5_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*modelnet40_ply_hdf5_2048.zip"):
        ModelNetHDF5(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"'shape_names.txt' is not in it"):
        ModelNetHDF5(tmp_path)
    write_lists(tmp_path)
    (tmp_path / NAMES[0]).touch()
    with pytest.raises(FileNotFoundError, match=r"': ply_data_train1.h5 not in it"):
        ModelNetHDF5(tmp_path)
    (tmp_path / "test_files.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"'test_files.txt' is not in it"):
        ModelNetHDF5(tmp_path, train=False)


def test_hdf5_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lists(tmp_path)
    for name in NAMES:
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"ModelNetHDF5 .* needs 'pip install h5py'"):
        ModelNetHDF5(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("data", None, r"must hold the array 'data' \(got label, normal\)"),
        ("label", None, r"must hold the array 'label' \(got data, normal\)"),
        ("data", np.zeros((2, 4, 2)), r"'data' .* \[S, P, 3\].* \(got shape \(2, 4, 2\)"),
        ("data", np.zeros((0, 4, 3)), r"'data' .* \(got shape \(0, 4, 3\)"),
        ("data", np.full((2, 4, 3), np.nan), r"'data' .* finite \(got 24 NaN"),
        ("data", np.zeros((2, 5, 3)), r"must agree in points \(got 5, 4\)"),
        ("label", np.array([[1]]), r"'label' .* each of the 2 shapes \(got shape \(1,\)"),
        ("label", np.array([[1], [40]]), r"'label' .* classes 0 to 39 \(got int64 .* to 40"),
    ],
)
def test_hdf5_bad_file(tmp_path: Path, key: str, value: np.ndarray | None, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        ModelNetHDF5(write(tmp_path, **{key: value}))
    assert "agree" in text or NAMES[0] in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_hdf5_truncated(tmp_path: Path, share: float) -> None:
    path = write(tmp_path) / NAMES[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"{NAMES[1]}' must be a complete HDF5 file"):
        ModelNetHDF5(tmp_path)


def test_hdf5_lists(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train_files.txt").write_text(f"{NAMES[0]}\n{NAMES[0]}\n")
    with pytest.raises(ValueError, match=r"train_files.txt' .* each once \(got 2, 1 distinct\)"):
        ModelNetHDF5(tmp_path)
    (tmp_path / "train_files.txt").write_text("")
    with pytest.raises(ValueError, match=r"a name a line, each once \(got 0"):
        ModelNetHDF5(tmp_path)


@pytest.mark.parametrize("name", ["..", "data/..", "..\\\\x.h5", "C:x.h5"])
def test_hdf5_lists_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / "train_files.txt").write_text(f"{NAMES[0]}\n{name}\n")
    with pytest.raises(ValueError, match=r"train_files.txt' must hold plain names"):
        ModelNetHDF5(tmp_path)


@pytest.mark.parametrize("how", ["external", "soft", "raw", "virtual", "group", "empty"])
def test_hdf5_arrays_lie_in_their_file(tmp_path: Path, how: str) -> None:
    h5py = pytest.importorskip("h5py")
    write(tmp_path / "set", data=None)
    secret, values = tmp_path / "secret", np.ones((2, 4, 3), dtype=np.float32)
    with h5py.File(secret, "w") as file:
        file["data"] = values
    with h5py.File(tmp_path / "set" / NAMES[0], "a") as file:
        if how == "external":
            file["data"] = h5py.ExternalLink(secret, "data")
        elif how == "soft":
            file["far"] = h5py.ExternalLink(secret, "data")
            file["data"] = h5py.SoftLink("/far")
        elif how == "raw":
            place = [(str(secret), 0, values.nbytes)]
            file.create_dataset("data", values.shape, values.dtype, external=place)
        elif how == "virtual":
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(secret, "data", values.shape)
            file.create_virtual_dataset("data", layout)
        elif how == "group":
            file.create_group("data")
        else:
            file["data"] = h5py.Empty("f4")
    with pytest.raises(
        ValueError, match=r"'data' (that is no array of this file|of '.* object)"
    ) as error:
        ModelNetHDF5(tmp_path / "set")
    assert NAMES[0] in str(error.value)


@pytest.mark.parametrize(
    "options", [{"shape": (10**9, 100, 3)}, {"shape": (10**9, 100, 3), "chunks": (1, 100, 3)}]
)
def test_hdf5_declared_terabytes_take_no_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    h5py = pytest.importorskip("h5py")
    write(tmp_path, data=None)
    with h5py.File(tmp_path / NAMES[0], "a") as file:
        file.create_dataset("data", dtype="f4", **options)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"'data' of float32 and 1200000000000 bytes"):
            ModelNetHDF5(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_hdf5_compressed_arrays_are_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write(tmp_path, data=None)
    with h5py.File(tmp_path / NAMES[0], "a") as file:
        file.create_dataset("data", data=np.zeros((2, 4, 3)), compression="gzip", shuffle=True)
    assert ModelNetHDF5(tmp_path)[0].pos.tolist() == [[0.0] * 3] * 4
