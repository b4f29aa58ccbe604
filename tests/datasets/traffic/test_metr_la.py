from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pyg_stkd.datasets.traffic.metr_la import METRLAWeek

DATA = os.environ.get("PYG_STKD_DATA")


NAMES = "773869,767541\n"
GOOD = NAMES + "64,65\n"
WEIGHTS = "1,0\n0,1\n"


def write(root: Path, speed: str, weights: str) -> None:
    (root / "los_speed.csv").write_text(speed)
    (root / "los_adj.csv").write_text(weights)


def test_layout(tmp_path: Path) -> None:
    write(tmp_path, "773869,767541\n64.375,0\n62.5,67.125\n", "1,0.26\n0.5,1\n")
    series = METRLAWeek(tmp_path)
    assert series.names == ["773869", "767541"]
    assert series.values[series.mask].tolist() == [64.375, 62.5, 67.125]
    assert series.mask[..., 0].tolist() == [[True, False], [True, True]]
    assert series.values[0, 1].isnan().all()
    assert series.edge_index.tolist() == [[0, 1], [1, 0]]
    assert series.edge_weight.tolist() == pytest.approx([0.26, 0.5])
    assert series.times is not None
    assert (
        series.times.tolist()
        == np.array(["2012-03-01T00:00", "2012-03-01T00:05"], "M8[m]").tolist()
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["los_adj.csv", "los_speed.csv"]


@pytest.mark.parametrize(
    ("speed", "weights", "message"),
    [
        (GOOD, "1\n", r"los_adj\.csv' must be \[N, N\] = \[2, 2\]"),
        (GOOD, "1,-1\n0,1\n", r"los_adj\.csv' must hold weights from 0 to 1 \(got -1 to 1"),
        (GOOD, "1,900\n900,1\n", r"los_adj\.csv' must hold .* 1 to 900: are these distances"),
        (GOOD, "1,nan\n0,1\n", r"los_adj\.csv' must hold finite numbers \(got 'nan' in line 1"),
        (GOOD + "63\n", WEIGHTS, r"los_speed\.csv' must have 2 fields .* \(got 1 in line 3\)"),
        (NAMES + "64,0\n63,0\n", WEIGHTS, r"los_speed\.csv': .* without a reading: \['767541'\]"),
        (NAMES + "64,inf\n", WEIGHTS, r"los_speed\.csv' must hold .*'inf' in line 2, column 2"),
        (NAMES + "64,-1\n", WEIGHTS, r"los_speed\.csv' must hold a speed from 0 to 200 mph"),
        (GOOD + "\n64,65\n", WEIGHTS, r"\(got none in line 3\)"),
        (GOOD + "#64,65\n", WEIGHTS, r"'#64' in line 3, column 1"),
    ],
)
def test_refuses(tmp_path: Path, speed: str, weights: str, message: str) -> None:
    write(tmp_path, speed, weights)
    with pytest.raises(ValueError, match=message):
        METRLAWeek(tmp_path)


@pytest.mark.parametrize("word", ["NA", "-", "NULL", "", "NaN"])
@pytest.mark.parametrize("names", [NAMES, ""])
def test_a_word_for_missing_in_the_first_row_loses_no_step(
    tmp_path: Path, word: str, names: str
) -> None:
    write(tmp_path, f"{names}64.5,{word}\n60,61\n", WEIGHTS)
    series = METRLAWeek(tmp_path)
    assert series.num_steps == 2
    assert series.names == (["773869", "767541"] if names else None)
    assert series.mask[..., 0].tolist() == [[True, False], [True, True]]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold los_speed\.csv"):
        METRLAWeek(tmp_path)


@pytest.mark.skipif(DATA is None, reason="set PYG_STKD_DATA to a folder of real data")
def test_real_week() -> None:
    series = METRLAWeek(Path(str(DATA)) / "metr_la_week")
    assert series.values.shape == (2016, 207, 1)
    assert series.values.double().mean().item() == pytest.approx(58.89, abs=0.01)
    assert series.mask.all()  # the authors filled the gaps
    assert series.edge_index.size(1) == 2833 - 207
    assert series.times is not None
    assert series.times[-1] == np.datetime64("2012-03-07T23:55")
