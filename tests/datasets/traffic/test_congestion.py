from __future__ import annotations

import numpy as np
import pytest
import torch

from pyg_stkd.datasets.traffic import congestion
from pyg_stkd.datasets.traffic.congestion import Events, spread
from pyg_stkd.datasets.traffic.road_network import RoadNetwork, freeway_grid, upstream


def chain(num_nodes: int) -> RoadNetwork:
    node = np.arange(num_nodes - 1)
    links = np.stack([node, node + 1])
    return RoadNetwork(links, np.full(num_nodes - 1, 1000.0), np.zeros((num_nodes, 2)))


def naive(
    road: RoadNetwork, n: int, steps: int, events: Events, wave: float, reach: float, ramp: float
) -> torch.Tensor:
    lost = torch.zeros(steps, n, dtype=torch.double)
    for node, start, duration, severity in zip(*events, strict=True):
        _, nodes, ways = upstream(road, n, np.array([node]), reach)
        for u, way in zip(nodes, ways, strict=True):
            begin = start + way / wave
            end = begin + duration
            for t in range(steps):
                if begin <= t <= end + ramp:
                    shape = min(max(min(t - begin + 1, end + ramp - t) / ramp, 0.0), 1.0)
                    depth = severity * (1 - (way / reach) ** 2)
                    lost[t, u] = max(lost[t, u].item(), depth * shape)
    return lost


@pytest.mark.parametrize("chunk", [4_000_000, 50])
def test_equals_a_loop_over_events_nodes_and_steps(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(congestion, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    road = freeway_grid(30, rng)
    events = Events(
        rng.integers(30, size=12),
        rng.uniform(-10, 55, 12),
        rng.uniform(1, 15, 12),
        rng.uniform(0.2, 0.9, 12),
    )
    lost = spread(road, 30, 50, events, wave=700.0, reach=4000.0)
    expected = naive(road, 30, 50, events, 700.0, 4000.0, 3.0)
    assert expected.max() > 0.5
    torch.testing.assert_close(lost.double(), expected, atol=1e-6, rtol=0)


def test_wave_travels_upstream_only() -> None:
    events = Events(np.array([5]), np.array([10.0]), np.array([8.0]), np.array([0.8]))
    lost = spread(chain(8), 8, 60, events, wave=500.0, reach=10_000.0)
    onset = [int((lost[:, n] > 0).nonzero()[0]) if lost[:, n].any() else -1 for n in range(8)]
    assert onset == [20, 18, 16, 14, 12, 10, -1, -1]  # a kilometre in two steps
    peak = lost.max(dim=0).values[:6]
    expected = [0.8 * (1 - (d / 10) ** 2) for d in (5, 4, 3, 2, 1, 0)]
    assert peak.tolist() == pytest.approx(expected, abs=1e-6)


def test_no_events() -> None:
    none = Events(np.empty(0, dtype=np.int64), np.empty(0), np.empty(0), np.empty(0))
    assert spread(chain(3), 3, 4, none, 500.0, 1000.0).tolist() == [[0.0] * 3] * 4
