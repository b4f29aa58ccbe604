from __future__ import annotations

import pickle

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


def test_no_window_spans_a_gap_or_with_within_day_midnight() -> None:
    days = np.array(["2024-01-04", "2024-01-05", "2024-01-08"], dtype="M8[m]")  # Thu, Fri, Mon
    times = (days[:, None] + np.arange(4) * np.timedelta64(360, "m")).ravel()
    series = make(12, step_minutes=360, times=times, days_per_week=5)
    assert WindowDataset(series, 2, 1).origins.tolist() == [2, 3, 4, 5, 6, 7, 10, 11]
    assert WindowDataset(series, 2, 1, within_day=True).origins.tolist() == [2, 3, 6, 7, 10, 11]
    with pytest.raises(ValueError, match="within a day"):
        WindowDataset(series, 4, 1, within_day=True)
    with pytest.raises(ValueError, match="time stamps"):
        WindowDataset(make(), within_day=True)


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
        ({"stride": 0}, "'stride' must be at least 1"),
        ({"days": -1}, "'days' and 'weeks'"),
        ({"target_channel": 2}, r"one of the 2 channels \('a', 'b'\) \(got 2\)"),
        ({"scaler": StandardScaler(torch.zeros(1), torch.ones(1))}, r"2 channels.*\(got 1\)"),
        ({"scale_target": True}, "needs a 'scaler'"),
        ({"input_steps": 35}, r"35 \+ 12 steps of one window.*axis 0 of \[T, N, C\] \(got T = 40"),
    ],
)
def test_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowDataset(make(), **kwargs)  # type: ignore[arg-type]
