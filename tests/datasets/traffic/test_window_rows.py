from __future__ import annotations

import numpy as np
import pytest
import torch

from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries
from pyg_stkd.datasets.traffic.window_rows import (
    on_one_day,
    rows_before,
    rows_follow,
    without_gap,
)


def make(times: list[str] | None, num_steps: int, **kwargs: int) -> TrafficSeries:
    stamps = None if times is None else np.array(times, dtype="M8[m]")
    values = torch.ones(num_steps, 1, 1)
    return TrafficSeries(values, times=stamps, step_minutes=720, **kwargs)  # type: ignore[arg-type]


def test_rows_before_without_time_stamps() -> None:
    rows = rows_before(make(None, 30), days=2, weeks=1)  # 2 steps a day
    assert rows[14:16].tolist() == [[0, 10, 12], [1, 11, 13]]
    assert rows[3].tolist() == [-1, -1, 1]
    assert rows_before(make(None, 30), 0, 0).shape == (30, 0)
    rows = rows_before(make(None, 30, days_per_week=5), days=0, weeks=1)
    assert rows[[9, 10, 29], 0].tolist() == [-1, 0, 19]


def test_rows_before_by_time_stamps() -> None:
    times = ["2024-01-04T00", "2024-01-04T12", "2024-01-05T12", "2024-01-06T00", "2024-01-06T12"]
    rows = rows_before(make(times, 5), days=1, weeks=0)
    assert rows.tolist() == [[-1], [-1], [1], [-1], [2]]


def test_rows_before_of_working_days() -> None:
    # Thursday, Friday, Monday, and the Thursday of the next week.
    times = ["2024-01-04T12", "2024-01-05T12", "2024-01-08T12", "2024-01-11T12"]
    series = make(times, 4, days_per_week=5)
    assert rows_before(series, days=2, weeks=1).tolist() == [
        [-1, -1, -1],
        [-1, -1, 0],
        [-1, 0, 1],
        [0, -1, -1],
    ]


@pytest.mark.parametrize(
    ("rows", "length", "expected"),
    [
        ([[0], [1], [2], [4]], 1, [True] * 4),
        ([[0], [1], [2], [4]], 2, [True, True, False]),
        ([[0], [1], [2], [4]], 3, [True, False]),
        ([[-1], [0], [1]], 2, [False, True]),
        ([[-1], [-1]], 1, [False, False]),
        ([[0, 5], [1, 6], [2, -1]], 2, [True, False]),
    ],
)
def test_rows_follow(rows: list[list[int]], length: int, expected: list[bool]) -> None:
    assert rows_follow(np.array(rows), length).tolist() == expected
    assert rows_follow(np.empty((4, 0), dtype=np.int64), length).all()


def test_gaps_and_days() -> None:
    times = ["2024-01-04T00", "2024-01-04T12", "2024-01-05T12", "2024-01-06T00"]
    first, last = np.array([0, 1, 2]), np.array([1, 2, 3])
    assert without_gap(make(times, 4), first, last).tolist() == [True, False, True]
    assert on_one_day(make(times, 4), first, last).tolist() == [True, False, False]
    assert without_gap(make(None, 4), first, last).all()
    assert on_one_day(make(None, 4), first, last).all()
