from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn.utils import parametrize, prune

from pyg_stkd.nn.conv.edge_network import read_edge_network

LINEAR, NORM, ACT = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()


def test_reads_the_three_parts_however_they_are_wrapped() -> None:
    block = (LINEAR, NORM, ACT)
    for network in (
        nn.Sequential(*block),
        nn.Sequential(nn.Sequential(LINEAR), nn.Identity(), nn.Sequential(NORM, ACT)),
        pyg.Sequential("x", [(LINEAR, "x -> y"), (NORM, "y -> y"), ACT]),
        nn.Sequential(LINEAR, nn.Dropout(0.0), NORM, ACT),
        nn.Sequential(LINEAR, NORM, ACT, nn.Dropout(0.5)).eval(),
    ):
        assert read_edge_network(network) == block
    assert read_edge_network(LINEAR) == (LINEAR, None, None)
    assert read_edge_network(nn.Sequential(LINEAR, torch.nn.Tanh()))[1] is None  # type: ignore[index]
    mlp = pyg.MLP([4, 3], plain_last=False)
    found = read_edge_network(mlp)
    assert found is not None
    assert found[:2] == (mlp.lins[0], mlp.norms[0].module)


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(),
        nn.Sequential(ACT, LINEAR),
        nn.Sequential(LINEAR, ACT, NORM),
        nn.Sequential(LINEAR, ACT, nn.Linear(3, 3)),
        nn.Sequential(LINEAR, nn.GELU()),
        nn.Sequential(LINEAR, nn.LeakyReLU(-0.1)),
        nn.Sequential(LINEAR, nn.LayerNorm(3)),
        nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)),
        nn.Sequential(hooked(nn.Linear(4, 3)), nn.ReLU()),
        hooked(nn.Sequential(nn.Linear(4, 3))),
        nn.Sequential(nn.LazyLinear(3)),
        pyg.Sequential("x, y", [(nn.Linear(4, 3), "x -> x"), (lambda x, y: x + y, "x, y -> x")]),
        pyg.MLP([4, 3, 3]),
        lambda x: x,
    ],
    ids=lambda network: type(network).__name__,
)
def test_leaves_all_others_alone(network: object) -> None:
    assert read_edge_network(network) is None


def test_masks_are_followed_and_parametrizations_are_not() -> None:
    linear = nn.Linear(4, 3)
    prune.l1_unstructured(linear, "weight", amount=2)
    assert read_edge_network(linear) == (linear, None, None)
    other = nn.Linear(4, 3)
    parametrize.register_parametrization(other, "weight", nn.Identity())
    assert read_edge_network(other) is None


def test_what_rises_depends_on_the_numbers() -> None:
    act = nn.PReLU()
    network = nn.Sequential(LINEAR, act)
    assert read_edge_network(network) is not None
    act.weight.data.fill_(-0.1)
    assert read_edge_network(network) is None
