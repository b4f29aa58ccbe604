"""Every reader of files: a small valid set for it, and what must hold of what it reads.

``TARGETS`` are what a fuzzer runs. Each takes a source of choices, makes one input of it, runs one
reader, and returns how that ended: ``"read"`` or ``"refused"``. Anything else raises.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutations import Pick, damage, damage_archive, pack
from torch import nn
from torch_geometric.data import Data, InMemoryDataset

from pyg_stkd import files
from pyg_stkd.datasets import (
    GaussianAdjacency,
    METRLAWeek,
    ModelNet149,
    ModelNetHDF5,
    ModelNetNormals,
    ModelNetOFF,
    ModelNetVoxels,
    PeMSD4,
    PeMSD7,
    PeMSD8,
    PointClouds,
    Proteins,
    TrafficSeries,
    load_ppi,
)
from pyg_stkd.datasets.points.off_mesh import read_mesh
from pyg_stkd.datasets.points.point_clouds import MODELNET10
from pyg_stkd.datasets.tables import Table, read_table
from pyg_stkd.prune import load_compact, save_compact

Content = bytes | dict[str, bytes]  # a file, or the members of an archive


class NotRefusedRightError(AssertionError):
    """An error of another kind, or one that does not name the file."""


@dataclass
class Reader:
    """A reader, and the files of a valid set for it."""

    read: Callable[[Path], object]
    content: dict[str, Content]
    packed: bool = True
    fixed: tuple[str, ...] = field(default=())  # files that stay as they are

    def write(self, folder: Path) -> None:
        """Write the valid set."""
        for name in self.content:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.whole(name))

    def whole(self, name: str) -> bytes:
        """Return the valid content of a file."""
        content = self.content[name]
        return pack(content, self.packed) if isinstance(content, dict) else content

    def damage(self, pick: Pick) -> tuple[str, bytes]:
        """Return a file of the set, and the content that the choices of a source make of it."""
        names = [name for name in sorted(self.content) if name not in self.fixed]
        name = names[pick(len(names))]
        content = self.content[name]
        if isinstance(content, dict) and pick(4):
            return name, damage_archive(content, pick, self.packed)
        return name, damage(self.whole(name), pick)

    def run(self, folder: Path) -> str:
        """Return how reading a folder ends; raise where it ends in another way."""
        try:
            result = self.read(folder)
        except (ValueError, OSError) as error:
            if type(error) is not ValueError and not isinstance(error, OSError):
                raise NotRefusedRightError(f"{type(error).__name__}: {error}") from error
            names = [str(folder), *(Path(name).name for name in self.content)]
            if not any(name in str(error) for name in names):
                raise NotRefusedRightError(f"does not name the file: {error}") from error
            return "refused"
        check(result)
        return "read"


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def npz(**arrays: object) -> dict[str, bytes]:
    return {f"{name}.npy": npy(array) for name, array in arrays.items()}


def text(table: object, header: str = "") -> bytes:
    rows = "\n".join(",".join(str(v) for v in row) for row in np.asarray(table).tolist())
    return (header + rows + "\n").encode()


SPEED = np.array([[60.0, 61.5, 62.0, 0.0], [58.5, 55.25, 70.0, 61.0], [58.0, 54.0, 69.0, 66.5]])
METRES = np.abs(np.subtract.outer([0, 900, 2500, 4000], [0, 900, 2500, 4000])).astype(float)
WEIGHTS = GaussianAdjacency(threshold=0.0)(torch.from_numpy(METRES)).numpy()
STATIONS = b",ID,Fwy,Latitude,Longitude\n" + b"".join(
    b"%d,71693%d,5,34.0%d,-118.21\n" % (i, i, i) for i in range(4)
)
CSR = {"indptr": [0, 1, 2, 3, 3], "indices": [1, 2, 3], "data": [0.5, 0.25, 0.75]}
SIGNAL = np.stack([100 * SPEED, SPEED / 100, SPEED], axis=2)
LINKS = b"from,to,cost\n0,1,350.5\n1,2,400\n3,1,390.25\n"
PLAIN = Path("set")


def ppi_official() -> dict[str, Content]:
    content: dict[str, Content] = {}
    for part in ("train", "valid", "test"):
        graph = {
            "directed": part == "test",
            "nodes": [{"id": i} for i in range(5)],
            "links": [{"source": s, "target": t} for s, t in ((0, 1), (1, 2), (3, 4))],
        }
        content |= {
            f"{part}_feats.npy": npy(np.arange(15.0).reshape(5, 3)),
            f"{part}_labels.npy": npy(np.arange(10).reshape(5, 2) % 2),
            f"{part}_graph_id.npy": npy([1, 1, 1, 2, 2]),
            f"{part}_graph.json": json.dumps(graph).encode(),
        }
    return content


def ppi_graphsage() -> dict[str, Content]:
    nodes = [{"id": 10 + i, "val": i == 3, "test": i == 4} for i in range(5)]
    links = [{"source": s, "target": t} for s, t in ((0, 1), (1, 2), (3, 4))]
    graph = {"directed": False, "nodes": nodes, "links": links}
    return {
        "ppi-G.json": json.dumps(graph).encode(),
        "ppi-feats.npy": npy(np.arange(15.0).reshape(5, 3)),
        "ppi-class_map.json": json.dumps({str(10 + i): [i % 2, 1] for i in range(5)}).encode(),
        "ppi-id_map.json": json.dumps({str(10 + i): 4 - i for i in range(5)}).encode(),
    }


def proteins(suffix: str, **more: object) -> dict[str, bytes]:
    parts = {f"{part}_idx{suffix}": [i] for i, part in enumerate(("train", "val", "test"))}
    return npz(
        x=np.arange(12.0).reshape(4, 3),
        y=np.eye(4, 2),
        edge_index=[[0, 1, 1, 2], [1, 0, 2, 1]],
        **parts,
        **more,
    )


def voxels() -> np.ndarray:
    grids = np.zeros((2, 30, 30, 30), dtype=np.uint8)
    grids[:, 10:13, 10:13, 10:13] = 1
    return grids


def hdf5() -> bytes:
    h5py = __import__("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as archive:
        archive["data"] = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
        archive["label"] = np.array([[1], [0]], dtype=np.uint8)
    return buffer.getvalue()


def small(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def compact_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_compact(small(3), Path(folder) / "a")
        return (Path(folder) / "a").read_bytes()


OFF = b"OFF\n5 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n-1 0.5 0\n3 0 1 2\n4 0 2 3 4\n"
CLOUD = text(np.arange(18.0).reshape(3, 6) / 64)
BITS = np.packbits(voxels()[:, 3:-3, 3:-3, 3:-3].reshape(2, -1), axis=1)

READERS = {
    "table": Reader(lambda r: read_table(r / "t.csv", missing=True), {"t.csv": text(SPEED)}),
    "json": Reader(lambda r: files.read_json(r / "a.json"), {"a.json": b'{"a": [1, {"b": 2.5}]}'}),
    "npy": Reader(lambda r: files.read_npy(r / "a.npy"), {"a.npy": npy(SPEED)}),
    "npz": Reader(lambda r: files.read_npz(r / "a.npz", "x"), {"a.npz": npz(x=SPEED, y=SPEED)}),
    "METRLAWeek": Reader(
        METRLAWeek,
        {
            "los_speed.csv": text(SPEED, "773869,767541,767542,717447\n"),
            "los_adj.csv": text(WEIGHTS),
        },
    ),
    "PeMSD7": Reader(
        lambda r: PeMSD7(r, 4),
        {
            "V_4.csv": text(SPEED),
            "W_4.csv": text(METRES),
            "PeMSD7_M_Station_Info.csv": STATIONS,
        },
    ),
    "PeMSD7 csr": Reader(
        lambda r: PeMSD7(r, 4),
        {"vel.csv": text(SPEED), "adj.npz": npz(format=b"csr", shape=[4, 4], **CSR)},
        fixed=("vel.csv",),
    ),
    "PeMSD7 coo": Reader(
        lambda r: PeMSD7(r, 4),
        {
            "vel.csv": text(SPEED),
            "adj.npz": npz(format="coo", shape=[4, 4], row=[0, 1], col=[1, 3], data=[0.5, 0.25]),
        },
        packed=False,
        fixed=("vel.csv",),
    ),
    "PeMSD4": Reader(PeMSD4, {"pems04.npz": npz(data=SIGNAL), "distance.csv": LINKS}),
    "PeMSD8": Reader(
        lambda r: PeMSD8(r, GaussianAdjacency()),
        {
            "PEMS08.npz": npz(data=SIGNAL[..., :1]),
            "PEMS08.csv": LINKS.replace(b"\n3,", b"\n4,"),
            "PEMS08.txt": b"1\n2\n4\n0\n",
        },
        packed=False,
    ),
    "PPI": Reader(
        load_ppi,
        ppi_official(),
        fixed=tuple(name for name in ppi_official() if not name.startswith("train")),
    ),
    "PPI of GraphSAGE": Reader(load_ppi, ppi_graphsage()),
    "pcg": Reader(lambda r: Proteins(r, "pcg", 1), {"pcg.npz": proteins("_1")}),
    "humloc": Reader(
        lambda r: Proteins(r, "humloc"), {"humloc.npz": proteins("", edge_attr=np.ones((4, 2)))}
    ),
    "ModelNet149": Reader(
        ModelNet149,
        {
            "modelnet10_149x2048.npz": npz(
                pos=np.ones((2, 4, 3), dtype=np.float16),
                normal=np.ones((2, 4, 3)),
                y=[0, 9],
                split=[0, 1],
                name=["bathtub_1", "toilet_1"],
            )
        },
    ),
    "ModelNetVoxels": Reader(
        lambda r: ModelNetVoxels(r, points=8),
        {"modelnet10.npz": npz(X_train=voxels(), y_train=[8, 0])},
    ),
    "ModelNetVoxels packed": Reader(
        ModelNetVoxels,
        {"modelnet10_vox24_packed.npz": npz(train_bits=BITS, train_y=np.array([8, 0]))},
    ),
    "ModelNetNormals": Reader(
        lambda r: ModelNetNormals(r, points=2),
        {
            "modelnet40_shape_names.txt": b"bed\nnight_stand\n",
            "modelnet40_train.txt": b"night_stand_0001\nbed_0002\n",
            "night_stand/night_stand_0001.txt": CLOUD,
            "bed/bed_0002.txt": CLOUD,
        },
    ),
    "OFF mesh": Reader(lambda r: read_mesh(r / "a.off").pos.numpy(), {"a.off": OFF}),
    "ModelNetOFF": Reader(
        lambda r: ModelNetOFF(r, points=2),
        {f"{kind}/train/{kind}_0001.off": OFF for kind in MODELNET10},
    ),
}
with contextlib.suppress(ImportError):  # h5py is optional
    READERS["ModelNetHDF5"] = Reader(
        ModelNetHDF5,
        {
            "shape_names.txt": b"bed\nchair\n",
            "train_files.txt": b"data/a.h5\n",
            "a.h5": hdf5(),
        },
    )
with contextlib.suppress(ImportError):  # safetensors is optional
    READERS["load_compact"] = Reader(
        lambda r: load_compact(r / "small.safetensors", lambda: small(64)),
        {"small.safetensors": compact_file()},
    )


def check(result: Any) -> None:
    """Raise unless what was read is sound: finite, in range, and as large as it says."""
    if isinstance(result, TrafficSeries):
        check_series(result)
    elif isinstance(result, PointClouds):
        assert result._data.pos.isfinite().all()
        assert 0 <= int(result.y.min()) <= int(result.y.max()) < result.num_classes
        assert len(result.y) == len(result) > 0
        assert result[len(result) - 1].pos.shape[1:] == (3,)
    elif isinstance(result, InMemoryDataset):
        for graph in result:
            check_graph(graph)
    elif isinstance(result, Table):
        assert result.values.ndim == 2
        assert not np.isinf(result.values).any()
    elif isinstance(result, nn.Sequential):
        out = result.eval()(torch.ones(1, result[0].in_features))
        assert out.shape == (1, result[2].out_features)
    elif isinstance(result, dict):
        json.dumps(
            {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in result.items()},
            default=repr,
        )
    else:
        assert isinstance(result, np.ndarray)
        assert result.dtype.kind in "biufcSU"


def check_series(series: TrafficSeries) -> None:
    values, mask = series.values, series.mask
    assert values.shape == mask.shape == (series.num_steps, series.num_nodes, series.num_channels)
    assert values[mask].isfinite().all()
    assert (values[mask] >= 0).all()
    assert values[~mask].isnan().all()
    assert series.times is not None
    assert len(series.times) == series.num_steps
    assert series.names is None or len(series.names) == series.num_nodes
    assert series.edge_weight.isfinite().all()
    assert ((series.edge_weight > 0) & (series.edge_weight <= 1)).all()
    if series.edge_index.numel():
        assert 0 <= int(series.edge_index.min()) <= int(series.edge_index.max()) < series.num_nodes


def check_graph(graph: Data) -> None:
    assert graph.x.isfinite().all()
    assert graph.y.isfinite().all()
    assert len(graph.x) == len(graph.y) == graph.num_nodes > 0
    if graph.edge_index.numel():
        assert 0 <= int(graph.edge_index.min()) <= int(graph.edge_index.max()) < graph.num_nodes
    if graph.get("edge_attr") is not None:
        assert graph.edge_attr.isfinite().all()


def target(reader: Reader) -> Callable[[Pick], str]:
    made: list[Path] = []  # a folder of the valid set, made once

    def run(pick: Pick) -> str:
        if not made:
            made.append(Path(tempfile.mkdtemp()))
            atexit.register(shutil.rmtree, made[0])
            reader.write(made[0])
        name, content = reader.damage(pick)
        (made[0] / name).write_bytes(content)
        try:
            return reader.run(made[0])
        finally:
            (made[0] / name).write_bytes(reader.whole(name))

    return run


TARGETS = {name: target(reader) for name, reader in READERS.items()}
