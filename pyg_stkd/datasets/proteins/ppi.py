"""PPI, the protein-protein interaction graphs of 24 human tissues."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from pyg_stkd.files import read_json, read_npy

__all__ = ["load_ppi"]

URL = "https://data.dgl.ai/dataset/ppi.zip"
PREFIX = {"train": "train", "val": "valid", "test": "test"}
SUFFIXES = ("feats.npy", "labels.npy", "graph_id.npy", "graph.json")
OFFICIAL = tuple(f"{prefix}_{suffix}" for prefix in PREFIX.values() for suffix in SUFFIXES)
GRAPHSAGE = ("ppi-G.json", "ppi-feats.npy", "ppi-class_map.json", "ppi-id_map.json")


def load_ppi(
    root: str | os.PathLike[str],
    split: str = "train",
    transform: Callable[[Data], Data] | None = None,
) -> InMemoryDataset:
    r"""PPI of `"Inductive Representation Learning on Large Graphs"
    <https://arxiv.org/abs/1706.02216>`_ (Section 4.3): 24 graphs (20 / 2 / 2), 50 features, 121
    labels.

    Holds the graphs of :class:`torch_geometric.datasets.PPI`, with the edges sorted and without
    duplicates, but reads the raw files directly, in memory: a read-only copy will do, nothing is
    unpickled, and no stale ``processed`` folder is ever used. Looks, in this order, for the 12
    official files ``{train,valid,test}_{feats.npy,labels.npy,graph_id.npy,graph.json}`` in
    ``root/raw`` and in :obj:`root`; for the release of GraphSAGE (``ppi-G.json``,
    ``ppi-feats.npy``, ``ppi-class_map.json``, ``ppi-id_map.json``) there or in ``root/ppi``,
    which does not say which tissue a protein belongs to, so that a split is **one** graph, the
    disjoint union of its tissues. Features are as stored. Nothing is downloaded: no checksum of the
    official archive is published to check one against.

    Args:
        root (str): The folder.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
            (default: :obj:`"train"`)
        transform (callable, optional): Applied to a :class:`~torch_geometric.data.Data` at every
            access. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(|\mathcal{V}|, 50)`, float32
        - **y:** :math:`(|\mathcal{V}|, 121)`, float32
        - **edge_index:** :math:`(2, |\mathcal{E}|)`, int64, both directions, without self-loops

    Raises:
        FileNotFoundError: If files are missing, with their list and where to get them.
        ValueError: If :obj:`split` is unknown or a file is damaged.

    Example:
        >>> from pyg_stkd.datasets import load_ppi
        >>> load_ppi("data/ppi", "train")  # doctest: +SKIP
        InMemoryDataset(20)
    """
    if split not in PREFIX:
        raise ValueError(f"'split' must be 'train', 'val' or 'test' (got {split!r})")
    root = Path(root)
    folders = (root / "raw", root, root / "ppi")
    for files, read in ((OFFICIAL, _read_official), (GRAPHSAGE, _read_graphsage)):
        for folder in folders:
            if all((folder / name).is_file() for name in files):
                graphs = read(folder, split)
                dataset = InMemoryDataset(None, transform)
                dataset.data, dataset.slices = InMemoryDataset.collate(graphs)
                return dataset
    raise FileNotFoundError(_help(root))


def _help(root: Path) -> str:
    missing = [n for n in OFFICIAL if not any((f / n).is_file() for f in (root / "raw", root))]
    return (
        f"'root' must hold the 12 files of PPI, in it or in its folder 'raw' (got '{root}'; "
        f"missing: {', '.join(missing) or 'none, but they lie in two folders'}). "
        f"Unpack {URL} there, let torch_geometric.datasets.PPI(root) fetch it, or give the "
        "GraphSAGE release "
        f"(https://snap.stanford.edu/graphsage/ppi.zip: {', '.join(GRAPHSAGE)})"
    )


def _read_official(folder: Path, split: str) -> list[Data]:
    feats, labels, graph_id, graph = (folder / f"{PREFIX[split]}_{s}" for s in SUFFIXES)
    x = _numbers(feats, 2)
    member = _numbers(graph_id, 1, len(x))
    if member.dtype.kind not in "iu":
        raise ValueError(f"'{graph_id}' must hold whole numbers of graphs (got {member.dtype})")
    edge_index = _edges(graph, len(x))[1]
    whole = _data(x, _numbers(labels, 2, len(x)), edge_index)
    source, target = whole.edge_index
    graphs = []
    for k in np.unique(member):
        nodes = torch.from_numpy(member == k)
        local = nodes.cumsum(0) - 1
        inside = nodes[source] & nodes[target]
        graphs.append(
            Data(
                x=whole.x[nodes],
                edge_index=local[whole.edge_index[:, inside]],
                y=whole.y[nodes],
            )
        )
    return graphs


def _read_graphsage(folder: Path, split: str) -> list[Data]:
    graph, feats, class_map, id_map = (folder / name for name in GRAPHSAGE)
    x = _numbers(feats, 2)
    nodes, edge_index = _edges(graph, len(x))
    if not all(isinstance(node, dict) for node in nodes):
        raise ValueError(f"'{graph}' must be a node-link graph (got 'nodes' that are no objects)")
    labels, ids = read_json(class_map), read_json(id_map)
    kinds = np.array(
        ["test" if n.get("test") else "val" if n.get("val") else "train" for n in nodes]
    )
    if split not in kinds:
        raise ValueError(f"'{graph}' must hold nodes of the split {split!r} (got none)")
    # links count places in the list of nodes, features the rows that id_map names
    names = [str(node.get("id")) for node in nodes]
    for path, known in ((id_map, ids), (class_map, labels)):
        if absent := [name for name in names if name not in known]:
            raise ValueError(
                f"'{path}' must hold each node of '{graph}' (got no {absent[0][:40]!r})"
            )
    row = [ids[name] for name in names]
    if not _are_indices(row, len(x)) or len(set(row)) < len(row):
        raise ValueError(
            f"'{id_map}' must name each of the {len(x)} rows of the features once "
            f"(got {str(row[:8])[:80]} ...)"
        )
    y = [labels[name] for name in names]
    width = len(y[0]) if isinstance(y[0], list) else 0
    if not all(isinstance(r, list) and len(r) == width and _are_indices(r, 2) for r in y):
        raise ValueError(f"'{class_map}' must hold lists of 0 and 1, all of one length")
    return [
        _data(x[row], np.array(y, dtype=np.float32).reshape(len(y), width), edge_index).subgraph(
            torch.from_numpy(kinds == split)
        )
    ]


def _are_indices(values: list[Any], end: int) -> bool:
    """Return whether all are whole numbers, as JSON writes them, from 0 and below an end."""
    return not values or (set(map(type, values)) == {int} and 0 <= min(values) <= max(values) < end)


def _data(x: NDArray[Any], y: NDArray[Any], edge_index: NDArray[np.int64]) -> Data:
    edges, _ = remove_self_loops(torch.from_numpy(edge_index))
    return Data(
        x=torch.from_numpy(x.astype(np.float32)),
        edge_index=coalesce(edges, num_nodes=len(x)),
        y=torch.from_numpy(y.astype(np.float32)),
    )


def _edges(path: Path, num_nodes: int) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    content = read_json(path)
    nodes, links = content.get("nodes"), content.get("links")
    if not isinstance(nodes, list):
        raise ValueError(f"'{path}' must be a node-link graph (got no list 'nodes')")
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise ValueError(f"'{path}' must be a node-link graph (got no list of objects 'links')")
    ends = [link.get(end) for link in links for end in ("source", "target")]
    if len(nodes) != num_nodes or not _are_indices(ends, num_nodes):
        odd = next((e for e in ends if not _are_indices([e], num_nodes)), "none")
        raise ValueError(
            f"'{path}' must link the {num_nodes} rows of the features by whole numbers "
            f"(got {len(nodes)} nodes, and the end {str(odd)[:40]})"
        )
    edge_index = np.array(ends, dtype=np.int64).reshape(-1, 2).T.copy()
    if not content.get("directed", False):
        edge_index = to_undirected(torch.from_numpy(edge_index), num_nodes=num_nodes).numpy()
    return nodes, edge_index


def _numbers(path: Path, ndim: int, num_rows: int | None = None) -> NDArray[Any]:
    array = read_npy(path)
    if array.ndim != ndim or array.dtype.kind not in "biuf" or len(array) == 0:
        raise ValueError(
            f"'{path}' must hold a numeric array with {ndim} dimensions "
            f"(got shape {array.shape} of {array.dtype})"
        )
    if num_rows is not None and len(array) != num_rows:
        raise ValueError(
            f"'{path}' must have a row for each of {num_rows} nodes (got {len(array)})"
        )
    if array.dtype.kind == "f" and not (np.abs(array) <= np.finfo(np.float32).max).all():
        bad = np.count_nonzero(~(np.abs(array) <= np.finfo(np.float32).max))
        raise ValueError(f"'{path}' must be finite in float32 (got {bad} values that are not)")
    return array
