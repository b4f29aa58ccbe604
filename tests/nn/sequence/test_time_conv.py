from __future__ import annotations

import pytest
import torch
from torch import nn

from pyg_stkd.nn.sequence.time_conv import TimeConv, keeps_digits


@pytest.mark.parametrize("width", [1, 5, 6])  # 3 taps: windows up to 5 inputs, taps from 6
@pytest.mark.parametrize("residual", [0, 4, 8])
def test_equals_conv2d(width: int, residual: int) -> None:
    ours, theirs = TimeConv(width, 8, 3).double(), nn.Conv2d(width, 8, (3, 1)).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 4, width, dtype=torch.double)
    expected = theirs(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).clone()
    expected[..., : min(residual, width)] += x[:, 2:, :, : min(residual, width)]
    torch.testing.assert_close(ours(x, residual=residual), expected)


def test_pruned_weights_are_seen() -> None:
    conv = TimeConv(3, 4, 2)
    torch.nn.utils.prune.ln_structured(conv, "weight", amount=2, n=1, dim=0)
    y = conv(torch.randn(1, 4, 2, 3)) - conv.bias
    assert (y.abs().amax((0, 1, 2)) == 0).sum() == 2


def test_exact_products_only_in_full_precision() -> None:
    assert keeps_digits(torch.zeros(1))
    assert not keeps_digits(torch.zeros(1, dtype=torch.bfloat16))
    with torch.autocast("cpu"):
        assert not keeps_digits(torch.zeros(1))
