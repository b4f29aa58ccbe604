"""Tests of pyg_stkd/prune/masked/snapshot.py: later masks come off, earlier ones stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from pyg_stkd.prune import Magnitude, Pruner

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_masks_that_came_later_come_off(granularity: Any) -> None:
    net = model()
    prune.l1_unstructured(net[3], "weight", 0.25)
    pruner = Pruner(net, Magnitude(), granularity, keep=(0.6, 0.4), rho=0.0)
    state, out, share = copy.deepcopy(net.state_dict()), net(X).detach(), pruner.share
    names = [name for name, _ in net.named_parameters()]
    before = pruner.snapshot()
    for _ in range(2):
        pruner.step()
        assert pruner.share < share
        pruner.restore(before)
        net.load_state_dict(state)
        pruner.stage = 0
        assert list(net.state_dict()) == list(state)
        assert [name for name, _ in net.named_parameters()] == names
        assert torch.equal(net(X), out)
        assert pruner.share == share


def test_masks_of_the_first_of_two_stay() -> None:
    net = model()
    pruner = Pruner(net, Magnitude(), keep=(0.7, 0.4), rho=0.0, budget=lambda m: size(m))
    pruner.step()
    widths, spent = pruner.widths, pruner.spent
    before, state, out = pruner.snapshot(), copy.deepcopy(net.state_dict()), net(X).detach()
    pruner.step()
    assert pruner.widths != widths
    pruner.restore(before)
    net.load_state_dict(state)
    assert (pruner.widths, pruner.spent) == (widths, spent)
    assert torch.equal(net(X), out)


def size(net: nn.Module) -> float:
    return float(sum(p.numel() for p in net.parameters()))
