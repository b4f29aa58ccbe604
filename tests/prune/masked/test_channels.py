"""Tests of pyg_stkd/prune/masked/channels.py: masks of whole channels, checked first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd.nn import GAT, GatedTemporalConv
from pyg_stkd.prune import KDIS, Magnitude, Pruner, Random, compact
from pyg_stkd.prune.masked.channels import MaskedChannels
from pyg_stkd.prune.masked.model import Left
from pyg_stkd.prune.structure import registry
from pyg_stkd.prune.structure.example import Example

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def gcn() -> GCN:
    return GCN(3, 16, 3, 2, norm="batch_norm")


def chain(*widths: int) -> nn.Sequential:
    """Linear layers named 0, 1, ... without biases."""
    pairs = pairwise(widths)
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairs))


def size(model: nn.Module) -> float:
    return float(sum(p.numel() for p in model.parameters()))


def scores_of(model: nn.Sequential, **of: Any) -> dict[str, Tensor]:
    """Returns scores of 1 but for what is given: for the rows of a layer, by its number."""
    scores = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    for name, rows in of.items():
        scores[f"{name[1:]}.weight"] = (
            torch.tensor(rows).view(-1, 1).expand_as(scores[f"{name[1:]}.weight"])
        )
    return scores


def test_what_is_left_is_counted_by_hand() -> None:
    masked = MaskedChannels(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)), (), False)
    assert (masked.total, masked.prunable_total) == (17, 16)
    assert masked.left() == Left(17, 1.0, {"0": 4})
    masked.mask({"0": torch.tensor([1, 0, 0, 1])})
    assert masked.left() == Left(9, 8 / 16, {"0": 2})
    masked.mask({"0": torch.tensor([1, 1, 1, 0])})  # in addition
    assert masked.left() == Left(5, 4 / 16, {"0": 1})
    assert masked.state_dict()["kept"]["0"].tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match=r"^The mask of '0' must keep a channel of each layer$"):
        masked.mask({"0": torch.tensor([0, 1, 1, 1])})  # with those before none is left
    assert masked.left().widths == {"0": 1}


def test_parameters_that_lose_nothing_have_no_scores() -> None:
    groups = nn.Conv1d(6, 6, 1, groups=2)  # which keep their channels
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.Conv1d(4, 6, 1), groups, nn.Conv1d(6, 1, 1))
    masked = MaskedChannels(model, (), False)
    weights = masked.weights()
    assert {name.partition(".")[0] for name in weights} == {"0", "1", "3"}
    masked.mask({"0": torch.tensor([1, 0, 1, 1])})
    again = masked.weights()
    assert again.keys() == weights.keys()
    assert all(again[name] is weight for name, weight in weights.items())  # no products


def test_channels_of_layers_say_what_is_left_and_what_may_go() -> None:
    masked = MaskedChannels(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), (), False)
    masked.mask({"0": torch.tensor([1, 0, 1])})
    first, last, unknown = (masked.channels_of(name) for name in ("1", "2", "no layer"))
    assert first.known
    assert (first.kept.tolist(), first.prunable.tolist()) == ([True, False, True], [True] * 3)
    assert (last.kept.tolist(), last.prunable.tolist()) == ([True] * 2, [False] * 2)
    assert not unknown.known
    assert torch.equal(unknown.kept, masked.kept)
    assert torch.equal(unknown.prunable, masked.layout.prunable)


def test_the_lowest_of_each_group_go_compared_with_its_mean() -> None:
    model = chain(1, 4, 4, 1)
    masked = MaskedChannels(model, (), False)
    # Those of the second group are a hundred times larger; 12 of 24 parameters may stay.
    scores = scores_of(model, _0=[4.0, 1.0, 3.0, 8.0])
    scores["1.weight"] = torch.zeros(4, 4)
    scores["2.weight"] = torch.tensor([[400.0, 100.0, 900.0, 200.0]])
    masked.prune(Magnitude(), scores, 0.5, 0.0, 1)
    kept = masked.state_dict()["kept"]
    # By shares of the means: 1 and 1/4 of each, then 1/2 of the second, before 3/4 of the first.
    assert kept["0"].tolist() == [True, False, True, True]
    assert kept["1"].tolist() == [True, False, True, False]
    assert masked.left().num_parameters == 3 + 6 + 2


def test_masked_entries_do_not_speak_for_others() -> None:
    model = chain(1, 2, 2, 1)
    masked = MaskedChannels(model, (), False)
    scores = scores_of(model)
    masked.mask({"0": torch.tensor([0, 1])})
    scores["1.weight"] = torch.tensor([[9.0, 1.0], [0.0, 2.0]])  # the column of 9 is masked
    masked.prune(Magnitude(), scores, 0.5, 0.0, 1)
    assert masked.state_dict()["kept"]["1"].tolist() == [False, True]


def test_scores_are_finished_before_they_are_compared() -> None:
    model = chain(1, 3, 1)
    masked = MaskedChannels(model, (), False)
    scores = scores_of(model, _0=[-9.0, 1.5, 4.0])
    scores["1.weight"] = torch.zeros(1, 3)
    masked.prune(KDIS(signed=True), scores, 0.67, 0.0, 1)  # |-9| is the largest
    assert masked.state_dict()["kept"]["0"].tolist() == [True, False, True]


def test_floors_are_of_the_first_widths_though_the_model_was_shrunk() -> None:
    model = chain(1, 10, 1)
    masked = MaskedChannels(model, (), False)
    masked.mask({"0": torch.arange(10) < 7})
    masked.shrink()
    assert model[0].weight.shape == (7, 1)
    masked.prune(Magnitude(), masked.weights(), 0.25, 1.0, 1)  # alone the share would leave 2
    assert masked.left() == Left(10, 10 / 20, {"0": 5})  # 10 * sqrt(0.25)
    masked.prune(Magnitude(), masked.weights(), 0.01, 0.0, 3)
    assert masked.left().widths == {"0": 3}


def test_channels_of_stages_refer_to_the_first_model() -> None:
    model, twin = gcn(), gcn()
    twin.load_state_dict(model.state_dict())
    masked = Pruner(model, Magnitude(), keep=(0.6, 0.3))
    shrunk = Pruner(twin, Magnitude(), keep=(0.6, 0.3))
    for _ in range(2):
        assert masked.step() == shrunk.step()
        shrunk.shrink()
        assert shrunk.num_parameters == sum(p.numel() for p in twin.parameters())
    for name, kept in masked.state_dict()["kept"].items():
        assert torch.equal(kept, shrunk.state_dict()["kept"][name])
    torch.testing.assert_close(twin.eval()(X, EDGES), model.eval()(X, EDGES))


def test_masks_by_hand_are_checked_first() -> None:
    model = GAT(3, 4, 2, num_layers=3, heads=2)
    pruner = Pruner(model, Random(0), keep=0.5)
    good = torch.tensor([1, 0, 1, 1])
    for kept, message in (
        ({"convs.0": good, "convs.9": good}, r"Masks must be of groups: convs.0, convs.1 \(got"),
        ({"convs.0": good, "convs.1": good[:3]}, r"'convs.1' must have shape \[4\] \(got \[3\]\)"),
        ({"convs.0": good, "convs.1": good * 2}, r"'convs.1' must hold zeros and ones"),
        ({"convs.0": good, "convs.1": good * 0}, r"'convs.1' must keep a channel of each layer"),
    ):
        with pytest.raises(ValueError, match=message):
            pruner.mask(kept)
        assert pruner.widths == {"convs.0": 4, "convs.1": 4}
        assert not any("mask" in name for name, _ in model.named_buffers())
    pruner.mask({"convs.0": good})
    pruner.mask({"convs.0": torch.tensor([1, 1, 0, 1])})
    assert pruner.widths["convs.0"] == 2


def test_channels_that_must_stay_are_named() -> None:
    # The inputs are added to the first two outputs.
    masked = MaskedChannels(nn.Sequential(GatedTemporalConv(2, 5), nn.Linear(5, 1)), (), False)
    (group,) = masked.groups
    assert group.fixed == (True, True, False, False, False)
    with pytest.raises(ValueError, match=r"^The mask of '0' must keep channels \[0, 1\]$"):
        masked.mask({group.name: torch.tensor([1, 0, 1, 1, 1])})
    masked.mask({group.name: torch.tensor([1, 1, 0, 0, 0])})
    assert masked.left().widths == {group.name: 2}


def test_ignored_layers_keep_their_width() -> None:
    model = GCN(3, 16, 4, 2)
    Pruner(model, Magnitude(), keep=0.85, ignore=["convs.2"]).step()
    small = compact(model, ignore=["convs.2"])
    assert repr(small.convs[2]) == "GCNConv(16, 16)"
    assert small.convs[0].out_channels < 16


@pytest.mark.parametrize(("heads", "what"), [(False, "channels"), (True, "heads")])
def test_models_of_which_nothing_can_go_are_refused(heads: bool, what: str) -> None:
    text = (
        rf"^'model' must have {what} that can be pruned \(got Linear, whose inputs, outputs and "
        r"ignored modules are kept\)"
    )
    with pytest.raises(ValueError, match=text):
        MaskedChannels(nn.Linear(2, 3), (), heads)


def test_norms_leave_masked_channels_out_of_their_statistics() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        model[1].bias.normal_()
    masked = MaskedChannels(model, (), False)
    masked.mask({"0": torch.tensor([1, 0, 1, 1, 0, 1])})
    small = masked.compact()
    assert small[1].normalized_shape == (4,)
    torch.testing.assert_close(small(X.double()), model(X.double()))
    assert (small(X.double()) - chain_of_zeros(model)(X.double())).abs().max() > 1e-3


def chain_of_zeros(model: nn.Module) -> nn.Module:
    """Returns the model with its zeros in statistics too."""
    other = copy.deepcopy(model)
    other[1].__dict__.pop("forward")
    return other


def test_shrunk_models_are_plain_and_compute_the_same() -> None:
    model = gcn().eval()
    masked = MaskedChannels(model, (), False)
    masked.mask({"convs.0": torch.arange(16) < 5, "convs.1": torch.arange(16) > 6})
    expected, small = model(X, EDGES), masked.compact()
    assert [name for name in small.state_dict() if "mask" in name] == []
    assert small.convs[0].lin.weight.shape == (5, 3)
    masked.shrink()
    assert repr(model) == repr(small)
    assert list(model.state_dict()) == list(small.state_dict())
    torch.testing.assert_close(model(X, EDGES), expected)
    assert masked.left().num_parameters == size(model)


def test_what_is_spent_is_the_cost_of_the_small_model() -> None:
    seen: list[int] = []

    def squares(model: Any) -> float:
        seen.append(model[0].out_features)
        return float(model[0].out_features ** 2)

    masked = MaskedChannels(chain(1, 8, 1), (), False, squares)
    assert masked.spent == 1.0
    masked.prune(Magnitude(), masked.weights(), 0.5, 0.0, 1)
    assert masked.left().widths == {"0": 5}  # 25 of 64; 36 would be too many
    assert masked.spent == 25 / 64
    masked.prune(Magnitude(), masked.weights(), 16 / 64, 0.0, 1)
    assert masked.spent == 16 / 64  # of the first model still, and met exactly
    masked.mask({"0": masked.state_dict()["kept"]["0"] & (torch.arange(8) != first_of(masked))})
    assert masked.spent == 9 / 64
    again = MaskedChannels(chain(1, 8, 1), (), False, squares)
    again.load_state_dict(masked.state_dict())
    assert again.spent == 9 / 64
    assert set(seen) <= set(range(1, 9))


def first_of(masked: MaskedChannels) -> int:
    return int(masked.state_dict()["kept"]["0"].nonzero()[0])


def test_spent_is_true_after_masks_by_hand_and_loading() -> None:
    pruner = Pruner(gcn(), Magnitude(), keep=(0.5, 0.3), budget="flops", example=(X, EDGES))
    pruner.step()
    again = Pruner(gcn(), Magnitude(), keep=(0.5, 0.3), budget="flops", example=(X, EDGES))
    again.load_state_dict(pruner.state_dict())
    assert again.spent == pruner.spent <= 0.5
    pruner.mask({"convs.0": torch.arange(16) % 8 == 0})
    assert pruner.spent < again.spent


def test_states_are_of_the_same_groups() -> None:
    masked = MaskedChannels(chain(1, 4, 3, 1), (), False)
    masked.mask({"0": torch.tensor([1, 1, 0, 1])})
    other = MaskedChannels(chain(1, 4, 3, 1), (), False)
    other.load_state_dict(masked.state_dict())
    assert other.left() == masked.left()
    with pytest.raises(ValueError, match=r"widths: \{'0': 4, '1': 3\} \(got \{'0': 4, '1': 2\}\)"):
        other.load_state_dict(MaskedChannels(chain(1, 4, 2, 1), (), False).state_dict())
    with pytest.raises(ValueError, match="one where '0' is masked further"):
        other.load_state_dict(MaskedChannels(chain(1, 4, 3, 1), (), False).state_dict())


class Branches(nn.Module):
    """Of which the rule below knows the parts in the other order."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.b(x).relu(), self.a(x).relu()], dim=-1))


