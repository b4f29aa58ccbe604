"""Tests of pyg_stkd/prune/structure/rules/spatio_temporal.py: layers on sequences [B, T, N, C]."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.nn import (
    ChebAttentionConv,
    ChebConv,
    GatedTemporalConv,
    GCNConv,
    SpatialAttention,
    STConv,
    TemporalAttention,
)
from pyg_stkd.nn.models.astgcn import ASTBlock

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 2, 3, 4, 5, 0, 2, 0, 1, 4]])
STEPS = torch.randn(2, 9, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("gate", "parts"), [("glu", 2), ("gtu", 2), ("pgt", 3)])
def test_maps_of_all_parts_of_a_gate_belong_to_a_channel(said: Any, gate: Any, parts: int) -> None:
    conv = GatedTemporalConv(2, 5, gate=gate, residual=False)
    found = said(conv, 2)
    assert conv.conv.out_channels == 5 * parts
    assert found.owned["conv.weight"] == {0: found.out * parts, 1: found.x}
    assert found.owned["conv.bias"] == {0: found.out * parts}
    assert found.of_root == {"in_channels": found.x, "out_channels": found.out}
    assert not set(found.out) & set(found.x)
    assert found.free(found.out) == [True] * 5


def test_a_residual_ties_inputs_with_the_first_outputs(said: Any) -> None:
    wide = said(GatedTemporalConv(2, 5), 2)
    assert wide.same(wide.x, wide.out[:2])
    assert len({*map(wide.ports.find, wide.out)}) == 5
    narrow = said(GatedTemporalConv(5, 3), 5)  # through a linear layer
    assert narrow.owned["align.weight"] == {0: narrow.out, 1: narrow.x}
    assert not {*map(narrow.ports.find, narrow.x)} & {*map(narrow.ports.find, narrow.out)}
    unknown = said(GatedTemporalConv(2, 5), None)
    assert unknown.free(unknown.out) == [False] * 2 + [True] * 3


@pytest.mark.parametrize(("conv", "lins"), [(ChebConv(3, 4, 2), 2), (GCNConv(3, 4), 1)])
def test_graph_convolutions_are_those_of_pyg(said: Any, conv: Any, lins: int) -> None:
    found = said(conv, 3)
    weights = [dims for name, dims in found.owned.items() if name.endswith("weight")]
    assert weights == [{0: found.out, 1: found.x}] * lins
    assert found.owned["bias"] == {0: found.out}


def test_matrices_of_all_orders_share_their_channels(said: Any) -> None:
    found = said(ChebAttentionConv(3, 4, 2, bias=True), 3)
    assert found.owned == {"weight": {1: found.x, 2: found.out}, "bias": {0: found.out}}
    assert found.of_root == {"in_channels": found.x, "out_channels": found.out}


@pytest.mark.parametrize("kind", [SpatialAttention, TemporalAttention])
def test_attention_weighs_inputs_and_returns_no_channels(said: Any, kind: Any) -> None:
    found = said(kind(3, 6, 9), 3)
    assert found.owned == {"w2": {0: found.x}, "w3": {0: found.x}}
    assert found.out is None
    assert found.of_root == {"in_channels": found.x}


def test_a_block_is_time_graph_and_time(said: Any) -> None:
    found = said(STConv(2, 4, 5, K=2, temporal_channels=3, norm="batch", num_nodes=6), 2)
    temporal, hidden = (found.of_root[f"{name}_channels"] for name in ("temporal", "hidden"))
    assert (len(temporal), len(hidden), len(found.out)) == (3, 4, 5)
    assert found.same(found.of_root["out_channels"], found.out)
    # The graph's residual: its first outputs are added to its inputs, the rest to zeros.
    assert found.same(temporal, hidden[:3])
    assert found.same(found.owned["conv.lins.0.weight"][1], hidden)
    assert found.same(found.owned["conv.lins.0.weight"][0], hidden)
    assert found.same(found.owned["temporal2.conv.weight"][1], hidden)
    assert found.of_root["in_channels"] == found.x


def test_a_block_that_narrows_has_a_linear_layer_before_the_graph(said: Any) -> None:
    found = said(STConv(2, 3, 5, K=2, temporal_channels=4, norm=None), 2)
    aligned = found.owned["align.weight"]
    assert found.same(aligned[1], found.of_root["temporal_channels"])
    assert found.same(aligned[0], found.of_root["hidden_channels"])
    free = said(STConv(2, 4, 5, K=2, temporal_channels=4, norm=None, residual=False), 2)
    a, b = free.of_root["temporal_channels"], free.of_root["hidden_channels"]
    assert not {*map(free.ports.find, a)} & {*map(free.ports.find, b)}


def test_norms_of_blocks_have_their_channels(said: Any) -> None:
    found = said(STConv(2, 4, 5, norm="layer", num_nodes=6), 2)
    assert found.same(found.owned["norm.weight"][1], found.out)
    assert list(found.ports.skips) == ["norm"]
    assert said(STConv(2, 4, 5, norm=None), 2).ports.skips == {}


def test_a_block_of_attention_adds_its_residual(said: Any) -> None:
    block = ASTBlock(2, 4, 6, 9, ChebAttentionConv(2, 4, 2), 1)
    found = said(block, 2)
    for name in ("temporal_attention", "spatial_attention"):
        assert found.owned[f"{name}.w3"] == {0: found.x}
    hidden = found.owned["conv.weight"][2]
    assert found.owned["time_conv.weight"] == {0: found.out, 1: hidden}
    assert found.owned["residual.weight"] == {0: found.out, 1: found.x}
    assert found.owned["norm.weight"] == {0: found.out}
    assert found.ports.skips == {"norm": found.out}


@pytest.mark.parametrize("norm", ["layer", None])
def test_blocks_with_layers_of_pyg(declared: Any, check_rule: Any, norm: Any) -> None:
    def build() -> nn.Module:
        def run(layers: Any, x: Tensor) -> Tensor:
            return layers[1](layers[0](x, EDGES))

        block = STConv(2, 4, 5, conv=lambda a, b: pyg.GraphConv(a, b), norm=norm, num_nodes=6)
        return declared([block, nn.Linear(5, 1)], run)

    pruner = check_rule(build, lambda model: model(STEPS), 0, 0.4)
    assert len(pruner.widths) >= 2
