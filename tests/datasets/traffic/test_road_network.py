from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.datasets.traffic.road_network import RoadNetwork, freeway_grid, upstream


@given(num_nodes=st.integers(1, 300), seed=st.integers(0, 5))
def test_freeway_grid_is_a_road_graph(num_nodes: int, seed: int) -> None:
    road = freeway_grid(num_nodes, np.random.default_rng(seed))
    assert road.pos.shape == (num_nodes, 2)
    source, target = road.links
    assert ((road.links >= 0) & (road.links < num_nodes)).all()
    assert (source != target).all()
    assert (road.distance > 0).all()
    gap = np.linalg.norm(road.pos[source] - road.pos[target], axis=1)
    np.testing.assert_allclose(road.distance, gap)
    assert road.distance.max(initial=0) < 4000  # ramps join neighbours only
    assert np.bincount(target, minlength=num_nodes).max() <= 12


@pytest.mark.parametrize("num_nodes", [64, 228, 700])
def test_freeways_of_one_direction_lie_evenly_over_those_that_they_cross(num_nodes: int) -> None:
    road = freeway_grid(num_nodes, np.random.default_rng(0))
    length = int(np.sqrt(2 * num_nodes))
    freeway = np.arange(num_nodes) // length
    for direction, axis in ((0, 1), (1, 0)):  # those that run east lie at places north
        places = [
            np.unique(road.pos[freeway == f, axis]) for f in range(direction, freeway[-1] + 1, 2)
        ]
        assert all(len(place) == 1 for place in places)
        gaps = np.diff(np.concatenate(places))
        np.testing.assert_allclose(gaps, gaps[0])
        extent = length * 800.0
        assert places[0][0] == pytest.approx(gaps[0] / 2)
        assert places[-1][0] + gaps[0] / 2 == pytest.approx(extent, abs=gaps[0] + 1)


def naive_upstream(
    road: RoadNetwork, num_nodes: int, origin: int, reach: float
) -> dict[int, float]:
    way = dict.fromkeys(range(num_nodes), np.inf) | {origin: 0.0}
    for _ in range(num_nodes):
        for source, target, length in zip(*road.links, road.distance, strict=True):
            way[source] = min(way[source], way[target] + length)
    return {node: length for node, length in way.items() if length <= reach}


@given(data=st.data(), num_nodes=st.integers(1, 8), reach=st.floats(0, 5))
def test_upstream_is_the_shortest_way_against_the_links(
    data: st.DataObject, num_nodes: int, reach: float
) -> None:
    node = st.integers(0, num_nodes - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=15))
    links = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    # Loops of length zero must end, too.
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    road = RoadNetwork(links, np.array(lengths, dtype=float), np.zeros((num_nodes, 2)))
    origins = np.arange(num_nodes)[:: data.draw(st.integers(1, 3))]
    owner, found, way = upstream(road, num_nodes, origins, reach)
    assert (np.diff(owner) >= 0).all()
    for i, origin in enumerate(origins):
        got = dict(zip(found[owner == i].tolist(), way[owner == i].tolist(), strict=True))
        assert got == pytest.approx(naive_upstream(road, num_nodes, int(origin), reach))
