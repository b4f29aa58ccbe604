from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torch_geometric.loader import DataLoader as PyGDataLoader

from pyg_stkd.datasets.traffic.scaler import StandardScaler
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries
from pyg_stkd.datasets.traffic.windows import Window, WindowDataset


def make(num_steps: int = 40, num_nodes: int = 3, **kwargs: object) -> TrafficSeries:
    # values[t, n, c] = 1000 t + 10 n + c: every entry says where it is.
    t, n, c = torch.meshgrid(
        torch.arange(num_steps), torch.arange(num_nodes), torch.arange(2), indexing="ij"
    )
    names = {"channels": ("a", "b"), "units": ("x", "y")}
    return TrafficSeries((1000 * t + 10 * n + c).float(), **names, **kwargs)  # type: ignore[arg-type]


@given(
    num_steps=st.integers(1, 30),
    num_nodes=st.integers(1, 3),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 6),
    stride=st.integers(1, 4),
    channel=st.integers(0, 1),
)
def test_equals_a_copy_of_every_window(
    num_steps: int, num_nodes: int, inputs: int, outputs: int, stride: int, channel: int
) -> None:
    series = make(num_steps, num_nodes)
    if num_steps < inputs + outputs:
        with pytest.raises(ValueError, match=rf"{inputs} \+ {outputs} steps of one window"):
            WindowDataset(series, inputs, outputs)
        return
    windows = WindowDataset(series, inputs, outputs, stride=stride, target_channel=channel)
    expected = [
        (
            series.values[i : i + inputs],
            series.values[i + inputs : i + inputs + outputs, :, channel],
        )
        for i in range(0, num_steps - inputs - outputs + 1, stride)
    ]
    assert len(windows) == len(expected)
    for (x, y, mask), (want_x, want_y) in zip(windows, expected, strict=True):
        assert torch.equal(x, want_x)
        assert torch.equal(y, want_y)
        assert mask.shape == y.shape
        assert mask.all()


def test_windows_are_views_of_the_series() -> None:
    series = make()
    windows = WindowDataset(series.split(0.5, 0.5, overlap=12)[1], 12, 6)
    x, y, mask = windows[-1]
    storage = series.values.untyped_storage().data_ptr()
    assert x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr() == storage
    assert mask.untyped_storage().data_ptr() == series.mask.untyped_storage().data_ptr()
    held = [v for v in vars(windows).values() if isinstance(v, torch.Tensor)]
    assert sum(v.numel() for v in held) == len(windows)  # one origin a window, no more


def test_missing_readings_never_look_like_readings() -> None:
    series = make()
    mask = torch.ones_like(series.mask)
    mask[3, 1] = mask[14, 2] = False
    series = TrafficSeries(series.values, mask, channels=("a", "b"), units=("x", "y"))
    scaler = StandardScaler.fit(series[:20])
    x, y, seen = WindowDataset(series, 12, 6, scaler)[0]
    assert x[3, 1].tolist() == [0.0, 0.0]  # the training mean
    assert torch.allclose(scaler.inverse_transform(x)[2], series.values[2])
    assert y[2, 2].isnan()
    assert (~seen).nonzero().tolist() == [[2, 2]]
    assert torch.equal(y[seen], series.values[12:18, :, 0][seen])

    x, _, _ = WindowDataset(series, 12, 6)[0]
    assert x[3, 1].isnan().all()

    _, y, seen = WindowDataset(series, 12, 6, scaler, scale_target=True, target_channel=1)[0]
    expected = (series.values[12:18, :, 1] - scaler.mean[1]) / scaler.std[1]
    assert torch.allclose(y[seen], expected[seen])


def test_days_and_weeks_come_first() -> None:
    series = make(100, step_minutes=480)  # 3 steps a day, 21 a week
    windows = WindowDataset(series, input_steps=4, output_steps=2, days=2, weeks=1)
    assert windows.parts == (2, 4, 4)
    assert int(windows.origins[0]) == 21
    x, y, _ = windows[5]
    t = 26
    steps = [t - 21, t - 20, t - 6, t - 5, t - 3, t - 2, t - 4, t - 3, t - 2, t - 1]
    assert (x[:, 0, 0] / 1000).tolist() == steps
    assert (y[:, 0] / 1000).tolist() == [t, t + 1]
    week, day, recent = x.split(windows.parts)
    assert torch.equal(week[:, 0, 0], y[:, 0] - 21_000)
    assert (day.size(0), recent.size(0)) == (4, 4)
    with pytest.raises(ValueError, match=r"at least the 21 \+ 2 steps"):
        WindowDataset(series[:22], 4, 2, weeks=1)


