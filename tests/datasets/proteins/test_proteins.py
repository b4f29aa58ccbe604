from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyg_stkd.datasets import Proteins

PARTS = ("train", "val", "test")


def arrays(name: str = "humloc") -> dict[str, Any]:
    """Four proteins; an edge both ways (0, 1), one stored once (1, 2), and a self-loop (3)."""
    content: dict[str, Any] = {
        "x": np.array([[1, 5], [3, 5], [8, 6], [9, 7]], dtype=np.float32),
        "y": np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=np.uint8),
    }
    if name == "pcg":
        content["edge_index"] = np.array([[2, 1, 0, 1], [1, 2, 1, 0]], dtype=np.int32)
        for split, order in enumerate(([0, 1, 2, 3], [1, 2, 3, 0], [3, 2, 1, 0])):
            for part, nodes in zip(PARTS, (order[:2], order[2:3], order[3:]), strict=True):
                content[f"{part}_idx_{split}"] = np.array(nodes, dtype=np.int32)
    else:
        content["edge_index"] = np.array([[1, 0, 1, 3], [2, 1, 0, 3]], dtype=np.int32)
        content["edge_attr"] = np.array([[7, 0], [1, 2], [3, 8], [4, 4]], dtype=np.float32)
        for part, nodes in zip(PARTS, ([0, 1], [2], [3]), strict=True):
            content[f"{part}_idx"] = np.array(nodes, dtype=np.int32)
    return content


def write(root: Path, name: str = "humloc", **changes: Any) -> Path:
    np.savez(root / f"{name}.npz", **{**arrays(name), **changes})
    return root


def test_proteins_both_directions(tmp_path: Path) -> None:
    dataset = Proteins(write(tmp_path), "humloc", standardize=False)
    data = dataset[0]
    assert len(dataset) == 1
    assert repr(dataset) == "Proteins('humloc', split=0)"
    assert (dataset.num_features, dataset.num_classes) == (2, 3)
    assert data.x.tolist() == [[1, 5], [3, 5], [8, 6], [9, 7]]
    assert data.y.dtype == torch.float32
    assert data.y.tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]
    assert data.edge_index.dtype == torch.int64
    assert data.edge_index.is_contiguous()
    assert data.edge_index.tolist() == [[0, 1, 1, 2, 3], [1, 0, 2, 1, 3]]
    # the two given values of 0 - 1 are averaged, that of 1 - 2 is carried both ways
    assert data.edge_attr.tolist() == [[2, 5], [2, 5], [7, 0], [7, 0], [4, 4]]
    assert data.train_mask.tolist() == [True, True, False, False]
    assert data.val_mask.tolist() == [False, False, True, False]
    assert data.test_mask.tolist() == [False, False, False, True]
    assert data.validate()
    assert [p.name for p in tmp_path.iterdir()] == ["humloc.npz"]


def test_proteins_standardize_with_training_nodes(tmp_path: Path) -> None:
    x = Proteins(write(tmp_path), "HumLoc")[0].x
    # column 0: training nodes 1, 3: mean 2, deviation 1; column 1 is constant there: shift only
    assert x.tolist() == [[-1, 0], [1, 0], [6, 1], [7, 2]]


@pytest.mark.parametrize(("split", "train"), [(0, [0, 1]), (1, [1, 2]), (2, [2, 3])])
def test_proteins_pcg_splits(tmp_path: Path, split: int, train: list[int]) -> None:
    data = Proteins(write(tmp_path, "pcg"), "pcg", split=split)[0]
    assert data.train_mask.nonzero().flatten().tolist() == train
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert "edge_attr" not in data


def test_proteins_transform(tmp_path: Path) -> None:
    dataset = Proteins(write(tmp_path), "humloc", transform=lambda data: data.num_nodes)
    assert dataset[0] == 4


@pytest.mark.parametrize(("name", "split"), [("pcg", 3), ("pcg", -1), ("eukloc", 1)])
def test_proteins_split_out_of_range(tmp_path: Path, name: str, split: int) -> None:
    with pytest.raises(ValueError, match=rf"'split' of '{name}' must be .*\(got {split}\)"):
        Proteins(tmp_path, name, split=split)


