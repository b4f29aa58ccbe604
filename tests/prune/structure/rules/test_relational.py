"""Tests of pyg_stkd/prune/structure/rules/relational.py: a matrix for each type of edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.ports import Ports

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 2, 3, 4, 5, 0, 2, 0, 1, 4]])
KINDS = torch.arange(10) % 3
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", [pyg.RGCNConv, pyg.FastRGCNConv])
@pytest.mark.parametrize("bases", [None, 2])
def test_matrices_of_all_types_share_their_channels(said: Any, kind: Any, bases: Any) -> None:
    conv = kind(3, 4, 5, num_bases=bases)
    found = said(conv, 3)
    assert found.owned == {
        "weight": {1: found.x, 2: found.out},
        "root": {0: found.x, 1: found.out},
        "bias": {0: found.out},
    }  # and no channel in the shares of the bases
    assert conv.weight.size(0) == (bases or 5)
    assert found.of_root == {
        "in_channels": found.x,
        "in_channels_l": found.x,
        "out_channels": found.out,
    }


def test_without_a_matrix_of_the_node_there_is_none_to_shrink(said: Any) -> None:
    found = said(pyg.RGCNConv(3, 4, 5, root_weight=False, bias=False), 3)
    assert found.owned == {"weight": {1: found.x, 2: found.out}}


def test_sources_and_targets_have_channels_of_their_own(said: Any) -> None:
    conv = pyg.RGCNConv((3, 6), 4, 5)
    found = said(conv, 3, 6)
    src, dst = found.x
    assert (found.owned["weight"][1], found.owned["root"][0]) == (src, dst)
    assert found.of_root["in_channels"] == [src, dst]
    unknown = said(conv, 3, None)
    assert unknown.free(unknown.owned["root"][0]) == [False] * 6
    alone = said(pyg.RGCNConv((3, 6), 4, 5, root_weight=False), 3, None)
    assert alone.of_root["in_channels"] == [alone.x[0], alone.x[0]]
    with pytest.raises(ValueError, match=r"it takes 6 channels \(got 3\)"):
        said(conv, 3, 3)


def test_blocks_and_unknown_aggregations_are_refused(said: Any) -> None:
    chain = [nn.Linear(2, 4), pyg.RGCNConv(4, 4, 3, num_blocks=2)]
    with pytest.raises(ValueError, match=r"^No rule says which blocks channels are in: '1'$"):
        Ports(nn.Sequential(*chain))
    with pytest.raises(ValueError, match="channels in SoftmaxAggregation"):
        said(pyg.RGCNConv(3, 4, 5, aggr="softmax"), 3)


@pytest.mark.parametrize("bases", [None, 2])
def test_small_layers_hold_the_slices_that_are_left(
    declared: Any, check_rule: Any, bases: Any
) -> None:
    def run(layers: Any, x: Tensor) -> Tensor:
        return layers[1](layers[0](x, EDGES, KINDS).tanh(), EDGES, KINDS)

    def build() -> nn.Module:
        layers = [pyg.RGCNConv(3, 6, 3, num_bases=bases), pyg.RGCNConv(6, 2, 3, num_bases=bases)]
        return declared(layers, run)

    check_rule(build, lambda model: model(X), 0, 0.4)
    model: Any = build()
    pruner = Pruner(model, Random(0), keep=1.0)
    pruner.mask({"layers.0": torch.tensor([0, 1, 1, 0, 0, 1])})
    small: Any = pruner.compact()
    a, b = model.layers
    assert torch.equal(small.layers[0].weight, a.weight_orig[:, :, [1, 2, 5]])
    assert torch.equal(small.layers[0].root, a.root_orig[:, [1, 2, 5]])
    assert torch.equal(small.layers[1].weight, b.weight_orig[:, [1, 2, 5]])
    assert torch.equal(small.layers[1].root, b.root_orig[[1, 2, 5]])
    assert repr(small.layers[1]) == "RGCNConv(3, 2, num_relations=3)"
