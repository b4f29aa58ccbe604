"""Synthetic freeways, and the way upstream along a road graph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["freeway_grid", "RoadNetwork", "upstream"]


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
    import networkx as nx  # torch itself requires it

    lengths: dict[tuple[int, int], float] = {}
    for source, target, length in zip(*road.links.tolist(), road.distance.tolist(), strict=True):
        lengths[target, source] = min(length, lengths.get((target, source), np.inf))
    against = nx.DiGraph()
    against.add_nodes_from(range(num_nodes))
    against.add_weighted_edges_from((*ends, length) for ends, length in lengths.items())
    ways = [
        sorted(nx.single_source_dijkstra_path_length(against, origin, cutoff=reach).items())
        for origin in origins.tolist()
    ]
    owner = np.repeat(np.arange(len(ways)), [len(way) for way in ways])
    node = np.array([node for way in ways for node, _ in way], dtype=np.int64)
    return owner, node, np.array([length for way in ways for _, length in way], dtype=np.float64)