MINUTE = np.timedelta64(1, "m")


def told(times: np.ndarray, step_minutes: int, days_per_week: int = 7) -> TrafficSeries:
    # A reading says when it was taken, in minutes from the first one.
    taken = (times - times[0]) / MINUTE
    return TrafficSeries(
        torch.tensor(taken).view(-1, 1, 1).double(),
        times=times,
        step_minutes=step_minutes,
        days_per_week=days_per_week,
    )


def every(first: str, steps: int, minutes: int) -> np.ndarray:
    return np.datetime64(first, "m") + np.arange(steps) * minutes * MINUTE


def spring(first: str, days: int) -> np.ndarray:
    times = every(first, 288 * days, 5)  # the hour that daylight saving time skips
    start, end = np.datetime64("2017-03-12T02:00"), np.datetime64("2017-03-12T03:00")
    return times[(times < start) | (times >= end)]


def working_days(first: str, days: int, holidays: list[str]) -> np.ndarray:
    all_days = np.datetime64(first) + np.arange(days)
    kept = all_days[np.is_busday(all_days, holidays=holidays)].astype("M8[m]")
    return (kept[:, None] + np.arange(288) * 5 * MINUTE).ravel()


@pytest.mark.parametrize(
    ("times", "days_per_week", "lags", "minutes"),
    [
        (spring("2017-03-11", 3), 7, {"days": 1}, 1440),
        (spring("2017-03-06", 17), 7, {"weeks": 1}, 10080),
        (working_days("2012-05-21", 21, ["2012-05-28"]), 5, {"weeks": 1}, 10080),
    ],
)
def test_days_and_weeks_go_by_time_stamps(
    times: np.ndarray, days_per_week: int, lags: dict[str, int], minutes: int
) -> None:
    windows = WindowDataset(told(times, 5, days_per_week), 12, 3, **lags)  # type: ignore[arg-type]
    for x, y, _ in windows:
        assert (y[:, 0] - x[:3, 0, 0]).tolist() == [minutes] * 3
        assert (x[3:, 0, 0] - y[0, 0]).tolist() == [-5.0 * k for k in range(12, 0, -1)]
    # Every window that the definition allows is there.
    known = set(times.tolist())
    step, lag = 5 * MINUTE, minutes * MINUTE
    complete = sum(
        all((t + k * step).item() in known for k in range(-12, 3))
        and all((t - lag + k * step).item() in known for k in range(3))
        for t in times
    )
    assert len(windows) == complete


def test_no_window_spans_a_gap_or_with_within_day_midnight() -> None:
    days = np.array(["2024-01-04", "2024-01-05", "2024-01-08"], dtype="M8[m]")  # Thu, Fri, Mon
    times = (days[:, None] + np.arange(4) * np.timedelta64(360, "m")).ravel()
    series = make(12, step_minutes=360, times=times, days_per_week=5)
    assert WindowDataset(series, 2, 1).origins.tolist() == [2, 3, 4, 5, 6, 7, 10, 11]
    windows = WindowDataset(series, 2, 1, within_day=True)
    assert windows.origins.tolist() == [2, 3, 6, 7, 10, 11]
    assert windows.left_out == {"gap": 2, "midnight": 2, "past": 0}
    with pytest.raises(ValueError, match="within a day"):
        WindowDataset(series, 4, 1, within_day=True)
    with pytest.raises(ValueError, match="time stamps"):
        WindowDataset(make(), within_day=True)


def test_windows_left_out_are_counted() -> None:
    times = spring("2017-03-11", 3)
    windows = WindowDataset(told(times, 5), 12, 3, days=1)
    # The day after the change lacks 12 steps of the day before, which 14 windows read.
    assert windows.left_out == {"gap": 14, "past": 14}
    assert "left_out={'gap': 14, 'past': 14}" in repr(windows)
    assert len(windows) + 28 == len(times) - int(windows.origins[0]) - 2
    assert "left_out" not in repr(
        WindowDataset(told(every("2017-03-11", 600, 5), 5), 12, 3, days=1)
    )


