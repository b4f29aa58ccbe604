"""Congestion that starts at a place and time and travels upstream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_stkd.datasets.traffic.road_network import RoadNetwork, upstream

__all__ = ["Events", "spread"]

_CHUNK = 4_000_000  # readings touched at once: bounds memory at a few hundred MiB


class Events(NamedTuple):
    """Events that slow traffic down: where, when, for how long and how much."""

    node: np.ndarray  # [I]
    start: np.ndarray  # [I], steps, real
    duration: np.ndarray  # [I], steps, real
    severity: np.ndarray  # [I], share of speed lost


def spread(
    road: RoadNetwork,
    num_nodes: int,
    num_steps: int,
    events: Events,
    wave: float,
    reach: float,
    ramp: float = 3.0,
) -> Tensor:
    r"""Return the share of speed lost :math:`[T, N]` as queues grow upstream and dissolve.

    An event of severity :math:`s` reaches a node :math:`\delta` metres upstream with a delay of
    :math:`\delta / w`, weakened to :math:`s (1 - (\delta / r)^2)`, and dissolves there with the
    same delay. Where several overlap the worst counts.

    Args:
        road (RoadNetwork): The links in driving direction.
        num_nodes (int): Number of nodes :math:`N`.
        num_steps (int): Number of steps :math:`T`.
        events (Events): The events.
        wave (float): Speed :math:`w` of the wave upstream, in metres a step.
        reach (float): Distance :math:`r` at which it dies out, in metres.
        ramp (float): Steps in which speed breaks down and recovers. (default: `3.0`)
    """
    lost = torch.zeros(num_steps * num_nodes)
    origins, which = np.unique(events.node, return_inverse=True)
    owner, node, way = upstream(road, num_nodes, origins, reach)
    first = np.searchsorted(owner, np.arange(len(origins) + 1))

    # One row for each pair of an event and a node that it reaches.
    count = (first[1:] - first[:-1])[which]
    event = np.repeat(np.arange(len(which)), count)
    pair = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + first[which[event]]
    begin = events.start[event] + way[pair] / wave
    end = begin + events.duration[event]
    depth = events.severity[event] * (1 - (way[pair] / max(reach, 1e-9)) ** 2)
    low = np.clip(np.ceil(begin), 0, num_steps).astype(np.int64)
    high = np.clip(np.floor(end + ramp) + 1, low, num_steps).astype(np.int64)

    # One entry for each step of each row, a bounded number of them at a time.
    chunk = (high - low).cumsum() // _CHUNK
    for rows in np.split(np.arange(len(low)), np.flatnonzero(np.diff(chunk)) + 1):
        steps = (high - low)[rows]
        row = np.repeat(rows, steps)
        t = np.arange(steps.sum()) - np.repeat(steps.cumsum() - steps, steps) + low[row]
        shape = np.clip(np.minimum(t - begin[row] + 1, end[row] + ramp - t) / ramp, 0, 1)
        place = torch.from_numpy(t * num_nodes + node[pair[row]])
        value = torch.from_numpy((depth[row] * shape).astype(np.float32))
        lost.scatter_reduce_(0, place, value, "amax")
    return lost.view(num_steps, num_nodes)
