"""Tiny files in each official layout, and the real ones where PYG_STKD_DATA names their folder."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_stkd.datasets.traffic.adjacency import GaussianAdjacency
from pyg_stkd.datasets.traffic.pemsd7 import PeMSD7

DATA = os.environ.get("PYG_STKD_DATA")
real = pytest.mark.skipif(DATA is None, reason="set PYG_STKD_DATA to a folder of real data")

SPEED = [[60.0, 61.5, 62.0], [0.0, 55.25, 70.0], [58.0, 54.0, 69.0]]
METRES = [[0.0, 1000.0, 2000.0], [1000.0, 0.0, 2700.0], [2000.0, 2700.0, 0.0]]
NEAR, FAR = math.exp(-0.1), math.exp(-0.4)


def rows(table: list[list[float]], end: str = "\n") -> str:
    return "".join(",".join(f"{v:.18e}" for v in row) + end for row in table)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in root.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("prefix", ["PeMSD7_", ""])
@pytest.mark.parametrize("folder", ["", "raw"])
@pytest.mark.parametrize("end", ["\n", ",\n", "\r\n"])  # PeMSD7_W_228.csv: with a comma at the end
def test_pemsd7_of_stgcn(tmp_path: Path, prefix: str, folder: str, end: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / f"{prefix}V_3.csv").write_text(rows(SPEED))
    (tmp_path / folder / f"{prefix}W_3.csv").write_text(rows(METRES, end), newline="")
    before = snapshot(tmp_path)
    series = PeMSD7(tmp_path, num_nodes=3)
    assert snapshot(tmp_path) == before  # nothing is written, not even touched

    assert series.values.shape == (3, 3, 1)
    assert series.values.dtype == torch.float32
    expected = np.array(SPEED, dtype=np.float32)
    expected[1, 0] = np.nan  # zero is missing
    np.testing.assert_array_equal(series.values[..., 0], expected)
    assert series.mask[..., 0].tolist() == [[True] * 3, [False, True, True], [True] * 3]
    assert series.edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert series.edge_weight.tolist() == pytest.approx([NEAR, FAR, NEAR, FAR], rel=1e-6)
    assert (series.unit, series.step_minutes, series.days_per_week) == ("mph", 5, 5)


def test_pemsd7_kernel_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "V_3.csv").write_text(rows(SPEED))
    (tmp_path / "W_3.csv").write_text(rows(METRES))
    series = PeMSD7(tmp_path, 3, kernel=GaussianAdjacency(threshold=0.9))
    assert series.edge_index.tolist() == [[0, 1], [1, 0]]


def test_pemsd7_of_hazdzz(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    weights = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 1.0]])
    sparse.save_npz(tmp_path / "adj.npz", sparse.csc_matrix(weights))
    for header in ("", "0,1,2\n"):
        (tmp_path / "vel.csv").write_text(header + rows(SPEED))
        series = PeMSD7(tmp_path, num_nodes=3)
        assert series.values[2, :, 0].tolist() == [58.0, 54.0, 69.0]
        assert series.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
        assert series.edge_weight.tolist() == [0.5, 0.5, 0.25, 0.25]


def test_pemsd7_large_and_medium_may_share_a_folder(tmp_path: Path) -> None:
    for n in (2, 3):
        (tmp_path / f"PeMSD7_V_{n}.csv").write_text(rows([row[:n] for row in SPEED]))
        (tmp_path / f"PeMSD7_W_{n}.csv").write_text(rows([row[:n] for row in METRES[:n]]))
    assert PeMSD7(tmp_path, 2).num_nodes == 2
    assert PeMSD7(tmp_path, 3).num_nodes == 3


def test_pemsd7_working_days_and_stations(tmp_path: Path) -> None:
    (tmp_path / "V_1.csv").write_text("60.5\n" * (288 * 5))
    (tmp_path / "W_1.csv").write_text("0.0\n")
    (tmp_path / "PeMSD7_M_Station_Info.csv").write_text(
        ",ID,Fwy,Dir,District,Latitude,Longitude\n0,716939,5,S,7,34.041407,-118.218373\n"
    )
    series = PeMSD7(tmp_path, 1)
    assert series.times is not None
    assert series.times[288 * 3 + 287] == np.datetime64("2012-05-04T23:55")  # Friday
    assert series.times[288 * 4] == np.datetime64("2012-05-07")  # Monday
    assert series.names == ["716939"]
    assert series.pos is not None
    assert series.pos.tolist() == [[-118.218373, 34.041407]]
    assert series.edge_index.shape == (2, 0)


def test_pemsd7_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"PeMSD7_V_3\.csv or V_3\.csv or vel\.csv"):
        PeMSD7(tmp_path, 3)
    (tmp_path / "V_3.csv").write_text(rows(SPEED))
    with pytest.raises(FileNotFoundError, match=r"must hold W_3\.csv"):
        PeMSD7(tmp_path, 3)

    def check(message: str, metres: str) -> None:
        (tmp_path / "W_3.csv").write_text(metres)
        with pytest.raises(ValueError, match=message):
            PeMSD7(tmp_path, 3)

    check(r"W_3\.csv' must be \[N, N\] = \[3, 3\].*\(got \(2, 3\)", rows(METRES[:2]))
    check(r"W_3\.csv' must have 3 fields .*\(got 2 in line 3\)", rows(METRES)[:-30])
    check(r"W_3\.csv': .*\(got -1\.0 at \[0, 1\]", rows([[0.0, -1.0, 1.0], *METRES[1:]]))
    check(r"W_3\.csv' .*'inf' in line 1, column 2", rows([[0.0, math.inf, 1.0], *METRES[1:]]))
    check(r"W_3\.csv' .*'nan' in line 1, column 2", rows([[0.0, math.nan, 1.0], *METRES[1:]]))
    oneway = [[0.0, 1500.0, 2000.0], *METRES[1:]]
    check(
        r"W_3\.csv' must hold the distance of each pair.*\(got 1500 from 0 to 1, 1000 back\)",
        rows(oneway),
    )
    broken = [[0.0, 1000.0, 0.0], METRES[1], [0.0, 2700.0, 0.0]]
    check(r"\(got 0 from 0 to 2, which are not as far from others: no road", rows(broken))
    for table in (oneway, broken):
        (tmp_path / "W_3.csv").write_text(rows(table))
        series = PeMSD7(tmp_path, 3, GaussianAdjacency(threshold=0.0), values="metres")
        assert series.edge_index.size(1) == 6
    (tmp_path / "W_3.csv").write_text(rows(METRES))

    def speeds(message: str, table: str, **kwargs: bool) -> None:
        (tmp_path / "V_3.csv").write_text(table)
        with pytest.raises(ValueError, match=message):
            PeMSD7(tmp_path, 3, **kwargs)

    speeds(r"V_3\.csv' must have 3 fields", rows(SPEED)[:-30])
    speeds(r"must be \[T, N\].*\(got \(3, 2\)\)", rows([row[:2] for row in SPEED]))
    transposed = rows([[60.0, 61.0, 62.0, 63.0, 64.0]] * 3)
    speeds(r"it looks like \[N, T, C\]", transposed)
    speeds(r"V_3\.csv' .*'inf' in line 1, column 2", rows([[60.0, math.inf, 61.0]] * 3))
    dead = rows([[60.0, 0.0, 61.0]] * 3)
    speeds(r"V_3\.csv': .*got 1 sensors without a reading: \[1\]", dead)
    assert PeMSD7(tmp_path, 3, drop_dead=True).num_nodes == 2


def test_pemsd7_stations_of_one_place(tmp_path: Path) -> None:
    (tmp_path / "V_3.csv").write_text(rows(SPEED))
    (tmp_path / "W_3.csv").write_text("0,0,1000\n0,0,1000\n1000,1000,0\n")
    assert PeMSD7(tmp_path, 3).edge_weight.tolist() == pytest.approx([1, NEAR] * 2 + [NEAR] * 2)


@pytest.mark.parametrize("word", ["NA", "-", "NULL", "nan", ""])
@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("column", [0, 2])
def test_pemsd7_a_missing_reading_moves_nothing(
    tmp_path: Path, word: str, row: int, column: int
) -> None:
    fields = [[str(60.5 + 3 * i + j) for j in range(3)] for i in range(3)]
    fields[row][column] = word
    (tmp_path / "V_3.csv").write_text("\n".join(",".join(line) for line in fields))
    (tmp_path / "W_3.csv").write_text(rows(METRES))
    series = PeMSD7(tmp_path, 3)
    assert series.names is None
    assert (~series.mask).nonzero().tolist() == [[row, column, 0]]
    expected = torch.arange(9.0).view(3, 3, 1) + 60.5
    assert torch.equal(series.values[series.mask], expected[series.mask])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("5o.0,50.1,50.2", r"'5o.0' in line 1, column 1"),
        ("x,50.1,50.2", r"'x' in line 1, column 1"),
        ("#50,50.1,50.2", r"'#50' in line 1, column 1"),
        (
            "-1,50.1,50.2",
            r"a speed from 0 to 200 mph \(got -1 at step 0, node 0, and 0 more: .*mark",
        ),
        ("50,50.1,-0.7", r"got -0.7 at step 0, node 2, and 0 more: standardised"),
        ("50,50.1,201", r"got 201 at step 0, node 2, and 0 more: not in mph\?"),
    ],
)
def test_pemsd7_refuses_readings(tmp_path: Path, damage: str, message: str) -> None:
    (tmp_path / "V_3.csv").write_text(damage + "\n" + rows(SPEED))
    (tmp_path / "W_3.csv").write_text(rows(METRES))
    with pytest.raises(ValueError, match=rf"V_3\.csv' must hold .*{message}"):
        PeMSD7(tmp_path, 3)


def test_pemsd7_values_say_what_the_matrix_holds(tmp_path: Path) -> None:
    (tmp_path / "V_3.csv").write_text(rows(SPEED))
    weights = [[1.0, 0.9, 0.0], [0.9, 1.0, 0.5], [0.0, 0.5, 1.0]]
    (tmp_path / "W_3.csv").write_text(rows(weights))
    with pytest.raises(ValueError, match=r"W_3\.csv': .*values='weights'.*are these weights"):
        PeMSD7(tmp_path, 3)
    series = PeMSD7(tmp_path, 3, values="weights")
    assert series.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert series.edge_weight.tolist() == pytest.approx([0.9, 0.9, 0.5, 0.5])
    (tmp_path / "W_3.csv").write_text(rows(METRES))
    with pytest.raises(ValueError, match=r"W_3\.csv' must hold weights from 0 to 1.*distances"):
        PeMSD7(tmp_path, 3, values="weights")
    (tmp_path / "W_3.csv").write_text(rows([[v / 1e3 for v in row] for row in METRES]))
    with pytest.raises(ValueError, match=r"W_3\.csv': .*kilometres"):
        PeMSD7(tmp_path, 3)
    assert PeMSD7(tmp_path, 3, GaussianAdjacency(scale=10.0)).edge_index.size(1) == 4
    (tmp_path / "W_3.csv").write_text("1,1,0\n1,1,0\n0,0,1\n")  # zeros and ones: an adjacency
    assert PeMSD7(tmp_path, 3).edge_index.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="'values' must be one of"):
        PeMSD7(tmp_path, 3, values="miles")  # type: ignore[arg-type]


def test_pemsd7_refuses_a_station_list_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "V_3.csv").write_text(rows(SPEED))
    (tmp_path / "W_3.csv").write_text(rows(METRES))
    (tmp_path / "PeMSD7_M_Station_Info.csv").write_text(
        "ID,Latitude,Longitude\n1,34,-118\n2,34,-118\n"
    )
    with pytest.raises(ValueError, match=r"Station_Info\.csv' must list the N = 3.*\(got 2"):
        PeMSD7(tmp_path, 3)


@real
@pytest.mark.parametrize("layout", ["stgcn", "hazdzz"])
def test_real_pemsd7m_graph(tmp_path: Path, layout: str) -> None:
    source = Path(str(DATA)) / "pemsd7m_graph"
    graph = "PeMSD7_W_228.csv" if layout == "stgcn" else "adj.npz"
    speed = "PeMSD7_V_228.csv" if layout == "stgcn" else "vel.csv"
    for name in (graph, "PeMSD7_M_Station_Info.csv"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / speed).write_text(rows([[60.5] * 228] * 3))
    series = PeMSD7(tmp_path)
    # 19,118 entries with the diagonal; 1,664 by the rule of STGCN, which has none.
    assert series.edge_index.size(1) == {"stgcn": 1664, "hazdzz": 19118 - 228}[layout]
    assert series.names is not None
    assert series.names[0] == "716939"
