"""Synthetic traffic on a road graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyg_stkd.datasets.traffic.adjacency import (
    GaussianAdjacency,
    check_distances,
    in_float32,
    links_to_edges,
)
from pyg_stkd.datasets.traffic.congestion import Events, spread
from pyg_stkd.datasets.traffic.road_network import RoadNetwork, freeway_grid
from pyg_stkd.datasets.traffic.traffic_series import TrafficSeries

__all__ = ["SyntheticTraffic"]

_METRES_PER_MILE = 1609.344


class SyntheticTraffic(TrafficSeries):
    r"""Speeds in mph on a grid of freeways, from a seed.

    Each sensor has a free-flow speed that falls with a daily and weekly demand. At bottlenecks,
    on most working days, and after incidents, at any time, traffic breaks down and a wave of
    congestion travels upstream along the links, so that neighbours foretell what comes. Readings
    are noisy; some are missing, one by one and in outages of a sensor. The same arguments give the
    same series.

    Args:
        num_nodes (int): Number of sensors :math:`N`. (default: :obj:`64`)
        num_steps (int): Number of steps :math:`T`. (default: :obj:`2016`)
        seed (int): The seed. (default: :obj:`0`)
        bottlenecks (float): Share of sensors at a bottleneck. (default: :obj:`0.15`)
        incidents (float): Mean number of incidents a sensor and day. (default: :obj:`0.02`)
        missing (float): Share of missing readings, half of them in outages.
            (default: :obj:`0.02`)
        noise (float): Standard deviation of the readings, in mph. (default: :obj:`1.5`)
        wave_speed (float): Speed at which congestion travels upstream, in mph.
            (default: :obj:`6.0`)
        reach (float): Distance at which it dies out, in metres. (default: :obj:`6000.0`)
        links (Tensor, optional): Road links :math:`[2, L]` in driving direction, to use instead of
            the grid; for example those of a real set. (default: :obj:`None`)
        distance (Tensor, optional): Their lengths :math:`[L]` in metres. (default: :obj:`None`)
        step_minutes (int): Length of a step in minutes. (default: :obj:`5`)
        start (str): Time of the first step. (default: :obj:`"2024-01-04"`, a Thursday)

    Shapes:
        - **values:** :math:`[T, N, 1]`
        - **edge_index:** :math:`[2, E]`, both directions of each link, with Gaussian weights
        - **links:** :math:`[2, L]`, **distance:** :math:`[L]`, **pos:** :math:`[N, 2]` in metres
        - **incidents:** :math:`[I, 3]`: sensor, first step and number of steps of each incident

    Raises:
        ValueError: If an argument is out of its range or the links do not fit the sensors.

    Example:
        >>> series = SyntheticTraffic(num_nodes=20, num_steps=288, seed=1)
        >>> series.values.shape, series.num_nodes, series.unit
        (torch.Size([288, 20, 1]), 20, 'mph')
        >>> bool((SyntheticTraffic(20, 288, seed=1).mask == series.mask).all())
        True
    """

    def __init__(
        self,
        num_nodes: int = 64,
        num_steps: int = 2016,
        seed: int = 0,
        *,
        bottlenecks: float = 0.15,
        incidents: float = 0.02,
        missing: float = 0.02,
        noise: float = 1.5,
        wave_speed: float = 6.0,
        reach: float = 6000.0,
        links: Tensor | None = None,
        distance: Tensor | None = None,
        step_minutes: int = 5,
        start: str = "2024-01-04",
    ) -> None:
        if num_nodes < 1 or num_steps < 1 or not 1 <= step_minutes <= 1440:
            raise ValueError(
                "'num_nodes', 'num_steps' and 'step_minutes' must be at least 1, the last at most "
                f"a day (got {num_nodes}, {num_steps} and {step_minutes})"
            )
        if not 0 <= bottlenecks <= 1 or not 0 <= missing < 1:
            raise ValueError(
                "'bottlenecks' must lie in [0, 1] and 'missing' in [0, 1) "
                f"(got {bottlenecks} and {missing})"
            )
        if min(incidents, noise, reach) < 0 or not wave_speed > 0:
            raise ValueError(
                "'incidents', 'noise' and 'reach' must not be negative and 'wave_speed' must be "
                f"positive (got {incidents}, {noise}, {reach} and {wave_speed})"
            )
        rng = np.random.default_rng(seed)
        road = freeway_grid(num_nodes, rng)
        if links is not None:
            road = _given_road(links, distance, num_nodes)
        elif distance is not None:
            raise ValueError("'distance' needs 'links' (got None)")

        minutes = np.datetime64(start, "m") + np.arange(num_steps) * np.timedelta64(
            step_minutes, "m"
        )
        hour = (minutes - minutes.astype("datetime64[D]")) / np.timedelta64(1, "h")
        working = np.is_busday(minutes.astype("datetime64[D]"))
        rush = _rush_hours(num_nodes, num_steps, hour, working, bottlenecks, step_minutes, rng)
        crashes = _incidents(num_nodes, num_steps, incidents, step_minutes, rng)
        events = Events(*(np.concatenate(pair) for pair in zip(rush, crashes, strict=True)))
        wave = wave_speed * _METRES_PER_MILE * step_minutes / 60
        lost = spread(road, num_nodes, num_steps, events, wave, reach)

        free = torch.from_numpy(rng.normal(66, 3, num_nodes).astype(np.float32))
        slowing = torch.from_numpy(rng.uniform(0.04, 0.12, num_nodes).astype(np.float32))
        demand = torch.from_numpy(_demand(hour, working).astype(np.float32))
        speed = free * (1 - demand[:, None] * slowing) * (1 - lost)  # [T, N]
        if noise:
            chance = rng.standard_normal((num_steps, num_nodes), dtype=np.float32)
            speed += noise * torch.from_numpy(chance)
        speed.clamp_(min=3.0)

        edges = links_to_edges(
            torch.from_numpy(road.links),
            torch.from_numpy(road.distance),
            GaussianAdjacency(threshold=0.0),
        )
        super().__init__(
            speed.unsqueeze(-1),
            torch.from_numpy(_observed(num_nodes, num_steps, missing, step_minutes, rng)),
            *in_float32(*edges),
            names=[f"s{i}" for i in range(num_nodes)],
            step_minutes=step_minutes,
            times=minutes,
            pos=None if links is not None else torch.from_numpy(road.pos),
        )
        self.links = torch.from_numpy(road.links)
        self.distance = torch.from_numpy(road.distance)
        self.incidents = torch.from_numpy(
            np.stack([crashes.node, crashes.start, crashes.duration], axis=1).astype(np.int64)
        )


def _given_road(links: Tensor, distance: Tensor | None, num_nodes: int) -> RoadNetwork:
    if links.dim() != 2 or links.size(0) != 2 or links.dtype != torch.long:
        raise ValueError(
            f"'links' must be [2, L] of torch.long (got {tuple(links.shape)} of {links.dtype})"
        )
    if distance is None or distance.shape != links.shape[1:]:
        got = None if distance is None else tuple(distance.shape)
        raise ValueError(f"'distance' must be [L] = [{links.size(1)}] (got {got})")
    if links.numel() and not 0 <= int(links.min()) <= int(links.max()) < num_nodes:
        raise ValueError(
            f"'links' must name the {num_nodes} nodes "
            f"(got {int(links.min())} to {int(links.max())})"
        )
    check_distances(distance)
    return RoadNetwork(links.numpy(), distance.double().numpy(), np.zeros((num_nodes, 2)))


def _demand(hour: np.ndarray, working: np.ndarray) -> np.ndarray:
    # Two rush hours on working days, a flat hill around noon at weekends; from 0 to about 1.
    morning = np.exp(-(((hour - 7.75) / 1.5) ** 2))
    evening = np.exp(-(((hour - 17.0) / 2.0) ** 2))
    noon = np.exp(-(((hour - 13.5) / 4.0) ** 2))
    return np.where(working, np.maximum(morning, evening) + 0.3 * noon, 0.6 * noon)


def _rush_hours(
    num_nodes: int,
    num_steps: int,
    hour: np.ndarray,
    working: np.ndarray,
    share: float,
    step_minutes: int,
    rng: np.random.Generator,
) -> Events:
    # Each bottleneck breaks down in the morning or in the evening, on most working days.
    node = np.flatnonzero(rng.random(num_nodes) < share)
    peak = np.where(rng.random(len(node)) < 0.5, 7.0, 16.25)
    severity = rng.uniform(0.35, 0.75, len(node))
    days = int(hour[0] * 60 + num_steps * step_minutes) // 1440 + 1
    shape = (days, len(node))
    midnight = (np.arange(days) * 24 - hour[0])[:, None]  # hours from the first step
    start = (midnight + peak + rng.normal(0, 0.7, shape)) * 60 / step_minutes
    duration = rng.uniform(45, 180, shape) / step_minutes
    depth = np.clip(severity + rng.normal(0, 0.15, shape), 0.1, 0.9)
    inside = np.clip(start, 0, num_steps - 1).astype(np.int64)
    happens = rng.random(shape) < np.where(working[inside], 0.75, 0.05)
    return Events(
        np.broadcast_to(node, shape)[happens], start[happens], duration[happens], depth[happens]
    )


def _incidents(
    num_nodes: int, num_steps: int, rate: float, step_minutes: int, rng: np.random.Generator
) -> Events:
    number = rng.poisson(rate * num_nodes * num_steps * step_minutes / 1440)
    return Events(
        rng.integers(num_nodes, size=number),
        np.sort(rng.integers(num_steps, size=number)).astype(np.float64),
        np.ceil((15 + rng.exponential(35, number)) / step_minutes),
        rng.uniform(0.4, 0.9, number),
    )


def _observed(
    num_nodes: int, num_steps: int, missing: float, step_minutes: int, rng: np.random.Generator
) -> np.ndarray:
    mask = rng.random((num_steps, num_nodes), dtype=np.float32) >= missing / 2
    # Outages of about three hours: +1 where one starts, -1 where it ends, summed over time.
    length = max(180 // step_minutes, 1)
    number = rng.poisson(missing / 2 * num_nodes * num_steps / length)
    node = rng.integers(num_nodes, size=number)
    begin = rng.integers(num_steps, size=number)
    end = np.minimum(begin + 1 + rng.integers(2 * length, size=number), num_steps)
    change = np.zeros((num_steps + 1, num_nodes), dtype=np.int32)
    np.add.at(change, (begin, node), 1)
    np.add.at(change, (end, node), -1)
    mask &= change.cumsum(axis=0)[:-1] == 0
    mask[0, ~mask.any(axis=0)] = True  # every sensor is seen at least once
    return mask
