from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.datasets.traffic.synthetic_traffic import SyntheticTraffic
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

CALM = {"bottlenecks": 0.0, "incidents": 0.0, "missing": 0.0, "noise": 0.0}


@given(
    num_nodes=st.integers(1, 60),
    num_steps=st.integers(1, 400),
    seed=st.integers(0, 3),
    missing=st.sampled_from([0.0, 0.1, 0.9]),
)
def test_any_size(num_nodes: int, num_steps: int, seed: int, missing: float) -> None:
    series = SyntheticTraffic(num_nodes, num_steps, seed, missing=missing)
    assert isinstance(series, TrafficSeries)
    assert series.values.shape == series.mask.shape == (num_steps, num_nodes, 1)
    speeds = series.values[series.mask]
    assert ((speeds >= 3) & (speeds < 95)).all()
    assert series.values[~series.mask].isnan().all()
    assert series.mask.any(dim=0).all()
    assert series.mask.all() or missing > 0
    a = torch.zeros(num_nodes, num_nodes)
    a[series.edge_index[0], series.edge_index[1]] = series.edge_weight
    assert torch.equal(a, a.t())
    assert not a.diagonal().any()


def test_seed_decides_everything() -> None:
    first, same, other = (SyntheticTraffic(40, 600, seed) for seed in (3, 3, 4))
    assert torch.equal(first.values.nan_to_num(0), same.values.nan_to_num(0))
    for name in ("mask", "edge_index", "edge_weight", "links", "distance", "pos", "incidents"):
        assert torch.equal(getattr(first, name), getattr(same, name))
    assert not torch.equal(first.values.nan_to_num(0), other.values.nan_to_num(0))


def test_daily_and_weekly_season() -> None:
    series = SyntheticTraffic(12, 14 * 288, start="2024-01-01", **CALM)
    day = series.values[..., 0].view(14, 288, 12)
    torch.testing.assert_close(day[:7], day[7:])  # weeks repeat
    torch.testing.assert_close(day[0], day[4])  # and so do working days
    torch.testing.assert_close(day[5], day[6])  # and the two days of a weekend
    working, weekend, night = day[1, 93], day[5, 93], day[1, 36]  # 7:45, 3:00
    assert (working < weekend - 1).all()
    assert (working < night - 1).all()


def test_rush_hour_breaks_down_on_working_days() -> None:
    series = SyntheticTraffic(30, 28 * 288, **{**CALM, "bottlenecks": 1.0}, start="2024-01-01")
    slow = (series.values[..., 0] < 45).float().mean(dim=1).view(4, 7, 288)
    assert slow[:, :5, 84:252].mean() > 5 * slow[:, 5:, 84:252].mean() > 0
    assert slow[:, :5, 0:36].mean() == 0  # nobody is on the road before 3:00


def test_incident_slows_its_sensor_and_then_those_upstream() -> None:
    links = torch.stack([torch.arange(7), torch.arange(1, 8)])
    options = {**CALM, "incidents": 0.2, "links": links, "distance": torch.full((7,), 800.0)}
    series = SyntheticTraffic(8, 288, seed=5, **options)
    alone = SyntheticTraffic(8, 288, seed=5, **options, reach=0.0)
    assert torch.equal(series.incidents, alone.incidents)
    assert len(series.incidents) > 0

    def slowed(x: SyntheticTraffic, node: int, steps: slice) -> bool:
        speed = x.values[..., 0]
        return bool((speed[steps, node] < 0.75 * speed[steps.start - 1, node]).any())

    hit = set(alone.incidents[:, 0].tolist())
    node, start, length = series.incidents[0].tolist()
    # Without reach only the sensors of the incidents slow down, from the step that is told.
    assert {n for n in range(8) if slowed(alone, n, slice(start, 288))} <= hit
    assert slowed(alone, node, slice(start, start + length))
    # A wave of 6 mph takes a step to the next sensor, 800 m upstream.
    assert node >= 2
    assert not slowed(series, node - 2, slice(start - 1, start + 1))
    assert slowed(series, node - 2, slice(start, start + 5))
    assert all(not slowed(series, n, slice(start, 288)) for n in range(max(hit) + 1, 8))


def test_share_of_missing_readings() -> None:
    series = SyntheticTraffic(100, 5000, missing=0.1)
    assert 1 - series.mask.float().mean().item() == pytest.approx(0.1, abs=0.02)
    # Half of them come in outages: a gap follows a gap far more often than by chance.
    gone = ~series.mask[..., 0]
    again = (gone[1:] & gone[:-1]).sum().item() / gone[:-1].sum().item()
    assert 0.3 < again < 0.7


def test_noise_level() -> None:
    noisy = SyntheticTraffic(50, 2000, **{**CALM, "noise": 2.0})
    calm = SyntheticTraffic(50, 2000, **CALM)
    assert (noisy.values - calm.values).std().item() == pytest.approx(2.0, rel=0.02)


def test_own_links() -> None:
    links, distance = torch.tensor([[0, 2], [1, 1]]), torch.tensor([1000.0, 2000.0])
    series = SyntheticTraffic(3, 50, links=links, distance=distance)
    assert series.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    near, far = math.exp(-0.1), math.exp(-0.4)
    assert series.edge_weight.tolist() == pytest.approx([near, near, far, far])
    assert series.pos is None


def test_calendar_starts_where_it_is_told() -> None:
    series = SyntheticTraffic(2, 5, start="2024-02-29T23:50", step_minutes=10)
    assert series.times is not None
    assert series.times[1] == np.datetime64("2024-03-01T00:00")
    assert series.step_minutes == 10


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_nodes": 0}, r"at least 1.*\(got 0, 2016 and 5\)"),
        ({"num_steps": 0}, "at least 1"),
        ({"bottlenecks": 1.5}, r"'bottlenecks' must lie in \[0, 1\]"),
        ({"missing": 1.0}, r"'missing' in \[0, 1\) \(got 0.15 and 1.0\)"),
        ({"noise": -1.0}, "must not be negative"),
        ({"wave_speed": 0.0}, "'wave_speed' must be positive"),
        ({"distance": torch.ones(1)}, "needs 'links'"),
        ({"links": torch.zeros(2, 1)}, "torch.long"),
        ({"links": torch.tensor([[0], [64]]), "distance": torch.ones(1)}, r"got 0 to 64"),
        ({"links": torch.tensor([[0], [1]])}, r"'distance' must be \[L\] = \[1\] \(got None\)"),
        ({"links": torch.tensor([[0], [1]]), "distance": -torch.ones(1)}, r"got -1.0 at \[0\]"),
        ({"links": torch.tensor([[0], [1]]), "distance": torch.tensor([math.nan])}, "got nan"),
    ],
)
def test_refuses(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticTraffic(**kwargs)  # type: ignore[arg-type]