class Outer(nn.Module):
    """Followed, with a module of the user's inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(8, 8), Branches()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.first(x).tanh())


@pytest.fixture
def wrong_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def branches(ports: Any, module: Any, x: Any) -> Any:
        return ports(module.out, ports(module.a, x) + ports(module.b, x))

    monkeypatch.setitem(registry._RULES, Branches, branches)


@pytest.mark.usefixtures("wrong_rule")
@pytest.mark.parametrize(("build", "layer"), [(Branches, "out"), (Outer, r"inner\.out")])
def test_a_wrong_rule_raises_with_the_first_layer_that_differs(
    build: Callable[[], nn.Module], layer: str
) -> None:
    x = torch.randn(20, 8)
    pruner = Pruner(build(), Magnitude(), keep=0.5, example=(x,))
    before = {key: value.clone() for key, value in pruner.model.state_dict().items()}
    with pytest.raises(
        ValueError, match=rf"must compute the same on 'example' .*first at '{layer}'.*a rule of"
    ):
        pruner.step()
    after = pruner.model.state_dict()
    assert list(after) == list(before)  # nothing was masked
    assert pruner.stage == 0


@pytest.mark.usefixtures("wrong_rule")
def test_small_models_are_compared_unless_that_is_not_wanted() -> None:
    x, example = torch.randn(20, 8), Example((torch.randn(20, 8),))
    kept: Mapping[str, Tensor] = {"a": torch.arange(16) < 9}
    masked = MaskedChannels(Branches(), (), False, example=example)
    masked.mask(kept)  # by hand: the user may know better
    with pytest.raises(ValueError, match=r"on 'example' \(got: in \w+ mode outputs differ by"):
        masked.compact()
    trusting = MaskedChannels(Branches(), (), False, example=example, verify=False)
    trusting.prune(Magnitude(), trusting.weights(), 0.5, 0.0, 1)
    assert (trusting.model(x) - trusting.compact()(x)).abs().max() > 1e-3
