from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pyg_stkd import nn as stkd

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GATConv": lambda: stkd.GATConv(4, 2),
    "EdgeConv": lambda: stkd.EdgeConv(nn.Linear(4, 2)),
    "DynamicEdgeConv": lambda: stkd.DynamicEdgeConv(nn.Linear(4, 2), 2),
    "KNNGraph": lambda: stkd.KNNGraph(2),
    "ChebConv": lambda: stkd.ChebConv(2, 2),
    "GCNConv": lambda: stkd.GCNConv(2, 2),
    "GatedTemporalConv": lambda: stkd.GatedTemporalConv(2, 2),
    "STConv": lambda: stkd.STConv(2, 2, 2),
    "NodeBatchNorm": lambda: stkd.NodeBatchNorm(3),
    "SpatialAttention": lambda: stkd.SpatialAttention(2, 3, 4),
    "TemporalAttention": lambda: stkd.TemporalAttention(2, 3, 4),
    "ChebAttentionConv": lambda: stkd.ChebAttentionConv(2, 2, 3),
    "GAT": lambda: stkd.GAT(2, 2, 2, num_layers=2),
    "DGCNN": lambda: stkd.DGCNN(3, 2),
    "STGCN": lambda: stkd.STGCN(2, 2),
    "ASTGCN": lambda: stkd.ASTGCN(1, 2, 2, num_nodes=3),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("inside", [False, True])
def test_says_what_to_use_instead(name: str, inside: bool) -> None:
    layer = LAYERS[name]()
    model = nn.Sequential(layer) if inside else layer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the call itself
        with pytest.raises(TypeError, match=rf"{name}.* use torch.compile"):
            torch.jit.script(model)


def test_no_layer_is_left_out() -> None:
    layers = {
        name
        for name in stkd.__all__
        if isinstance(getattr(stkd, name), type) and issubclass(getattr(stkd, name), nn.Module)
    }
    assert layers == {*LAYERS, "NodeLayerNorm"}  # which TorchScript compiles
