from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.datasets
from networkx.readwrite import json_graph
from torch_geometric.utils import coalesce

from pyg_stkd.datasets import load_ppi
from pyg_stkd.datasets.proteins import ppi

# nodes, graph ids and directed links of each part; node 3 of train is isolated
PARTS: dict[str, tuple[list[int], list[tuple[int, int]]]] = {
    "train": ([1, 1, 1, 1, 2, 2], [(1, 0), (0, 1), (1, 2), (2, 1), (2, 2), (5, 4), (4, 5), (0, 1)]),
    "valid": ([21, 21, 22, 22], [(0, 1), (1, 0), (2, 3), (3, 2)]),
    "test": ([23, 23, 24, 24], [(0, 1), (1, 0), (3, 2), (2, 3)]),
}


def features(part: str) -> np.ndarray[Any, Any]:
    start = 100 * list(PARTS).index(part)
    return np.arange(start, start + 3 * len(PARTS[part][0]), dtype=np.float64).reshape(-1, 3)


def labels(part: str) -> np.ndarray[Any, Any]:
    return features(part).astype(np.int64)[:, :2] // 3 % 2


@pytest.fixture
def official(tmp_path: Path) -> Path:
    raw = tmp_path / "ppi" / "raw"
    raw.mkdir(parents=True)
    for part, (ids, links) in PARTS.items():
        np.save(raw / f"{part}_feats.npy", features(part))
        np.save(raw / f"{part}_labels.npy", labels(part))
        np.save(raw / f"{part}_graph_id.npy", np.array(ids))
        graph = {
            "directed": True,
            "multigraph": False,
            "graph": {},
            "nodes": [{"id": i} for i in range(len(ids))],
            "links": [{"source": u, "target": v} for u, v in links],
        }
        (raw / f"{part}_graph.json").write_text(json.dumps(graph))
    return tmp_path / "ppi"


