"""Tests of pyg_stkd/prune/structure/rules/edge.py: a node's channels, and those it differs in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from pyg_stkd.nn import DynamicEdgeConv, EdgeConv
from pyg_stkd.prune import Pruner, Random

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])


def mlp(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * a, b), nn.ReLU())


KINDS = {
    "of PyG": lambda: pyg.EdgeConv(mlp(3, 4)),
    "of PyG, means": lambda: pyg.EdgeConv(mlp(3, 4), aggr="mean"),
    "ours": lambda: EdgeConv(mlp(3, 4)),
    "ours, dynamic": lambda: DynamicEdgeConv(mlp(3, 4), k=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_columns_belong_to_a_channel(said: Any, kind: str) -> None:
    found = said(KINDS[kind](), 3)
    assert found.owned["nn.0.weight"] == {0: found.out, 1: found.x * 2}
    assert len(found.out) == 4
    unknown = said(KINDS[kind](), None)
    assert unknown.free(unknown.owned["nn.0.weight"][1]) == [False] * 6
    assert unknown.free(unknown.out) == [True] * 4


def test_sources_and_targets_have_the_same_channels(said: Any) -> None:
    found = said(pyg.EdgeConv(mlp(3, 4)), 3, 3)
    assert found.same(*found.x)
    half = said(pyg.EdgeConv(mlp(3, 4)), 3, None)
    assert half.free(half.x[0]) == [False] * 3


def test_several_ways_and_those_without_a_rule(said: Any) -> None:
    found = said(pyg.EdgeConv(mlp(3, 4), aggr=["max", "mean"]), 3)
    assert found.out == found.owned["nn.0.weight"][0] * 2
    with pytest.raises(ValueError, match="channels in SoftmaxAggregation of 'aggr_module'"):
        said(pyg.EdgeConv(mlp(3, 4), aggr="softmax"), 3)


def test_what_the_network_makes_unknown_stays_so(said: Any) -> None:
    found = said(pyg.EdgeConv(nn.Sequential(nn.Linear(6, 4), nn.Softmax(-1))), 3)
    assert found.out is None
    assert found.free(found.owned["nn.0.weight"][0]) == [False] * 4
    assert found.free(found.x) == [True] * 3


def test_the_small_layer_has_both_columns_of_each_channel() -> None:
    model = pyg.Sequential(
        "x, e",
        [(pyg.GCNConv(2, 3), "x, e -> x"), (EdgeConv(mlp(3, 4)), "x, e -> x"), nn.Linear(4, 1)],
    )
    pruner = Pruner(model, Random(0), keep=1.0)
    pruner.mask({"module_0": torch.tensor([1, 0, 1])})
    small: Any = pruner.compact()
    whole = model.module_1.nn[0].weight_orig
    assert torch.equal(small.module_1.nn[0].weight, whole[:, [0, 2, 3, 5]])
    x = torch.randn(6, 2)
    torch.testing.assert_close(small(x, EDGES), model(x, EDGES))
