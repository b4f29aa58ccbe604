from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


def make(num_steps: int = 10, num_nodes: int = 3, **kwargs: object) -> TrafficSeries:
    values = 50 + torch.arange(num_steps * num_nodes).view(num_steps, num_nodes, 1).float()
    return TrafficSeries(values, **kwargs)  # type: ignore[arg-type]


def test_missing_is_nan_and_never_zero() -> None:
    values = torch.tensor([[[60.0], [0.0]], [[0.0], [50.0]]])
    series = TrafficSeries(values, mask=(values != 0)[..., 0])
    assert series.mask[..., 0].tolist() == [[True, False], [False, True]]
    assert series.values[~series.mask].isnan().all()
    assert values[0, 1, 0] == 0  # the caller's tensor is left alone


def test_integers_and_arrays_are_taken() -> None:
    series = TrafficSeries(np.full((2, 1, 1), 7))
    assert series.values.dtype == torch.float32
    assert series.values.flatten().tolist() == [7.0, 7.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_observed_readings_must_be_finite(bad: float) -> None:
    values = torch.ones(4, 3, 2)
    values[2, 1, 0] = bad
    names = {"channels": ("a", "b"), "units": ("x", "y")}
    with pytest.raises(ValueError, match=rf"got {bad} at step 2, node 1, channel 0, and 0 more"):
        TrafficSeries(values, **names)  # type: ignore[arg-type]
    TrafficSeries(values, mask=values.isfinite(), **names)  # type: ignore[arg-type]


def test_dead_sensors_are_refused_or_dropped() -> None:
    mask = torch.ones(10, 3, dtype=torch.bool)
    mask[:, 1] = False
    names = ["a", "b", "c"]
    edges = torch.tensor([[0, 1, 2], [2, 0, 0]])
    with pytest.raises(ValueError, match=r"got 1 sensors without a reading: \['b'\]"):
        make(mask=mask, names=names)
    weight = torch.tensor([0.1, 0.2, 0.3])
    series = make(mask=mask, names=names, edge_index=edges, edge_weight=weight, drop_dead=True)
    assert series.names == ["a", "c"]
    assert series.values[0, :, 0].tolist() == [50.0, 52.0]
    assert series.edge_index.tolist() == [[0, 1], [1, 0]]
    assert series.edge_weight.tolist() == pytest.approx([0.1, 0.3])
    with pytest.raises(ValueError, match="at least once"):
        make(mask=torch.zeros(10, 3, dtype=torch.bool), drop_dead=True)


def test_select_keeps_the_given_order() -> None:
    series = make(edge_index=EDGES, edge_weight=torch.arange(4.0), names=list("abc"))
    part = series.select(torch.tensor([2, 1]))
    assert part.names == ["c", "b"]
    assert part.values[0, :, 0].tolist() == [52.0, 51.0]
    edges = {
        tuple(e): w
        for e, w in zip(part.edge_index.t().tolist(), part.edge_weight.tolist(), strict=True)
    }
    assert edges == {(1, 0): 2.0, (0, 1): 3.0}
    with pytest.raises(ValueError, match="each sensor once"):
        series.select(torch.tensor([1, 1]))


@pytest.mark.parametrize(
    ("nodes", "error", "message"),
    [
        (torch.tensor([3]), IndexError, r"'nodes' must be below the 3 sensors \(got 3\)"),
        (torch.tensor([-1]), IndexError, "'nodes' must not hold negative indices"),
        (torch.tensor([True]), ValueError, "one entry for each of the 3 sensors"),
        (torch.zeros(3, dtype=torch.bool), ValueError, "choose at least one node"),
        (torch.tensor([[0, 1]]), ValueError, "one axis"),
        (torch.tensor([0.0]), TypeError, "a tensor of indices or a boolean mask"),
        (None, TypeError, "object"),
    ],
)
def test_select_refuses(nodes: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().select(nodes)  # type: ignore[arg-type]


def test_arrays_and_whole_numbers_are_taken() -> None:
    values = np.arange(30, dtype=">i4").reshape(10, 3, 1)
    series = TrafficSeries(values, values > 0, pos=np.zeros((3, 2)))  # type: ignore[arg-type]
    assert series.values.dtype == torch.float32
    assert series.values[9, 2, 0] == 29
    assert series.select([2, 0]).values[1, :, 0].tolist() == [5, 3]  # type: ignore[arg-type]
    assert [p.num_steps for p in series.split(*np.array([4, 6]))] == [4, 6]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"values": None}, TypeError, "'values' must be a tensor of real numbers"),
        ({"values": torch.ones(2, 2, 1) * 1j}, TypeError, r"\(got torch.complex64\)"),
        ({"mask": 1}, TypeError, "'mask' must be a Tensor"),
        ({"edge_index": [[0], [1]]}, TypeError, "'edge_index' must be a Tensor"),
        ({"edge_index": EDGES, "edge_weight": 1}, TypeError, "'edge_weight' must be a tensor"),
        ({"pos": [[0, 0]]}, TypeError, "'pos' must be a tensor"),
        ({"step_minutes": 2.5}, TypeError, "'step_minutes' must be an integer"),
        ({"step_minutes": 10**30}, ValueError, "at most a day's 1440"),
        ({"times": 10**30}, ValueError, "'times' must be time stamps"),
        ({"times": torch.arange(10.0)}, ValueError, r"'times' must .* \(got plain numbers\)"),
        ({"times": "yesterday"}, ValueError, "'times' must be time stamps"),
    ],
)
def test_refuses_other_kinds(
    kwargs: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TrafficSeries(**{"values": torch.ones(10, 3, 1), **kwargs})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [((0.7, 0.1, 0.2), [70, 10, 20]), ((0.6, 0.2, 0.2), [60, 20, 20]), ((30, 5, 5), [30, 5, 5])],
)
def test_split_is_in_time_order_and_copies_nothing(
    parts: tuple[float, ...], sizes: list[int]
) -> None:
    series = make(100, times="2024-01-01")
    split = series.split(*parts)
    assert [p.num_steps for p in split] == sizes
    start = 0
    for part in split:
        assert torch.equal(part.values, series.values[start : start + part.num_steps])
        assert part.values.data_ptr() == series.values[start].data_ptr()
        assert part.start == np.datetime64("2024-01-01") + np.timedelta64(5 * start, "m")
        start += part.num_steps


