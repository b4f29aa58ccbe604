"""Tests of pyg_stkd/prune/compensate.py: which layers are looked at; see test_algorithm.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.prune.algorithm.compensate import add_means
from pyg_stkd.prune.compaction.compact import plain_copy


class Noisy(nn.Linear):
    """Has a buffer that is no mask of a parameter."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.register_buffer("attn_mask", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(3)


def test_buffers_of_the_user_are_no_masks() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3), Noisy())
    x, bias = torch.randn(20, 2), model[3].bias.detach().clone()
    before, middle = plain_copy(model), model[:3](x).mean(0)
    Pruner(model, Magnitude(), keep=1.0, ignore=["3"]).mask({"0": torch.arange(8) < 4})
    add_means(model, before, lambda one: one(x))
    assert torch.equal(model[3].bias, bias)  # the layer is not masked: its noise is not measured
    torch.testing.assert_close(model[:3](x).mean(0), middle)
