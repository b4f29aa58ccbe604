"""Tiny files in each official layout, and the real ones where PYG_STKD_DATA names their folder."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_stkd.datasets.traffic.adjacency import GaussianAdjacency
from pyg_stkd.datasets.traffic.pems import PeMSD4, PeMSD8

DATA = os.environ.get("PYG_STKD_DATA")
real = pytest.mark.skipif(DATA is None, reason="set PYG_STKD_DATA to a folder of real data")

NEAR, FAR = math.exp(-0.1), math.exp(-0.4)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in root.rglob("*")
        if p.is_file()
    }


def signal(num_steps: int = 4, num_nodes: int = 3) -> np.ndarray:
    data = np.empty((num_steps, num_nodes, 3))
    data[..., 0] = 100 + np.arange(num_nodes)
    data[..., 1] = 0.05
    data[..., 2] = 60 + np.arange(num_steps)[:, None]
    return data


LINKS = "from,to,cost\n{0},{1},1000.0\n{1},{2},2000.0\n{1},{2},2000.0\n"


@pytest.mark.parametrize("cls", [PeMSD4, PeMSD8])
@pytest.mark.parametrize("names", ["astgcn", "stsgcn"])
@pytest.mark.parametrize("ids", [(0, 1, 2), (1, 2, 3), (400863, 318711, 317842)])
def test_pemsd4_and_pemsd8(
    tmp_path: Path, cls: type[PeMSD4], names: str, ids: tuple[int, int, int]
) -> None:
    stem = {"PeMSD4": "pems04", "PeMSD8": "pems08"}[cls.__name__]
    upper = names == "stsgcn"
    data = signal()
    np.savez(tmp_path / f"{stem.upper() if upper else stem}.npz", data=data)
    (tmp_path / (f"{stem.upper()}.csv" if upper else "distance.csv")).write_text(
        LINKS.format(*ids), newline="\r\n"
    )
    if ids[0] > 3:
        (tmp_path / f"{stem.upper()}.txt").write_text("".join(f"{i}\n" for i in ids))
    before = snapshot(tmp_path)
    series = cls(tmp_path)
    assert snapshot(tmp_path) == before
    assert series.values.dtype == torch.float32
    np.testing.assert_array_equal(series.values, data.astype(np.float32))
    assert series.mask.all()
    assert series.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert series.edge_weight.tolist() == [1.0] * 4
    assert series.channels == ("flow", "occupancy", "speed")
    assert series.start == np.datetime64(
        {"PeMSD4": "2018-01-01", "PeMSD8": "2016-07-01"}[cls.__name__]
    )
    assert series.names == ([str(i) for i in ids] if ids[0] > 3 else None)

    series = cls(tmp_path, GaussianAdjacency(), undirected=False)
    assert series.edge_index.tolist() == [[0, 1], [1, 2]]
    assert series.edge_weight.tolist() == pytest.approx([NEAR, FAR], rel=1e-6)


def test_id_list_beside_links_that_are_numbered_already(tmp_path: Path) -> None:
    np.savez(tmp_path / "PEMS08.npz", data=signal())
    (tmp_path / "PEMS08.csv").write_text(LINKS.format(0, 1, 2))
    (tmp_path / "PEMS08.txt").write_text("9001\n9002\n9003\n")
    series = PeMSD8(tmp_path)
    assert series.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert series.names == ["9001", "9002", "9003"]


def test_flow_of_zero_is_a_reading_and_speed_of_zero_is_not(tmp_path: Path) -> None:
    data = signal()
    data[0, 0, 0] = 0.0  # an empty road at night
    data[1, 1, 2] = 0.0  # no speed
    data[2, 2] = 0.0  # nothing at all
    data[3, 0, 1] = np.nan
    np.savez(tmp_path / "pems08.npz", data=data)
    (tmp_path / "distance.csv").write_text(LINKS.format(0, 1, 2))
    series = PeMSD8(tmp_path)
    missing = (~series.mask).nonzero().tolist()
    assert missing == [[1, 1, 2], [2, 2, 0], [2, 2, 1], [2, 2, 2], [3, 0, 1]]
    assert series.values[~series.mask].isnan().all()
    assert series.values[0, 0, 0] == 0


def test_one_feature(tmp_path: Path) -> None:
    np.savez(tmp_path / "PEMS08.npz", data=signal()[..., :1])
    (tmp_path / "PEMS08.csv").write_text(LINKS.format(0, 1, 2))
    assert PeMSD8(tmp_path).channels == ("flow",)


def test_pemsd8_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pems08\.npz or PEMS08\.npz"):
        PeMSD8(tmp_path)
    np.savez(tmp_path / "pems08.npz", data=signal(num_steps=6))
    with pytest.raises(FileNotFoundError, match=r"distance\.csv or PEMS08\.csv"):
        PeMSD8(tmp_path)

    def check(message: str, links: str) -> None:
        (tmp_path / "distance.csv").write_text(links)
        with pytest.raises(ValueError, match=message):
            PeMSD8(tmp_path)

    check(
        r"distance\.csv': .*N = 3 stations.*\(got ids 0 to 3 and no list\)", LINKS.format(0, 1, 3)
    )
    check("by the ids of the list in a .txt file", LINKS.format(400863, 318711, 317842))
    check(r"got -5\.0 at \[0\]", "from,to,cost\n0,1,-5\n")
    check("got '' in line 2, column 3", "from,to,cost\n0,1,\n")
    check("got 'NA' in line 1, column 3", "0,1,NA\n1,2,300\n")
    check("got 'inf' in line 2, column 3", "from,to,cost\n0,1,inf\n")
    check("must have 3 fields", LINKS.format(0, 1, 2)[:-10])
    check("must have rows below its header", "from,to,cost\n")

    (tmp_path / "distance.csv").write_text(LINKS.format(0, 1, 2))
    (tmp_path / "PEMS08.txt").write_text("1\n2\n")
    with pytest.raises(ValueError, match=r"the id list must name the N = 3.*\(got 2 ids\)"):
        PeMSD8(tmp_path)
    (tmp_path / "PEMS08.txt").unlink()

    for wrong, message in (
        (signal(6).transpose(1, 0, 2), r"it looks like \[N, T, C\]"),
        (signal(6).transpose(0, 2, 1)[..., [0, 1, 2, 2]], r"C = 1 or 3 features \(got shape"),
    ):
        np.savez(tmp_path / "pems08.npz", data=wrong)
        with pytest.raises(ValueError, match=message):
            PeMSD8(tmp_path)


@pytest.mark.parametrize(
    ("channel", "value", "message"),
    [
        (0, -1.0, r"a flow from 0 to 10000 vehicles / 5 min \(got -1 at step 1, node 2, .* marker"),
        (1, 7.5, r"an occupancy from 0 to 1 share of time \(got 7.5 .*: not in share of time\?"),
        (2, -0.5, r"a speed from 0 to 200 mph \(got -0.5 .* standardised"),
        (2, 1e5, r"a speed from 0 to 200 mph \(got 100000 "),
        (2, math.inf, r"a speed from 0 to 200 mph \(got inf "),
    ],
)
def test_pemsd8_refuses_readings(tmp_path: Path, channel: int, value: float, message: str) -> None:
    (tmp_path / "distance.csv").write_text(LINKS.format(0, 1, 2))
    data = signal()
    data[1, 2, channel] = value
    np.savez(tmp_path / "pems08.npz", data=data)
    with pytest.raises(ValueError, match=rf"pems08\.npz' must hold {message}"):
        PeMSD8(tmp_path)


def test_pemsd8_refuses_lengths_in_kilometres(tmp_path: Path) -> None:
    np.savez(tmp_path / "pems08.npz", data=signal())
    (tmp_path / "distance.csv").write_text("from,to,cost\n0,1,0.35\n1,2,0.4\n")
    assert PeMSD8(tmp_path).edge_index.size(1) == 4  # connectivity alone
    with pytest.raises(ValueError, match=r"distance\.csv': .*kilometres"):
        PeMSD8(tmp_path, GaussianAdjacency())
    assert PeMSD8(tmp_path, GaussianAdjacency(scale=10.0)).edge_index.size(1) == 4


@real
def test_real_pems04_500() -> None:
    root = Path(str(DATA)) / "pems04_500"
    series = PeMSD4(root, signal="pems04_500.npz")
    assert series.values.shape == (500, 307, 3)
    assert series.values[0, 0].tolist() == pytest.approx([62, 0.0077, 67.9])
    assert series.edge_index.shape == (2, 680)  # 340 links, none listed in both directions
    assert series.mask.all()


@real
def test_real_pems08_graph(tmp_path: Path) -> None:
    (tmp_path / "distance.csv").write_bytes(
        (Path(str(DATA)) / "pems08_graph" / "distance.csv").read_bytes()
    )
    np.savez(tmp_path / "pems08.npz", data=signal(3, 170))
    assert PeMSD8(tmp_path, undirected=False).edge_index.size(1) == 277
    assert PeMSD8(tmp_path).edge_index.unique().numel() == 170