def test_split_overlap_reaches_back() -> None:
    _, val, test = make(100).split(0.7, 0.1, 0.2, overlap=12)
    assert (val.num_steps, test.num_steps) == (22, 32)
    assert val.values[12, 0, 0] == 50 + 70 * 3


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((0.7, 0.1), r"must add up to 1 \(got \(0.7, 0.1\)\)"),
        ((90, 20), "must fit in 100 steps"),
        ((1.2, -0.2), r"'parts' must be finite and above 0 \(got -0.2\)"),
        ((float("nan"), 1.0), r"'parts' must be finite and above 0 \(got nan\)"),
        ((0.001, 0.999), "too few"),
        ((), "must be positive"),
    ],
)
def test_split_refuses(parts: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(100).split(*parts)


def test_split_refuses_overlap_beyond_the_first_part() -> None:
    with pytest.raises(ValueError, match=r"first part's 5 steps \(got 6\)"):
        make(10).split(0.5, 0.5, overlap=6)


def test_wrong_axis_order_is_named() -> None:
    values = torch.rand(3, 10, 1)  # [N, T, C]
    with pytest.raises(ValueError, match=r"it looks like \[N, T, C\]: permute\(1, 0, 2\)"):
        TrafficSeries(values, edge_index=EDGES)
    with pytest.raises(ValueError, match=r"it looks like \[N, T, C\]"):
        TrafficSeries(values, names=["a", "b", "c"])
    one = {"channels": list("abc"), "units": list("abc")}
    with pytest.raises(ValueError, match=r"it looks like \[T, C, N\]: permute\(0, 2, 1\)"):
        TrafficSeries(torch.rand(10, 1, 3), edge_index=EDGES, **one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"non-empty \[T, N, C\] tensor.*\(got shape \(10, 3\)\)"):
        TrafficSeries(torch.rand(10, 3))
    with pytest.raises(ValueError, match=r"non-empty"):
        TrafficSeries(torch.rand(0, 3, 1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"edge_index": EDGES + 1}, r"must name the N = 3 nodes.*\(got nodes 1 to 3\)"),
        ({"edge_index": EDGES - 1}, r"got nodes -1 to 1"),
        ({"edge_index": EDGES.float()}, "torch.long"),
        ({"edge_index": EDGES, "edge_weight": torch.ones(3)}, r"\[E\] = \[4\] \(got \(3,\)\)"),
        ({"edge_index": EDGES, "edge_weight": torch.full((4,), math.nan)}, "finite"),
        ({"edge_index": EDGES, "edge_weight": -torch.ones(4)}, "not negative"),
        ({"edge_weight": torch.ones(4)}, "needs an 'edge_index'"),
        ({"names": ["a"]}, r"N = 3 nodes.*\(got 1 names\)"),
        ({"channels": ("a", "b")}, "the C = 1 channels"),
        ({"mask": torch.ones(3, 10, dtype=torch.bool)}, r"or \[T, N\] \(got \(3, 10\)"),
        ({"mask": torch.ones(10, 3, 1)}, "must be boolean"),
        ({"pos": torch.zeros(2, 2)}, r"'pos' must be \[3, 2\]"),
        ({"times": np.array(["2024-01-01", "2024-01-02"], dtype="M8[m]")}, r"\[T\] = \[10\]"),
        ({"times": np.full(10, np.datetime64("2024-01-01"))}, "must rise by 5 minutes"),
        ({"step_minutes": 0}, "at least 1"),
        ({"days_per_week": 6}, "'days_per_week' must be one of 5, 7"),
    ],
)
def test_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)  # type: ignore[arg-type]


def test_slices_only() -> None:
    series = make()
    assert len(series[2:5]) == 3
    with pytest.raises(TypeError, match="a slice of time"):
        series[3]  # type: ignore[index]
    with pytest.raises(TypeError, match="without a step"):
        series[::2]


def test_calendar() -> None:
    series = make(step_minutes=15, times="2024-01-01", days_per_week=5)
    assert (series.steps_per_day, series.steps_per_week) == (96, 480)
    assert series.times is not None
    assert series.times[-1] == np.datetime64("2024-01-01T02:15")
    assert make().start is None
