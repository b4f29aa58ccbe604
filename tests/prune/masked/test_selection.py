from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import GCN

from pyg_stkd.prune.masked.selection import select_by_cost, select_channels, select_weights
from pyg_stkd.prune.structure.layout import Layout
from pyg_stkd.prune.structure.ports import Ports

MODEL = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
LAYOUT = Layout(MODEL, Ports(MODEL))
FIRST, SECOND = (list(group.units) for group in LAYOUT.groups)
ALL = torch.ones(len(LAYOUT.units), dtype=torch.bool)


def naive_count(kept: torch.Tensor) -> int:
    a, b = int(kept[FIRST].sum()), int(kept[SECOND].sum())
    return (2 * a + a) + (a * b + b) + (b + 1)


@given(st.permutations(range(7)), st.integers(1, 30))
def test_the_lowest_go_until_the_budget_is_met(order: list[int], target: int) -> None:
    scores = torch.zeros(len(ALL))
    scores[FIRST + SECOND] = torch.tensor(order, dtype=torch.float)
    kept = select_channels(LAYOUT, scores, ALL, target, [(FIRST, 1), (SECOND, 2)])
    left = ALL.clone()  # by hand: one at a time
    for unit in scores.argsort().tolist():
        if naive_count(left) <= target or unit not in FIRST + SECOND:
            continue
        group, floor = (FIRST, 1) if unit in FIRST else (SECOND, 2)
        if int(left[group].sum()) > floor:
            left[unit] = False
    assert torch.equal(kept, left)


def test_floors_hold_for_each_layer_that_shares_a_group() -> None:
    model = GCN(2, 6, 3, 2, jk="max")
    layout = Layout(model, Ports(model))
    assert len(layout.axes) == 1
    units = torch.ones(len(layout.units)).bool()
    floors = [(layout.axes[0].tolist(), 4)]
    kept = select_channels(layout, torch.rand(len(units)), units, 0, floors)
    assert int(kept[layout.axes[0]].sum()) == 4


@given(st.integers(0, 10**6), st.integers(0, 20))
def test_weights_are_counted_exactly(seed: int, target: int) -> None:
    torch.manual_seed(seed)
    scores = {"a": torch.rand(3, 4), "b": torch.randint(3, (2, 3)).float()}  # with ties
    masks = {"a": (torch.rand(3, 4) < 0.8).float(), "b": torch.ones(2, 3)}
    floors = {"a": 2, "b": 1}
    kept = select_weights(scores, masks, target, floors)
    alive = {name: int(mask.sum()) for name, mask in masks.items()}
    least = sum(min(floors[name], alive[name]) for name in masks)
    total = sum(int(mask.sum()) for mask in kept.values())
    assert total == min(max(target, least), sum(alive.values()))
    for name, mask in kept.items():
        assert not bool((mask > masks[name]).any())
        assert int(mask.sum()) >= min(floors[name], alive[name])
        gone = (masks[name] > 0) & (mask == 0)
        if bool(gone.any()) and bool(mask.any()):
            assert scores[name][gone].max() <= scores[name][mask > 0].min()


@given(st.permutations(range(7)), st.integers(1, 30))
def test_a_cost_is_met_with_as_few_as_may_be(order: list[int], target: int) -> None:
    scores = torch.zeros(len(ALL))
    scores[FIRST + SECOND] = torch.tensor(order, dtype=torch.float)
    floors = [(FIRST, 1), (SECOND, 2)]
    kept = select_by_cost(LAYOUT, scores, ALL, naive_count, target, floors)
    # The number of parameters is a cost as any other.
    assert torch.equal(kept, select_channels(LAYOUT, scores, ALL, target, floors))


def test_a_cost_that_cannot_be_met_leaves_the_floors() -> None:
    floors = [(FIRST, 1), (SECOND, 2)]
    scores = torch.rand(len(ALL))
    kept = select_by_cost(LAYOUT, scores, ALL, lambda _: 1.0, 0.5, floors)
    assert [int(kept[units].sum()) for units in (FIRST, SECOND)] == [1, 2]
