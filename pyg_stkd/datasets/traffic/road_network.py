"""Synthetic freeways, and the way upstream along a road graph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RoadNetwork(NamedTuple):
    """Sensors on freeways and the links between them in driving direction."""

    links: np.ndarray  # [2, L], from the upstream to the downstream sensor
    distance: np.ndarray  # [L], metres
    pos: np.ndarray  # [N, 2], metres


def freeway_grid(num_nodes: int, rng: np.random.Generator, spacing: float = 800.0) -> RoadNetwork:
    """Return freeways that run east and north in turn, joined by a ramp where two of them cross.

    Args:
        num_nodes (int): Number of sensors; about `sqrt(2 N)` of them on each freeway.
        rng (np.random.Generator): The source of chance.
        spacing (float): Mean distance between sensors, in metres. (default: `800.0`)
    """
    length = max(int(np.sqrt(2 * num_nodes)), 2)
    node = np.arange(num_nodes)
    road, place = node // length, node % length
    east = road % 2 == 0
    along = place * spacing + rng.uniform(-0.25, 0.25, num_nodes) * spacing
    # Freeways of one direction lie evenly over the extent of those that they cross.
    num_roads = int(road[-1]) + 1
    across = (road // 2 + 0.5) * (length * spacing / max((num_roads + 1) // 2, 1))
    pos = np.stack([np.where(east, along, across), np.where(east, across, along)], axis=1)

    chain = node[:-1][road[:-1] == road[1:]]
    links = [np.stack([chain, chain + 1])]
    # One ramp a crossing, from the last sensor before it to the first one behind it.
    roads = np.arange(num_roads)
    a, b = (r.ravel() for r in np.meshgrid(roads[::2], roads[1::2], indexing="ij"))
    swap = rng.random(len(a)) < 0.5
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    at_a = np.floor(across[b * length] / spacing).astype(np.int64)
    at_b = np.floor(across[a * length] / spacing).astype(np.int64) + 1
    source, target = a * length + at_a, b * length + at_b
    exists = (at_a < length) & (at_b < length) & (source < num_nodes) & (target < num_nodes)
    links.append(np.stack([source[exists], target[exists]]))
    all_links = np.concatenate(links, axis=1)
    gap = pos[all_links[0]] - pos[all_links[1]]
    return RoadNetwork(all_links, np.sqrt((gap**2).sum(axis=1)), pos)


def upstream(
    road: RoadNetwork, num_nodes: int, origins: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nodes upstream of each origin within a distance, by the shortest way.

    Args:
        road (RoadNetwork): The links in driving direction.
        num_nodes (int): Number of nodes :math:`N`.
        origins (np.ndarray): Distinct nodes :math:`[O]`.
        reach (float): The longest way, in metres.

    Returns:
        tuple: For each pair, sorted by origin: the origin's place in `origins`, the node upstream
        (the origin itself included) and the length of the way in metres.
    """
    order = np.argsort(road.links[1], kind="stable")
    source, length = road.links[0][order], road.distance[order]
    first = np.searchsorted(road.links[1][order], np.arange(num_nodes + 1))
    key = np.arange(len(origins)) * num_nodes + origins
    way = np.zeros(len(origins))
    new_key, new_way = key, way
    # A step along the links a round, for all origins at once; only shorter ways go on.
    while len(new_key):
        node = new_key % num_nodes
        count = first[node + 1] - first[node]
        parent = np.repeat(np.arange(len(node)), count)
        link = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
        link += first[node[parent]]
        found_key = new_key[parent] // num_nodes * num_nodes + source[link]
        found_way = new_way[parent] + length[link]
        near = found_way <= reach
        joined_key = np.concatenate([key, found_key[near]])
        joined_way = np.concatenate([way, found_way[near]])
        old = np.arange(len(joined_key)) < len(key)
        # Of equal ways the known one comes first, so that a loop of length zero ends.
        best = np.lexsort((~old, joined_way, joined_key))
        best = best[np.r_[True, np.diff(joined_key[best]) > 0]]
        key, way = joined_key[best], joined_way[best]
        new_key, new_way = key[~old[best]], way[~old[best]]
    return key // num_nodes, key % num_nodes, way
