"""Tests of pyg_stkd/prune/structure/rules/multihead.py: all heads lose the same channels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """Attention of a sequence [B, T, C] to itself, between two linear layers."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 2)
        self.attention = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(self.attention(h, h, h)[0])


def test_one_channel_is_a_column_of_each_head(said: Any) -> None:
    found = said(nn.MultiheadAttention(12, 3), 12)
    channels = found.out[:4]
    assert found.out == channels * 3  # column h * F + c belongs to channel c
    assert found.same(found.x, found.out)
    assert found.owned == {
        "in_proj_weight": {0: found.out * 3, 1: found.out},  # queries, keys and values
        "in_proj_bias": {0: found.out * 3},
        "out_proj.weight": {0: found.out, 1: found.out},
        "out_proj.bias": {0: found.out},
    }
    widths = {name: found.of_root[name] for name in ("embed_dim", "kdim", "vdim")}
    assert widths == dict.fromkeys(("embed_dim", "kdim", "vdim"), found.out)
    assert found.of_root["head_dim"] == channels
    assert found.free(found.out) == [True] * 12
    unknown = said(nn.MultiheadAttention(12, 3), None)
    assert unknown.free(unknown.out) == [False] * 12  # as the inputs that it is tied to


@pytest.mark.parametrize(
    "kwargs", [{"kdim": 5}, {"vdim": 7}, {"add_bias_kv": True}], ids=["keys", "values", "bias"]
)
def test_other_widths_and_biases_of_keys_are_refused(said: Any, kwargs: Any) -> None:
    text = r"^attention with other widths of keys, or with a bias of keys, is kept$"
    with pytest.raises(ValueError, match=text):
        said(nn.MultiheadAttention(12, 3, **kwargs), 12)


def test_its_heads_are_no_units(said: Any) -> None:
    with pytest.raises(ValueError, match=r"^heads that share the width of the inputs are kept$"):
        said(nn.MultiheadAttention(12, 3), 12, heads=True)
    with pytest.raises(ValueError, match=r"(?s)must have heads .*heads that share the width"):
        Pruner(Net(), Random(0), "head", example=(X.float(),))


@pytest.mark.parametrize("bias", [False, True])
def test_queries_grow_as_the_root_of_the_width_shrinks(bias: bool) -> None:
    torch.manual_seed(0)
    model = Net(bias).double()
    with torch.no_grad():
        for parameter in model.attention.parameters():
            parameter.normal_()
    pruner = Pruner(model, Random(0), keep=1.0, example=(X,), strict=True)
    (group,) = pruner.groups
    assert group.width == 4
    pruner.mask({group.name: torch.tensor([0, 1, 0, 1])})
    small: Any = pruner.compact()
    whole: Any = model.attention
    left, scale = [1, 3, 5, 7, 9, 11], math.sqrt(2 / 4)
    rows = [12 * part + i for part in range(3) for i in left]
    expected = whole.in_proj_weight_orig.detach()[rows][:, left].clone()
    expected[:6] *= scale  # of queries alone
    torch.testing.assert_close(small.attention.in_proj_weight, expected)
    if bias:
        of_bias = whole.in_proj_bias_orig.detach()[rows].clone()
        of_bias[:6] *= scale
        torch.testing.assert_close(small.attention.in_proj_bias, of_bias)
    assert torch.equal(small.attention.out_proj.weight, whole.out_proj.weight_orig[left][:, left])
    assert (small.attention.embed_dim, small.attention.head_dim) == (6, 2)
    assert small.attention.num_heads == 3
    torch.testing.assert_close(small(X), model(X))
