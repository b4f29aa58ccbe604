"""Heads as units, where they are found by following a model's own code."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GATv2Conv, SuperGATConv, TransformerConv

from pyg_stkd.prune import Pruner, Random

N = 14
GENERATOR = torch.Generator().manual_seed(0)
X, EDGES = torch.randn(N, 6, generator=GENERATOR), torch.randint(N, (2, 40), generator=GENERATOR)


def pruned(model: nn.Module) -> tuple[dict[str, int], Any]:
    torch.manual_seed(0)
    pruner = Pruner(
        model, Random(0), "head", keep=0.5, example=(X, EDGES), min_width=1, rho=0.1, strict=True
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The floors")
        pruner.step()
    small = pruner.compact()
    a, b = copy.deepcopy(model).double().eval(), copy.deepcopy(small).double().eval()
    torch.testing.assert_close(a(X.double(), EDGES), b(X.double(), EDGES), rtol=0, atol=1e-10)
    return pruner.widths, small


class Attention(nn.Module):
    """Heads side by side, beside a residual layer, then means over heads, which are kept."""

    def __init__(self, kind: Any, **kwargs: Any) -> None:
        super().__init__()
        self.conv1, self.lin = kind(6, 5, heads=4, **kwargs), nn.Linear(6, 20)
        self.norm, self.conv2 = nn.BatchNorm1d(20), kind(20, 3, heads=2, concat=False, **kwargs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.norm(self.conv1(x, edge_index) + self.lin(x)).relu()
        return self.conv2(x, edge_index).log_softmax(dim=-1)


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        (GATConv, {}),
        (GATConv, {"residual": True}),
        (GATv2Conv, {"share_weights": True}),
        (TransformerConv, {"beta": True}),
    ],
)
def test_heads_of_layers_with_a_rule_are_tied_with_what_is_added(kind: Any, kwargs: Any) -> None:
    widths, small = pruned(Attention(kind, **kwargs))
    (left,) = widths.values()
    assert left < 4
    assert small.conv1.heads == left
    assert small.conv1.out_channels == 5
    assert small.lin.out_features == small.norm.num_features == 5 * left
    assert small.conv2.heads == 2


def test_heads_of_layers_without_a_rule_are_found_in_their_code() -> None:
    with pytest.raises(ValueError, match=r"'strict' allows no .*conv2.*mean"):
        pruned(Attention(SuperGATConv))  # which takes the mean of the heads of the last layer
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"conv2.*mean"):
        pruner = Pruner(
            Attention(SuperGATConv), Random(0), "head", keep=0.5, example=(X, EDGES), min_width=1
        )
    assert [group.width for group in pruner.groups] == [4]


class Own(nn.Module):
    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.channels, self.fused = 4, 3, fused
        self.query, self.key, self.value = (nn.Linear(6, 12) for _ in range(3))
        self.gain = nn.Parameter(torch.rand(1, 4, 3))
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        shape = (-1, self.heads, self.channels)
        q, k, v = (lin(x).view(shape) for lin in (self.query, self.key, self.value))
        if self.fused:
            q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v * self.gain))
            found = F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
        else:
            source, target = edge_index
            score = (q[target] * k[source]).sum(-1, keepdim=True) / math.sqrt(self.channels)
            found = torch.zeros_like(q).index_add(0, target, score.tanh() * v[source] * self.gain)
        return self.out(found.flatten(1))


@pytest.mark.parametrize("fused", [False, True])
def test_heads_of_ones_own_code(fused: bool) -> None:
    widths, small = pruned(Own(fused))
    (left,) = widths.values()
    assert left < 4
    assert (small.heads, small.channels) == (left, 3)
    assert small.gain.shape == (1, left, 3)
    assert small.query.out_features == small.out.in_features == 3 * left


class Torch(nn.Module):
    def __init__(self, beside: bool = False) -> None:
        super().__init__()
        self.lin, self.out = nn.Linear(6, 12), nn.Linear(12, 3)
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True)
        self.conv = GATConv(6, 3, heads=4) if beside else None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.lin(x).unsqueeze(0)
        h = self.attention(h, h, h, need_weights=False)[0][0]
        return (
            self.out(h) if self.conv is None else self.out(h) + self.out(self.conv(x, edge_index))
        )


def test_heads_of_torchs_attention_are_refused_with_the_reason() -> None:
    reason = "heads that share the width of the inputs are kept"
    with pytest.raises(ValueError, match=f"(?s)must have heads that can be pruned.*{reason}"):
        Pruner(Torch(), Random(0), "head", example=(X, EDGES))
    with pytest.warns(UserWarning, match=f"are kept.*{reason}"):
        pruner = Pruner(Torch(beside=True), Random(0), "head", keep=0.8, example=(X, EDGES))
    assert [group.name for group in pruner.groups] in (["conv"], ["conv+out"])
    assert pruner.groups[0].width == 4


class Literal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.out = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.lin(x).view(-1, 4, 3)
        return self.out((h * h.sum(-1, keepdim=True)).flatten(1))


@pytest.mark.parametrize("granularity", ["head", "channel"])
def test_sizes_written_as_numbers_keep_what_they_count(granularity: Any) -> None:
    with pytest.raises(ValueError, match=r"(?s)that can be pruned.*Tensor\.view"):
        Pruner(Literal(), Random(0), granularity, example=(X, EDGES))


def test_channels_are_no_heads() -> None:
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    with pytest.raises(ValueError, match="must have heads that can be pruned"):
        Pruner(model, Random(0), "head", example=(X,))