def test_proteins_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'name' must be one of pcg, humloc, eukloc \(got 'x'"):
        Proteins(tmp_path, "x")


def test_proteins_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*github.com/Tianqi-py/MLGNC"):
        Proteins(tmp_path / "absent", "pcg")
    with pytest.raises(FileNotFoundError, match=r"'pcg.npz' is not in it.*humloc.npz, eukloc.npz"):
        Proteins(tmp_path, "pcg")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_proteins_truncated(tmp_path: Path, share: float) -> None:
    path = write(tmp_path) / "humloc.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"humloc.npz' must be a complete npz file"):
        Proteins(tmp_path, "humloc")


def test_proteins_corrupt(tmp_path: Path) -> None:
    path = write(tmp_path) / "humloc.npz"
    whole = bytearray(path.read_bytes())
    whole[200:210] = b"\0" * 10
    path.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match=r"humloc.npz' must be a complete npz file"):
        Proteins(tmp_path, "humloc")
    np.save(path, np.ones(3))  # a lone array
    os.replace(f"{path}.npy", path)
    with pytest.raises(ValueError, match=r"humloc.npz' must be a complete npz file"):
        Proteins(tmp_path, "humloc")


def test_proteins_pickle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, x=np.array([{}, 1], dtype=object))
    with pytest.raises(ValueError, match="complete npz file"):
        Proteins(tmp_path, "humloc")


@pytest.mark.parametrize("key", ["x", "y", "edge_index", "val_idx"])
def test_proteins_missing_key(tmp_path: Path, key: str) -> None:
    content = arrays()
    del content[key]
    np.savez(tmp_path / "humloc.npz", **content)
    with pytest.raises(ValueError, match=rf"must hold the key '{key}' \(got keys "):
        Proteins(tmp_path, "humloc")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("x", [[np.nan, 1]] * 4, r"'x' of .* must be finite in float32 \(got 4 values"),
        ("x", [[1e300, 1]] * 4, r"'x' of .* must be finite in float32 \(got 4 values"),
        (
            "x",
            [[0, 0], [0, 1e-45], [1e30, 1], [0, 1e30]],
            "'x' of .* must be finite in units of the training",
        ),
        ("edge_attr", [[1e39]] * 4, r"'edge_attr' .* finite in float32 \(got 4 values"),
        ("x", [1.0, 2.0], r"'x' .* 2 dimensions \(got shape \(2,\)"),
        ("x", [["a"]], "'x' .* numeric array"),
        ("y", [[0, 2]] * 4, "'y' .* must hold 0 and 1 only"),
        ("y", [[0, 1]] * 3, r"'y' .* row for each of the 4 nodes \(got 3\)"),
        ("edge_index", [[0], [4]], r"'edge_index' .* indices 0 to 3 \(got int64 values .* to 4"),
        ("edge_index", [[-1], [0]], "'edge_index' .* indices 0 to 3"),
        ("edge_index", [[0.0], [1.0]], r"'edge_index' .* \(got float64"),
        ("edge_index", [[0, 1]], r"'edge_index' .* two rows \(got shape \(1, 2\)\)"),
        ("edge_attr", [[1.0]], r"'edge_attr' .* each of the 4 edges \(got 1\)"),
        ("edge_attr", [[np.inf]] * 4, "'edge_attr' .* must be finite"),
        ("train_idx", [0, 9], "'train_idx' .* indices 0 to 3"),
        ("train_idx", [0, 2], r"must not overlap \(got 1 nodes"),
    ],
)
def test_proteins_bad_content(tmp_path: Path, key: str, value: Any, text: str) -> None:
    changes: dict[str, Any] = {key: np.array(value)}
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=text):
        Proteins(tmp_path, "humloc")


def test_proteins_pcg_must_be_undirected(tmp_path: Path) -> None:
    write(tmp_path, "pcg", edge_index=np.array([[0, 1], [1, 2]]))
    with pytest.raises(ValueError, match=r"both directions .*\(got 2 entries for 4 directed"):
        Proteins(tmp_path, "pcg")


@pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)
@pytest.mark.parametrize(
    ("name", "nodes", "labels", "edges", "train"),
    [
        ("pcg", 3233, 15, 74702, 1939),
        ("humloc", 3106, 14, 2 * 15978 + 530, 1675),
        ("eukloc", 7766, 22, 2 * 11321 + 729, 4192),
    ],
)
def test_proteins_real(name: str, nodes: int, labels: int, edges: int, train: int) -> None:
    dataset = Proteins(Path(os.environ["PYG_STKD_DATA"]) / "protein_multilabel", name)
    data = dataset[0]
    assert (data.num_nodes, dataset.num_classes, data.num_features) == (nodes, labels, 32)
    assert data.num_edges == edges
    assert data.is_undirected()
    assert int(data.train_mask.sum()) == train
    assert bool((data.train_mask | data.val_mask | data.test_mask).all())
    torch.testing.assert_close(data.x[data.train_mask].mean(0), torch.zeros(32), atol=1e-5, rtol=0)
