"""Tests of pyg_stkd/prune/structure/layout.py: floors, counts, and who goes first."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import GAT

from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.prune.masked.selection import normalize
from pyg_stkd.prune.structure.layout import Layout, floor_width
from pyg_stkd.prune.structure.ports import Ports

MODEL = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
LAYOUT = Layout(MODEL, Ports(MODEL))
FIRST, SECOND = (list(group.units) for group in LAYOUT.groups)
ALL = torch.ones(len(LAYOUT.units), dtype=torch.bool)


@given(st.integers(1, 300), st.floats(0.001, 1.0), st.floats(0, 1), st.integers(1, 4))
def test_floor(width: int, share: float, rho: float, least: int) -> None:
    floor = floor_width(width, share, rho, least)
    assert floor == min(width, max(least, math.ceil(rho * math.sqrt(share) * width - 1e-9)))
    assert 1 <= floor <= width


def test_sums_of_slices() -> None:
    scores = {
        "0.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "0.bias": torch.tensor([10.0, 20.0, 30.0]),
        "2.weight": torch.tensor([[1.0, 0.0, 0.0]] * 4),
        "2.bias": torch.zeros(4),
        "4.weight": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
        "4.bias": torch.ones(1),
    }
    total = LAYOUT.reduce(scores)
    assert total[FIRST].tolist() == [3 + 10 + 4, 7 + 20, 11 + 30]
    assert total[SECOND].tolist() == [1 + 1, 1 + 2, 1 + 3, 1 + 4]
    ranked = normalize(LAYOUT, total, ALL)
    assert ranked[FIRST].mean() == pytest.approx(1)
    torch.testing.assert_close(ranked[SECOND], torch.tensor([2.0, 3, 4, 5]).double() / 3.5)
    kept = ALL.clone()
    kept[SECOND[3]] = False  # the mean is over what is left
    torch.testing.assert_close(
        normalize(LAYOUT, total, kept)[SECOND[:3]], torch.tensor([2.0, 3, 4]).double() / 3
    )


def test_slices_of_all_heads_count() -> None:
    model = GAT(2, 4, 2, 1, heads=2)
    layout = Layout(model, Ports(model))
    ones = {name: torch.ones(size) for name, size in layout.sizes.items()}
    columns = {"lin": 2 * 2, "att_src": 2, "att_dst": 2, "bias": 2, "next": 2 * 2}
    assert set(layout.reduce(ones)[list(layout.groups[0].units)].tolist()) == {
        float(sum(columns.values()))
    }


def naive_count(kept: torch.Tensor) -> int:
    a, b = int(kept[FIRST].sum()), int(kept[SECOND].sum())
    return (2 * a + a) + (a * b + b) + (b + 1)


@given(st.lists(st.booleans(), min_size=7, max_size=7))
def test_counts(flags: list[bool]) -> None:
    kept = ALL.clone()
    kept[FIRST + SECOND] = torch.tensor(flags)
    assert LAYOUT.num_parameters(kept) == naive_count(kept)
    assert LAYOUT.num_prunable(kept) == naive_count(kept) - 1  # all but the last bias


def test_channels_that_a_residual_pads_are_a_group_of_their_own() -> None:
    model = nn.Sequential(GatedTemporalConv(2, 3), GatedTemporalConv(3, 5), nn.Linear(5, 1))
    layout = Layout(model, Ports(model))
    assert [(group.name, group.width, group.fixed) for group in layout.groups] == [
        ("0+1", 3, (True, True, False)),  # two of them carry the input
        ("1", 2, (False, False)),
    ]
