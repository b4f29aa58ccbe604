"""Which rows of a traffic series lie days and weeks before others, by its time stamps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

__all__ = ["on_one_day", "rows_before", "rows_follow", "without_gap"]


def rows_before(series: TrafficSeries, days: int, weeks: int) -> NDArray[np.int64]:
    """Return for each step the rows of the steps so many weeks, and days, before it.

    Args:
        series (TrafficSeries): The readings. Its days are calendar days, or working days where it
            has only these; its weeks are of seven calendar days. Without time stamps both are
            numbers of rows.
        days (int): The number of days.
        weeks (int): The number of weeks.

    Returns:
        ndarray: The rows, -1 where there is none :math:`[T, weeks + days]`, the earliest first.
    """
    lags = [(0, k) for k in range(weeks, 0, -1)] + [(k, 0) for k in range(days, 0, -1)]
    rows = np.empty((series.num_steps, len(lags)), dtype=np.int64)
    for column, (day, week) in enumerate(lags):
        rows[:, column] = _rows_before(series, day, week)
    return rows


def _rows_before(series: TrafficSeries, days: int, weeks: int) -> NDArray[np.int64]:
    if series.times is None:
        lag = days * series.steps_per_day + weeks * series.steps_per_week
        return np.maximum(np.arange(series.num_steps) - lag, -1)
    day = series.times.astype("datetime64[D]")
    earlier = day - 7 * weeks - days
    if days and series.days_per_week == 5:
        earlier = np.busday_offset(day, -days, roll="backward")
    wanted = series.times - (day - earlier)
    row = np.minimum(np.searchsorted(series.times, wanted), series.num_steps - 1)
    return np.where(series.times[row] == wanted, row, -1)


def rows_follow(rows: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Return at which steps the rows `[T, L]` of it and of the next ones follow each other.

    Args:
        rows (ndarray): Rows of each step, -1 for none.
        length (int): The number of steps, with the first one.

    Returns:
        ndarray: A truth value for each of the first `T - length + 1` steps.
    """
    follows = np.cumsum(np.diff(rows, axis=0, prepend=0) == 1, axis=0)  # [T, L]
    end = len(rows) - length + 1
    all_follow = follows[length - 1 :] - follows[:end] == length - 1
    return np.asarray((all_follow & (rows[:end] >= 0)).all(axis=1))


def without_gap(
    series: TrafficSeries, first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return between which rows no time is missing, as far as the series knows."""
    if series.times is None:
        return np.ones(len(first), dtype=bool)
    length = (last - first) * np.timedelta64(series.step_minutes, "m")
    return np.asarray(series.times[last] - series.times[first] == length)


def on_one_day(
    series: TrafficSeries, first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which rows lie on one day, as far as the series knows."""
    if series.times is None:
        return np.ones(len(first), dtype=bool)
    day = series.times.astype("datetime64[D]")
    return np.asarray(day[first] == day[last])
