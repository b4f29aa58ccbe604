"""Tests of pyg_stkd/prune/compaction/trust.py: what was followed is tried, or kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.compaction.trust import Trial, keep_what_fails
from pyg_stkd.prune.following.sharpened import Sharpened
from pyg_stkd.prune.structure import registry
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.layout import Group
from pyg_stkd.prune.structure.ports import Ports


class Turned(nn.Module):
    """Moves the channels of the second layer on by one, or scales them, as it is told."""

    def __init__(self, turns: str = "always") -> None:
        super().__init__()
        self.turns, self.width, self.factor = turns, 6, 6
        self.first, self.second, self.out = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.first(x).relu()).relu()
        if self.turns == "always" or (self.turns == "in training" and self.training):
            h = h.roll(1, -1)
        if self.turns == "where both are narrow" and self.first.out_features < 5:
            h = h * (6 / self.second.out_features)
        return self.out(h) * self.factor


@pytest.fixture(autouse=True)
def _rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def straight(ports: Ports, model: Any, x: Any) -> Any:  # which is wrong where they turn
        return ports(model.out, ports(model.second, ports(model.first, x)))

    monkeypatch.setitem(registry._RULES, Turned, straight)


def trial_of(turns: str = "always") -> Trial:
    model = Turned(turns)
    sharp = Sharpened(lambda: copy.deepcopy(model), Example((torch.randn(7, 4),)))
    return Trial(sharp, Ports(model))


def nobody(group: Group) -> bool:
    return False


def without(trial: Trial, name: str, *channels: int) -> Tensor:
    """Returns which units are left when some channels of a group are not."""
    kept = torch.ones(len(trial.layout.units), dtype=torch.bool)
    group = next(group for group in trial.layout.groups if group.name == name)
    kept[[group.units[channel] for channel in channels]] = False
    return kept


def test_what_is_right_makes_no_difference() -> None:
    trial = trial_of()
    before = copy.deepcopy(trial.model.state_dict())
    for channels in ((0,), (1, 4), (0, 1, 2, 3)):
        assert trial.difference(without(trial, "first", *channels)) is None
    after = trial.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # copies were masked
    assert (trial.model.width, trial.model.first.out_features) == (6, 5)


def test_what_is_wrong_makes_one() -> None:
    trial = trial_of()
    found = trial.difference(without(trial, "second", 0))
    assert found is not None
    assert (found.layer, found.what[:31]) == ("out", "in eval mode outputs differ by ")


def test_train_mode_is_compared_too() -> None:
    trial = trial_of("in training")
    found = trial.difference(without(trial, "second", 0))
    assert found is not None
    assert found.what.startswith("in train mode outputs differ by ")


def test_a_masked_copy_shares_what_has_no_masked_channel() -> None:
    trial = trial_of()
    masked: Any = trial._masked(without(trial, "second", 1, 2))
    whole: Any = trial.model
    assert masked.first.weight is whole.first.weight
    assert masked.out.bias is whole.out.bias
    for name in ("weight", "bias"):
        value, plain = getattr(masked.second, name), getattr(whole.second, name)
        assert not bool(value[1:3].any())
        assert torch.equal(value[3:], plain[3:])
    assert not bool(masked.out.weight[:, 1:3].any())
    assert bool(whole.out.weight[:, 1:3].all())


def test_random_units_are_some_of_each_group() -> None:
    trial = trial_of()
    first, second = trial.layout.groups
    fixed = Group("", 6, (), second.units, (False, True, False, False, True, False))
    others = torch.ones(len(trial.layout.units), dtype=torch.bool)
    others[[*first.units, *second.units]] = False
    generator = torch.Generator().manual_seed(0)
    widths = set()
    for _ in range(60):
        one = trial.random([first, second], generator, few=True)
        assert [int(one[list(group.units)].sum()) for group in (first, second)] == [1, 1]
        assert bool(one[others].all())  # inputs, outputs and other groups are whole
        some = trial.random([first], generator, few=False)
        widths.add(int(some[list(first.units)].sum()))
        assert bool(some[list(second.units)].all())
        few = trial.random([fixed], generator, few=True)
        assert few[list(second.units)].tolist() == list(fixed.fixed)  # those that must stay alone
        more = trial.random([fixed], generator, few=False)
        assert bool(more[[second.units[1], second.units[4]]].all())
    assert widths == {1, 2, 3, 4}  # some go, or the group would not be tried
    a, b = (
        trial.random([first, second], torch.Generator().manual_seed(7), False) for _ in range(2)
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize(("turns", "mode"), [("always", "eval"), ("in training", "train")])
def test_a_group_that_fails_is_kept_and_says_why(turns: str, mode: str) -> None:
    trial = trial_of(turns)
    first, second = (group.units for group in trial.layout.groups)
    keep_what_fails(trial, nobody)
    (reason,) = trial.ports.reasons
    assert (reason.module, reason.kind) == ("second", "differs")
    assert reason.why.startswith(f"the compacted model differs: in {mode} mode outputs differ by ")
    assert reason.channels == tuple(trial.layout.units[i] for i in second)
    assert [group.name for group in trial.layout.groups] == ["first"]  # which it had noticed
    assert bool(trial.layout.prunable[list(first)].all())
    assert not bool(trial.layout.prunable[list(second)].any())


def test_groups_are_tried_beside_those_that_are_trusted() -> None:
    trial = trial_of("where both are narrow")
    for name in ("first", "second"):
        assert trial.difference(without(trial, name, 0)) is None
    keep_what_fails(trial, nobody)
    assert [reason.module for reason in trial.ports.reasons] == ["second"]


def test_nothing_is_kept_where_nothing_fails_or_the_user_answers_for_it() -> None:
    for trial, is_told in (
        (trial_of("never"), nobody),
        (trial_of(), lambda group: group.name == "second"),
        (trial_of(), lambda group: True),
    ):
        keep_what_fails(trial, is_told)
        assert trial.ports.reasons == []
        assert [group.name for group in trial.layout.groups] == ["first", "second"]


def test_attributes_follow_where_models_are_the_same_then() -> None:
    trial = trial_of("never")
    ports, told = trial.ports, list(trial.ports.attributes)
    second = tuple(ports.outputs["second"])
    width, factor = ("", "width", second), ("", "factor", second)
    keep_what_fails(trial, nobody, [width, factor])  # outputs are multiplied with the latter
    assert ports.attributes == [*told, width]
    assert ports.reasons == []
    ports.attributes = told
    keep_what_fails(trial, nobody, [factor])
    assert ports.attributes == told


def test_a_group_that_fails_in_train_mode_is_kept_though_others_draw_random_numbers() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.drop = Turned("in training"), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.body(x))

    def rule(ports: Ports, model: Any, x: Any) -> Any:
        return ports(model.body, x)

    model = Drops()
    registry._RULES[Drops] = rule
    try:
        sharp = Sharpened(lambda: copy.deepcopy(model), Example((torch.randn(7, 4),)))
        trial = Trial(sharp, Ports(model))
    finally:
        del registry._RULES[Drops]
    keep_what_fails(trial, nobody)
    assert [group.name for group in trial.layout.groups] == ["body.first"]
    (reason,) = trial.ports.reasons
    assert reason.why.startswith("the compacted model differs: in train mode outputs differ by ")


def test_models_that_draw_in_eval_mode_too_are_compared() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(4, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            return self.out(x + 0.1 * torch.randn_like(x))  # others for another width

    torch.manual_seed(0)
    pruner = Pruner(Noisy(), Random(0), keep=0.6, example=(torch.randn(7, 4),))
    assert set(pruner.widths) == {"first"}
    pruner.step()
    assert pruner.compact().first.out_features < 12