def test_a_working_day_before_is_a_working_day() -> None:
    times = working_days("2012-05-21", 16, ["2012-05-28"])  # without Memorial Day, a Monday
    windows = WindowDataset(told(times, 5, 5), 12, 3, days=1)
    apart: dict[str, set[float]] = {}
    for i, t in enumerate(windows.origins.tolist()):
        x, y, _ = windows[i]
        for step in range(3):  # the steps of a window may lie on two days
            day = str(times[t + step].astype("M8[D]"))
            apart.setdefault(day, set()).add(float(y[step, 0] - x[step, 0, 0]) / 1440)
    assert apart.pop("2012-06-04") == {3.0}  # Monday after Friday
    assert "2012-05-29" not in apart  # the day before it is a holiday
    assert apart.keys() == {f"2012-05-{d}" for d in (22, 23, 24, 25, 30, 31)} | {
        "2012-06-01",
        "2012-06-05",
    }
    assert set().union(*apart.values()) == {1.0}


def test_without_a_gap_time_stamps_change_nothing() -> None:
    for days_per_week, times in ((7, every("2024-01-04", 3000, 60)), (5, None)):
        if times is None:
            times = working_days("2024-01-01", 40, [])[::12]
        with_times = told(times, 60, days_per_week)
        without = TrafficSeries(with_times.values, step_minutes=60, days_per_week=days_per_week)
        a, b = (WindowDataset(s, 5, 3, weeks=2) for s in (with_times, without))
        kept = torch.isin(b.origins, a.origins)
        assert set(a.origins.tolist()) <= set(b.origins.tolist())
        assert days_per_week == 5 or kept.all()
        for i, j in enumerate(kept.nonzero().flatten().tolist()):
            assert torch.equal(a[i].x, b[j].x)


def test_earlier_steps_never_read_the_future() -> None:
    series = make(100, step_minutes=480)  # 3 steps a day
    assert len(WindowDataset(series, 4, 3, days=1)) == 94
    with pytest.raises(ValueError, match=r"at most the 3 steps of a whole day.*\(got 4\)"):
        WindowDataset(series, 4, 4, days=1)
    with pytest.raises(ValueError, match=r"of 7 minutes each"):
        WindowDataset(make(1000, step_minutes=7), 4, 4, days=1)


def test_no_window_with_its_past_is_an_error() -> None:
    times = np.concatenate([every("2024-01-04", 20, 60), every("2024-02-01", 20, 60)])
    with pytest.raises(ValueError, match=r"with the days and weeks before it \(got none\)"):
        WindowDataset(told(times, 60), 3, 1, days=1)


@given(
    gaps=st.sets(st.integers(0, 199), max_size=40),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    stride=st.integers(1, 3),
    days=st.integers(0, 2),
    weeks=st.integers(0, 1),
)
def test_windows_are_those_of_the_definition(
    gaps: set[int], inputs: int, outputs: int, stride: int, days: int, weeks: int
) -> None:
    times = np.delete(every("2024-01-04", 200, 360), sorted(gaps))  # 4 steps a day
    step = 360 * MINUTE
    known = {t.item(): i for i, t in enumerate(times)}
    lags = [k * 7 * 1440 * MINUTE for k in range(weeks, 0, -1)]
    lags += [k * 1440 * MINUTE for k in range(days, 0, -1)]
    complete, past = [], []
    for i, t in enumerate(times):
        ends = i + outputs <= len(times) and i >= inputs
        span = [(t + k * step).item() in known for k in range(-inputs, outputs)]
        before = [(t - lag + k * step).item() in known for lag in lags for k in range(outputs)]
        rows = range(i, min(i + outputs, len(times)))
        each = [known.get((times[k] - lag).item(), -1) for lag in lags for k in rows]
        follow = all(
            b - a == 1 or k % outputs == outputs - 1 for k, (a, b) in enumerate(pairwise(each))
        )
        past.append(ends and -1 not in each and follow)
        complete.append(ends and all(span) and all(before))
    if not any(complete):
        return
    try:
        windows = WindowDataset(
            told(times, 360), inputs, outputs, stride=stride, days=days, weeks=weeks
        )
    except ValueError:
        assert stride > 1  # none of those that the stride meets
        return
    begin = past.index(True) if lags else inputs
    assert windows.origins.tolist() == [i for i in range(begin, len(times), stride) if complete[i]]
    taken = (times - times[0]) / MINUTE
    for index, i in enumerate(windows.origins.tolist()):
        rows = [known[(times[i] - lag + k * step).item()] for lag in lags for k in range(outputs)]
        rows += range(i - inputs, i)
        assert windows[index].x.flatten().tolist() == taken[rows].tolist()


