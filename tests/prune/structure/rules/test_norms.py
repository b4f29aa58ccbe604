"""Tests of pyg_stkd/prune/structure/rules/norms.py: statistics of channels, and over channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from pyg_stkd.nn import NodeBatchNorm, NodeLayerNorm
from pyg_stkd.prune import Pruner, Random

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(8, 3, generator=GENERATOR, dtype=torch.float64)
AFFINE = {"weight", "bias"}
RUNNING = {"running_mean", "running_var"}
INSTANCE = pyg.InstanceNorm(4, affine=True, track_running_stats=True)


@pytest.mark.parametrize(
    ("norm", "names", "width"),
    [
        (nn.BatchNorm1d(4), AFFINE | RUNNING, "num_features"),
        (nn.BatchNorm2d(4, affine=False), RUNNING, "num_features"),
        (nn.BatchNorm3d(4, track_running_stats=False), AFFINE, "num_features"),
        (nn.InstanceNorm1d(4), set(), "num_features"),
        (nn.InstanceNorm2d(4, affine=True), AFFINE, "num_features"),
        (INSTANCE, AFFINE | RUNNING, "num_features"),
        (pyg.GraphNorm(4), AFFINE | {"mean_scale"}, "in_channels"),
    ],
)
def test_scales_shifts_and_statistics_of_each_channel(
    said: Any, norm: Any, names: set[str], width: str
) -> None:
    found = said(norm, 4)
    assert found.owned == {name: {0: found.x} for name in names}
    assert found.out == found.x
    assert found.of_root[width] == found.x
    assert found.ports.skips == {}  # zeros are in no statistics but their own
    with pytest.raises(ValueError, match=r"it takes 4 channels \(got 5\)"):
        said(norm, 5)


def test_a_batch_norm_in_a_wrapper(said: Any) -> None:
    found = said(pyg.BatchNorm(4), 4)
    assert found.owned == {f"module.{name}": {0: found.x} for name in AFFINE | RUNNING}
    assert found.of_root == {"in_channels": found.x}
    assert found.attributes["module.num_features"] == found.x


@pytest.mark.parametrize(
    ("norm", "names", "width"),
    [
        (nn.LayerNorm(4), AFFINE, "normalized_shape"),
        (nn.LayerNorm(4, elementwise_affine=False), set(), "normalized_shape"),
        (nn.RMSNorm(4), {"weight"}, "normalized_shape"),
        (NodeLayerNorm(4), AFFINE, "normalized_shape"),
        (pyg.LayerNorm(4), AFFINE, "in_channels"),
        (pyg.LayerNorm(4, mode="node", affine=False), set(), "in_channels"),
        (pyg.HeteroLayerNorm(4, 3), AFFINE, "in_channels"),
    ],
)
def test_norms_over_channels_leave_masked_ones_out(
    said: Any, norm: Any, names: set[str], width: str
) -> None:
    found = said(norm, 4)
    dim = 1 if isinstance(norm, pyg.HeteroLayerNorm) else 0  # behind a row for each type
    assert found.owned == {name: {dim: found.x} for name in names}
    assert found.ports.skips == {"": found.x}
    assert found.of_root[width] == ([found.x] if width == "normalized_shape" else found.x)
    assert found.out == found.x


def test_norms_over_nodes_and_channels_keep_the_number_of_nodes(said: Any) -> None:
    for norm in (NodeLayerNorm(4, num_nodes=5), nn.LayerNorm([5, 4])):
        found = said(norm, 4)
        assert found.owned["weight"] == {1: found.x}
        nodes, channels = found.of_root["normalized_shape"]
        assert channels == found.x
        assert found.free(nodes) == [False] * 5


def test_norms_of_nodes_have_no_width_of_channels(said: Any) -> None:
    found = said(NodeBatchNorm(5), 4)
    assert (found.owned, found.of_root) == ({}, {})
    assert found.ports.skips == {"": found.x}
    assert found.out == found.x
    unknown = said(NodeBatchNorm(5), None)
    assert (unknown.out, unknown.ports.skips) == (None, {})


def test_soft_groups_are_kept_and_have_each_channel(said: Any) -> None:
    found = said(pyg.DiffGroupNorm(4, 3), 4)
    groups = found.owned["lin.weight"][0]
    assert found.owned["lin.weight"][1] == found.x
    assert found.free(groups) == [False] * 3
    for name in AFFINE | RUNNING:
        assert found.owned[f"norm.{name}"] == {0: found.x * 3}  # entry g * C + c
    assert found.attributes["norm.num_features"] == found.x * 3
    assert found.of_root == {"in_channels": found.x}
    assert found.ports.skips == {}


NORMS = {
    "layer": lambda: nn.LayerNorm(6),
    "root of squares": lambda: nn.RMSNorm(6),
    "layer, of the graph": lambda: pyg.LayerNorm(6),
    "layer, of a node": lambda: pyg.LayerNorm(6, mode="node"),
    "batch": lambda: nn.BatchNorm1d(6),
    "batch of PyG": lambda: pyg.BatchNorm(6),
    "graph": lambda: pyg.GraphNorm(6),
    "instance": lambda: pyg.InstanceNorm(6, affine=True, track_running_stats=True),
    "soft groups": lambda: pyg.DiffGroupNorm(6, 2),
}


@pytest.mark.parametrize("name", NORMS)
def test_masked_equals_compacted(check_rule: Any, name: str) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 6), NORMS[name](), nn.ReLU(), nn.Linear(6, 2))

    pruner = check_rule(build, lambda model: model(X), 0, 0.5)
    assert 0 < pruner.widths["0"] < 6


@pytest.mark.parametrize("name", ["layer", "root of squares", "layer, of the graph"])
def test_the_mean_is_of_those_that_are_left(name: str) -> None:
    norm = NORMS[name]()
    model = nn.Sequential(nn.Linear(3, 6), norm, nn.Linear(6, 2)).double()
    pruner = Pruner(model, Random(0), keep=1.0)
    left = [0, 2, 5]
    pruner.mask({"0": torch.tensor([i in left for i in range(6)])})
    h = model[0](X)
    out = norm(h)
    alone = h[:, left]  # by hand; scales are 1 and shifts 0
    dims = None if name == "layer, of the graph" else -1
    mean = 0.0 if name == "root of squares" else alone.mean(dims, keepdim=dims is not None)
    centred = alone - mean
    eps = torch.finfo(torch.float64).eps if name == "root of squares" else 1e-5
    if name == "layer, of the graph":
        expected = centred / (centred.square().mean().sqrt() + eps)
    else:
        expected = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(out[:, left], expected)
    assert not bool(out[:, [1, 3, 4]].any())


def test_groups_of_a_norm_go_as_a_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    pruner = Pruner(model.double(), Random(0), keep=0.6)
    (group,) = pruner.groups
    assert group.width == 4
    pruner.mask({group.name: torch.tensor([1, 0, 1, 1])})
    small = pruner.compact()
    assert (small[1].num_groups, small[1].num_channels) == (3, 6)
    torch.testing.assert_close(small[1].weight, model[1].weight[[0, 1, 4, 5, 6, 7]])
    one = nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(1, 8), nn.ReLU(), nn.Linear(8, 4))
    pruner = Pruner(one, Random(0), keep=0.6)
    pruner.mask({"0": torch.arange(8) < 5})
    small = pruner.compact()
    assert (small[1].num_groups, small[1].num_channels) == (1, 5)
