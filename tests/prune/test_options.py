"""What a pruner is told: refused where no pruner takes it, and the masks that follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pyg_stkd.prune import Magnitude
from pyg_stkd.prune.masked.channels import MaskedChannels
from pyg_stkd.prune.masked.weights import MaskedWeights
from pyg_stkd.prune.options import check_options, masked_model
from pyg_stkd.prune.structure.example import Example

GOOD: dict[str, Any] = {
    "model": nn.Linear(1, 1),
    "importance": Magnitude(),
    "granularity": "channel",
    "rho": 0.6,
    "min_width": 2,
    "ignore": (),
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("model", torch.ones(1), TypeError),
        ("importance", "kdis", TypeError),
        ("importance", Magnitude, TypeError),
        ("granularity", "layer", ValueError),
        ("rho", -0.1, ValueError),
        ("rho", 1.1, ValueError),
        ("rho", "half", TypeError),
        ("min_width", 0, ValueError),
        ("min_width", 1.5, TypeError),
        ("ignore", "lin", TypeError),
    ],
)
def test_options_that_no_pruner_takes_are_refused_by_name(
    name: str, value: Any, error: type[Exception]
) -> None:
    check_options(**GOOD)
    with pytest.raises(error, match=f"'{name}' must"):
        check_options(**{**GOOD, name: value})


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))


def test_masks_are_of_the_granularity() -> None:
    assert type(masked_model(chain(), "weight", (), None)) is MaskedWeights
    masked = masked_model(chain(), "channel", (), None, Example((torch.ones(3, 2),)))
    assert type(masked) is MaskedChannels
    assert [group.width for group in masked.groups] == [4]
    with pytest.raises(ValueError, match="must have heads that can be pruned"):
        masked_model(chain(), "head", (), None)
    with pytest.raises(ValueError, match="'budget' must be 'parameters' for single weights"):
        masked_model(chain(), "weight", (), lambda model: 1.0)
