"""What layers return while a model runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.report.interpretation.watching import outputs_of


def test_hooks_are_gone_afterwards_even_if_the_model_breaks() -> None:
    model = nn.Sequential(nn.Linear(2, 2))

    def broken(model: nn.Module) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        outputs_of(model, ["0"], broken)
    assert not model[0]._forward_hooks


def test_the_last_call_counts() -> None:
    layer = nn.Identity()
    model = nn.Sequential(layer)
    x = torch.ones(2)
    out, seen = outputs_of(model, ["0"], lambda each: each(2 * each(x)))
    assert seen["0"] is out
