from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.loader import DataLoader

from pyg_stkd.datasets.points.point_clouds import (
    MODELNET10,
    MODELNET40,
    PointClouds,
    check_split,
    unit_sphere,
)


class Clouds(PointClouds):
    """A cloud of two points and one of one point."""

    def __init__(self, normal: bool = False, transform: object = None) -> None:
        self.train, self.classes = True, ["a", "b", "c"]
        super().__init__(None, transform)
        pos = np.arange(9, dtype=np.float32).reshape(3, 3)
        self._fill(pos, [2, 1], np.array([1, 0]), -pos if normal else None)


def test_point_clouds_items() -> None:
    dataset = Clouds(normal=True)
    assert repr(dataset) == "Clouds(2, train=True)"
    assert (len(dataset), dataset.num_classes) == (2, 3)
    assert dataset[0].pos.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert dataset[0].normal.tolist() == [[0, -1, -2], [-3, -4, -5]]
    assert dataset[1].pos.tolist() == [[6, 7, 8]]
    assert [data.y.tolist() for data in dataset] == [[1], [0]]
    assert [data.num_nodes for data in dataset] == [2, 1]
    assert (dataset.y.tolist(), dataset[1:].y.tolist()) == ([1, 0], [0])
    assert sorted(Clouds()[0].keys()) == ["pos", "y"]


def test_point_clouds_transform_leaves_the_stored_points_alone() -> None:
    def shift(data):  # type: ignore[no-untyped-def]
        data.pos = data.pos + 1
        return data

    dataset = Clouds(transform=shift)
    for _ in range(2):
        assert dataset[1].pos.tolist() == [[7, 8, 9]]


def test_point_clouds_load_and_pickle() -> None:
    (batch,) = DataLoader(pickle.loads(pickle.dumps(Clouds())), batch_size=2)
    assert batch.batch.tolist() == [0, 0, 1]
    assert batch.pos.tolist() == np.arange(9).reshape(3, 3).tolist()
    assert batch.y.tolist() == [1, 0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_unit_sphere_is_that_of_each_cloud(sizes: list[int], seed: int) -> None:
    pos = np.random.default_rng(seed).normal(1000, 3, (sum(sizes), 3)).astype(np.float32)
    expected = []
    for cloud in np.split(pos.astype(np.float64), np.cumsum(sizes)[:-1]):
        centred = cloud - cloud.mean(axis=0)
        expected.append(centred / max(np.linalg.norm(centred, axis=1).max(), 1e-12))
    out = unit_sphere(pos, sizes)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, np.concatenate(expected), atol=1e-6)


def test_unit_sphere_of_one_place() -> None:
    assert unit_sphere(np.full((4, 3), 7, dtype=np.float32), [3, 1]).tolist() == [[0, 0, 0]] * 4


def test_checks() -> None:
    with pytest.raises(TypeError, match=r"'train' must be True or False \(got 'test'\)"):
        check_split("test")  # type: ignore[arg-type]


def test_class_names() -> None:
    assert (len(MODELNET10), len(MODELNET40)) == (10, 40)
    assert sorted(MODELNET40) == MODELNET40
    assert set(MODELNET10) < set(MODELNET40)
    assert sorted(MODELNET10) == MODELNET10


@pytest.mark.skipif(
    "PYG_STKD_DATA" not in os.environ, reason="set PYG_STKD_DATA to a folder of real data"
)
def test_class_names_are_the_official_ones() -> None:
    lists = Path(os.environ["PYG_STKD_DATA"]) / "modelnet_lists"
    assert (lists / "modelnet10_shape_names.txt").read_text().split() == MODELNET10
    assert (lists / "modelnet40_shape_names.txt").read_text().split() == MODELNET40


def test_points_are_tensors_of_the_documented_types() -> None:
    data = Clouds(normal=True)[0]
    assert (data.pos.dtype, data.normal.dtype, data.y.dtype) == (
        torch.float32,
        torch.float32,
        torch.int64,
    )