@pytest.mark.parametrize("flat", [False, True])
def test_load_ppi_official(official: Path, flat: bool) -> None:
    before = sorted(official.rglob("*"))
    dataset = load_ppi(official / "raw" if flat else official, "train")
    assert sorted(official.rglob("*")) == before  # nothing written
    first, second = dataset
    assert len(dataset) == 2
    assert (dataset.num_features, dataset.num_classes) == (3, 2)
    assert first.x.tolist() == features("train")[:4].tolist()
    assert first.y.tolist() == labels("train")[:4].tolist()
    assert (first.x.dtype, first.y.dtype) == (torch.float32, torch.float32)
    assert first.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert second.x.tolist() == features("train")[4:].tolist()
    assert second.edge_index.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_load_ppi_equals_pyg(
    official: Path, split: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "edges" in inspect.signature(json_graph.node_link_graph).parameters:
        # Older versions of PyG do not say what newer ones of networkx call otherwise.
        read = functools.partial(json_graph.node_link_graph, edges="links")
        monkeypatch.setattr(json_graph, "node_link_graph", read)
    theirs = torch_geometric.datasets.PPI(str(official), split)
    ours = load_ppi(official, split)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
        assert torch.equal(a.edge_index, coalesce(b.edge_index))


def test_load_ppi_scattered_members_and_isolated_first_node(official: Path) -> None:
    np.save(official / "raw" / "valid_graph_id.npy", np.array([22, 21, 22, 21]))
    graph = json.loads((official / "raw" / "valid_graph.json").read_text())
    # an edge between two graphs belongs to neither; given once, an undirected one goes both ways
    graph.update(directed=False, links=[{"source": 1, "target": 3}, {"source": 0, "target": 1}])
    (official / "raw" / "valid_graph.json").write_text(json.dumps(graph))
    first, second = load_ppi(official, "val")
    assert first.x.tolist() == features("valid")[[1, 3]].tolist()
    assert first.edge_index.tolist() == [[0, 1], [1, 0]]
    assert second.x.tolist() == features("valid")[[0, 2]].tolist()
    assert second.edge_index.shape == (2, 0)


def test_load_ppi_graphsage(tmp_path: Path) -> None:
    (tmp_path / "ppi").mkdir()
    kinds = ["test", "train", "val", "train", "test", "train"]
    graph = {
        "directed": False,
        "nodes": [
            {"id": 10 + i, "val": kind == "val", "test": kind == "test"}
            for i, kind in enumerate(kinds)
        ],
        "links": [{"source": u, "target": v} for u, v in [(1, 3), (4, 0), (3, 3), (2, 2)]],
    }
    x = np.arange(12.0).reshape(6, 2)
    y = {str(10 + i): [i % 2, i // 3] for i in range(6)}
    for name, content in (
        ("ppi-G.json", graph),
        ("ppi-class_map.json", y),
        ("ppi-id_map.json", {str(10 + i): 5 - i for i in range(6)}),
    ):
        (tmp_path / "ppi" / name).write_text(json.dumps(content))
    np.save(tmp_path / "ppi" / "ppi-feats.npy", x)

    for root in (tmp_path, tmp_path / "ppi"):
        train = load_ppi(root, "train")
        assert len(train) == 1
        assert train[0].x.tolist() == x[[4, 2, 0]].tolist()
        assert train[0].y.tolist() == [[1, 0], [1, 1], [1, 1]]
        assert train[0].edge_index.tolist() == [[0, 1], [1, 0]]
        assert load_ppi(root, "val")[0].x.tolist() == x[[3]].tolist()
        assert load_ppi(root, "test")[0].edge_index.tolist() == [[0, 1], [1, 0]]

    (tmp_path / "ppi" / "ppi-id_map.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"ppi-id_map.json' must hold each node of .*\(got no '10'\)"
    ):
        load_ppi(tmp_path)


def test_load_ppi_missing(tmp_path: Path, official: Path) -> None:
    for root in (tmp_path / "empty", tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            load_ppi(root)
        for text in (*ppi.OFFICIAL, ppi.URL, "datasets.PPI(root)", "ppi-G.json"):
            assert text in str(caught.value)
    (official / "raw" / "test_labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing: test_labels.npy\)"):
        load_ppi(official)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("train_feats.npy", b"", "complete npy file"),
        ("train_feats.npy", np.full((6, 3), np.nan), r"must be finite in float32 \(got 18 values"),
        ("train_feats.npy", np.ones(6), "2 dimensions"),
        ("train_feats.npy", np.array([{}]), "complete npy file"),
        ("train_labels.npy", np.ones((5, 2)), r"row for each of 6 nodes \(got 5\)"),
        ("train_graph_id.npy", np.ones(7), r"row for each of 6 nodes \(got 7\)"),
        ("train_graph.json", b'{"nodes": [', "complete JSON file"),
        ("train_graph.json", b"[]", "JSON object"),
        ("train_graph.json", b'{"nodes": []}', r"node-link graph .*'links'"),
        ("train_graph.json", b'{"nodes": [], "links": []}', r"must link the 6 rows .*got 0 nodes"),
        ("train_graph.json", b'{"nodes": 6, "links": []}', "no list 'nodes'"),
        ("train_graph.json", b'{"nodes": [], "links": [1]}', "no list of objects 'links'"),
        ("train_graph.json", b"[" * 200_000, "complete JSON file"),
        ("train_feats.npy", np.full((6, 3), 1e300), r"must be finite in float32 \(got 18 values"),
        ("train_feats.npy", np.empty((0, 3)), r"must hold a numeric array .*got shape \(0, 3\)"),
        ("train_graph_id.npy", np.full(6, 1.5), r"whole numbers of graphs \(got float64\)"),
    ],
)
def test_load_ppi_damaged(official: Path, name: str, content: Any, text: str) -> None:
    path = official / "raw" / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=rf"{name}' {'.*' if text else ''}{text}"):
        load_ppi(official, "train")


@pytest.mark.parametrize(
    "end", [6, -1, 10**30, 0.9, 1.0, "1", True, None, [1]], ids=lambda end: str(end)
)
@pytest.mark.parametrize("place", ["source", "target"])
def test_load_ppi_ends_are_whole_numbers_of_nodes(official: Path, end: Any, place: str) -> None:
    link = {"source": 0, "target": 1, place: end}
    graph = {"directed": True, "nodes": [0] * 6, "links": [{"source": 1, "target": 0}, link]}
    (official / "raw" / "train_graph.json").write_text(json.dumps(graph))
    with pytest.raises(ValueError, match=r"train_graph.json' must link the 6 rows .*whole numbers"):
        load_ppi(official, "train")


GOOD_MAPS: dict[str, Any] = {
    "ppi-G.json": {"directed": False, "nodes": [{"id": i} for i in range(4)], "links": []},
    "ppi-class_map.json": {str(i): [1, 0] for i in range(4)},
    "ppi-id_map.json": {str(i): i for i in range(4)},
}


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("ppi-id_map.json", {"0": -1}, "must name each of the 4 rows of the features once"),
        ("ppi-id_map.json", {"0": 4}, "must name each of the 4 rows"),
        ("ppi-id_map.json", {"0": 10**30}, "must name each of the 4 rows"),
        ("ppi-id_map.json", {"0": 0.0}, "must name each of the 4 rows"),
        ("ppi-id_map.json", {"0": "0"}, "must name each of the 4 rows"),
        ("ppi-id_map.json", {"0": 1}, "must name each of the 4 rows"),
        ("ppi-class_map.json", {"1": [1]}, "lists of 0 and 1, all of one length"),
        ("ppi-class_map.json", {"1": [1, 2]}, "lists of 0 and 1"),
        ("ppi-class_map.json", {"1": [1, 0.5]}, "lists of 0 and 1"),
        ("ppi-class_map.json", {"1": "10"}, "lists of 0 and 1"),
        ("ppi-class_map.json", {"0": 1}, "lists of 0 and 1"),
        ("ppi-G.json", {"nodes": [0, 1, 2, 3]}, "'nodes' that are no objects"),
        ("ppi-G.json", {"nodes": [{"id": 9}] * 4}, r"id_map.json' must hold each node .*no '9'"),
        ("ppi-G.json", {"nodes": [{"id": i, "val": True} for i in range(4)]}, "split 'train'"),
    ],
)
def test_load_ppi_graphsage_damaged(tmp_path: Path, name: str, change: Any, text: str) -> None:
    for file, content in GOOD_MAPS.items():
        (tmp_path / file).write_text(json.dumps(content))
    np.save(tmp_path / "ppi-feats.npy", np.arange(8.0).reshape(4, 2))
    assert load_ppi(tmp_path)[0].num_nodes == 4
    (tmp_path / name).write_text(json.dumps({**GOOD_MAPS[name], **change}))
    with pytest.raises(ValueError, match=rf"{name}'.*{text}|{text}") as error:
        load_ppi(tmp_path)
    assert str(tmp_path / "ppi-") in str(error.value)


def test_load_ppi_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'split' must be .*\(got 'valid'\)"):
        load_ppi(tmp_path, "valid")
