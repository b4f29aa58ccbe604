"""Tests of pyg_stkd/prune/following/draws.py: numbers that stand still, whatever the width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.utils import dropout_edge, dropout_node

from pyg_stkd.prune.following.draws import Still

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))

DRAWS: dict[str, tuple[Callable[[], Tensor], Any]] = {
    "dropout": (lambda: F.dropout(X, 0.3), X),
    "dropout in place": (lambda: F.dropout(X.clone(), 0.3, inplace=True), X),
    "dropout of channels": (lambda: F.dropout1d(X[None], 0.3), X[None]),
    "rand": (lambda: torch.rand(2, 3), torch.full((2, 3), 0.5)),
    "rand like": (lambda: torch.rand_like(X), torch.full_like(X, 0.5)),
    "randn": (lambda: torch.randn(2), torch.ones(2)),
    "randn like": (lambda: torch.randn_like(X), torch.ones_like(X)),
    "uniform": (lambda: torch.empty(2).uniform_(2.0, 4.0), torch.full((2,), 3.0)),
    "normal": (lambda: torch.empty(2).normal_(2.0, 3.0), torch.full((2,), 5.0)),
    "normal of tensors": (lambda: torch.normal(X, X.abs()), X + X.abs()),
    "normal of a mean": (lambda: torch.normal(X, 2.0), X + 2.0),
    "exponential": (lambda: torch.empty(2).exponential_(4.0), torch.full((2,), 0.25)),
    "bernoulli": (lambda: torch.bernoulli(X.sigmoid()), X.sigmoid()),
    "bernoulli in place": (lambda: X.clone().bernoulli_(0.25), torch.full_like(X, 0.25)),
    "bernoulli by default": (lambda: X.clone().bernoulli_(), torch.full_like(X, 0.5)),
    "bernoulli of tensors": (lambda: X.clone().bernoulli_(X.sigmoid()), X.sigmoid()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_constants_stand_in_for_what_is_drawn(name: str) -> None:
    draw, expected = DRAWS[name]
    state = torch.get_rng_state()
    with torch.no_grad(), Still():
        torch.testing.assert_close(draw(), expected)
    assert torch.equal(torch.get_rng_state(), state)  # as many random numbers whatever the width
    torch.manual_seed(0)
    with torch.no_grad():
        assert not torch.allclose(draw(), expected)  # elsewhere numbers are drawn


def test_gumbel_and_attention_are_finite_and_the_same_for_any_width() -> None:
    attention = nn.MultiheadAttention(8, 2, dropout=0.5).train()
    plain = nn.MultiheadAttention(8, 2, dropout=0.5).eval()
    plain.load_state_dict(attention.state_dict())
    with torch.no_grad(), Still():
        torch.testing.assert_close(attention(X, X, X)[0], plain(X, X, X)[0])
        whole, part = F.gumbel_softmax(X), F.gumbel_softmax(X[:, :1])
    torch.testing.assert_close(whole, X.softmax(-1))
    assert torch.equal(part, torch.ones(5, 1))


def test_recurrent_layers_drop_nothing() -> None:
    gru = nn.GRU(8, 4, 2, dropout=0.9).train()
    with torch.no_grad(), Still():
        torch.testing.assert_close(gru(X)[0], gru.eval()(X)[0])


def test_edges_and_nodes_that_are_dropped_are_the_same_ones() -> None:
    edge_index = torch.randint(5, (2, 20), generator=torch.Generator().manual_seed(0))
    with Still():
        for drop in (dropout_edge, dropout_node):
            assert torch.equal(drop(edge_index, 0.2)[0], drop(edge_index, 0.2)[0])


def test_what_has_no_constant_is_drawn_as_ever() -> None:
    torch.manual_seed(0)
    expected = torch.randperm(20), torch.randint(9, (30,))
    torch.manual_seed(0)
    with Still():
        torch.rand(7)  # uses none up
        assert torch.equal(torch.randperm(20), expected[0])
        assert torch.equal(torch.randint(9, (30,)), expected[1])