def test_parts_with_overlap_tile_the_targets() -> None:
    series = make(60)
    seen: list[int] = []
    for i, part in enumerate(series.split(0.5, 0.25, 0.25, overlap=5)):
        windows = WindowDataset(part, 5, 1)
        assert i == 0 or len(windows) == 15
        seen += [int(y[0, 0] // 1000) for _, y, _ in windows]
    assert seen == list(range(5, 60))


@pytest.mark.parametrize("loader_class", [DataLoader, PyGDataLoader])
@pytest.mark.parametrize("workers", [0, 2])
def test_loaders(loader_class: type, workers: int) -> None:
    windows = WindowDataset(make(30), 12, 6)
    batches = list(loader_class(windows, batch_size=5, num_workers=workers))
    assert [len(b.y) for b in batches] == [5, 5, 3]
    assert all(isinstance(b, Window) for b in batches)
    x, y, mask = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert x.shape == (13, 12, 3, 2)  # [B, T, N, C]
    assert y.shape == mask.shape == (13, 6, 3)
    for i, window in enumerate(windows):
        assert torch.equal(x[i], window.x)
        assert torch.equal(y[i], window.y)


def test_a_stride_beyond_the_series_leaves_one_window() -> None:
    assert len(WindowDataset(make(30), 12, 6, stride=10**30)) == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"series": torch.ones(40, 3, 2)}, "'series' must be a TrafficSeries"),
        ({"scaler": 1.0}, "'scaler' must be a StandardScaler"),
        ({"input_steps": 1.5}, "'input_steps' must be an integer"),
        ({"days": None}, "'days' must be an integer"),
    ],
)
def test_refuses_other_kinds(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        WindowDataset(**{"series": make(), **kwargs})  # type: ignore[arg-type]


def test_index_and_pickle() -> None:
    windows = WindowDataset(make(30), 12, 6)
    assert torch.equal(windows[-1].x, windows[12].x)
    assert torch.equal(windows[np.int64(3)].x, windows[3].x)
    for index in (13, -14):
        with pytest.raises(IndexError, match=rf"one of 13 windows \(got {index}\)"):
            windows[index]
    with pytest.raises(TypeError):
        windows[1.5]  # type: ignore[index]
    copy = pickle.loads(pickle.dumps(windows))
    assert torch.equal(copy[4].y, windows[4].y)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"input_steps": 0}, r"'input_steps' must be at least 1 \(got 0\)"),
        ({"output_steps": -1}, "'output_steps' must be at least 1"),
        ({"days": 10**12}, r"'days' must lie within the 0 days of 'series' \(got 1000000000000\)"),
        ({"weeks": 9}, "'weeks' must lie within the 0 days of 'series'"),
        ({"stride": 0}, "'stride' must be at least 1"),
        ({"days": -1}, r"'days' must be at least 0 \(got -1\)"),
        ({"weeks": -2}, r"'weeks' must be at least 0 \(got -2\)"),
        ({"target_channel": -1}, r"'target_channel' must be at least 0 \(got -1\)"),
        ({"output_steps": 289, "days": 1}, "'output_steps' must be at most the 288 steps of a"),
        ({"target_channel": 2}, r"one of the 2 channels \('a', 'b'\) \(got 2\)"),
        ({"scaler": StandardScaler(torch.zeros(1), torch.ones(1))}, r"2 channels.*\(got 1\)"),
        ({"scale_target": True}, "needs a 'scaler'"),
        ({"input_steps": 35}, r"35 \+ 12 steps of one window.*axis 0 of \[T, N, C\] \(got T = 40"),
    ],
)
def test_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowDataset(make(), **kwargs)  # type: ignore[arg-type]
