"""Tests of pyg_stkd/prune/masked/pruned.py: the numbers of a stage, counted by hand."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch
from torch import nn

from pyg_stkd.prune import Magnitude, Pruned, Pruner


def chain() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))  # 12 + 5 parameters, of which 16 can go
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 3.0], [1.0, 1.0], [4.0, 4.0], [2.0, 2.0]]))
        model[0].bias.zero_(), model[1].weight.zero_()
    return model


def test_shares_count_what_can_and_what_cannot_be_pruned() -> None:
    pruner = Pruner(chain(), Magnitude(), keep=1.0)
    pruner.mask({"0": torch.tensor([1, 1, 0, 0])})
    expected = Pruned(
        stage=0,
        target=9 / 17,  # by hand nothing is aimed at but what is left
        num_parameters=9,
        share=9 / 17,
        prunable_share=8 / 16,
        widths={"0": 2},
    )
    assert pruner.report() == expected
    assert pruner.report(0.75) == replace(expected, target=0.75)


def test_a_stage_says_what_it_was_to_keep_and_what_it_kept() -> None:
    pruner = Pruner(chain(), Magnitude(), keep=(0.8, 0.6), rho=0.0, min_width=1)
    # A channel has 4 parameters: 13 of 17 are at most 0.8, and 9 at most 0.6.
    assert pruner.step() == Pruned(1, 0.8, 13, 13 / 17, 12 / 16, {"0": 3})
    assert pruner.step() == Pruned(2, 0.6, 9, 9 / 17, 8 / 16, {"0": 2})
    assert pruner.report() == Pruned(2, 9 / 17, 9, 9 / 17, 8 / 16, {"0": 2})


def test_reports_are_plain_values_that_stay() -> None:
    report = Pruner(chain(), Magnitude(), keep=1.0).step()
    assert Pruned(**json.loads(json.dumps(asdict(report)))) == report
    with pytest.raises(FrozenInstanceError):
        report.share = 0.5  # type: ignore[misc]
