from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.prune.masked.weights import MaskedWeights

SIZES = {"0.weight": 6, "2.weight": 12, "4.weight": 4}  # and 3 + 4 + 1 biases


def masked() -> MaskedWeights:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return MaskedWeights(model, [])


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
@pytest.mark.parametrize(("rho", "least"), [(0.0, 1), (1.2, 2)])
def test_the_largest_stay_as_many_as_a_share_says(share: float, rho: float, least: int) -> None:
    pruned, importance = masked(), Magnitude()
    before = {name: weight.detach().abs() for name, weight in pruned.weights().items()}
    pruned.prune(importance, before, share, rho, least)
    left = pruned.left()
    floors = {n: min(s, max(least, math.ceil(rho**2 * share * s))) for n, s in SIZES.items()}
    target = max(int(share * 30) - 8, sum(floors.values()))
    assert left.num_parameters == 8 + target
    assert left.prunable_share == pytest.approx(target / 22)
    assert sum(left.widths.values()) == target
    assert all(left.widths[name] >= floors[name] for name in SIZES)
    for name, kept in pruned.state_dict()["kept"].items():
        order = before[name].flatten().sort(descending=True).indices[: left.widths[name]]
        assert set(kept.flatten().nonzero().view(-1).tolist()) == set(order.tolist())
    weight = pruned.model[2].weight  # and the model runs with zeros there
    assert int((weight != 0).sum()) == left.widths["2.weight"]


def test_what_went_does_not_come_back() -> None:
    pruned, importance = masked(), Magnitude()
    scores = {name: weight.detach().abs() for name, weight in pruned.weights().items()}
    pruned.prune(importance, scores, 0.6, 0.0, 1)
    first = pruned.state_dict()["kept"]
    turned = {name: 1 / score for name, score in scores.items()}  # now the smallest count most
    pruned.prune(importance, turned, 0.5, 0.0, 1)
    second = pruned.state_dict()["kept"]
    assert pruned.left().num_parameters == 15
    assert not any(bool((second[name] & ~first[name]).any()) for name in first)


def test_ignored_layers_and_vectors_have_no_masks() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    assert list(MaskedWeights(model, ["0"]).weights()) == ["1.weight"]
    with pytest.raises(ValueError, match=r"'ignore' must name modules .*\(got 'lin'\)"):
        MaskedWeights(model, ["lin"])
    with pytest.raises(ValueError, match=r"weights that can be pruned \(got BatchNorm1d\)"):
        MaskedWeights(nn.BatchNorm1d(3), [])


def test_states_are_of_the_same_shapes() -> None:
    pruned, other = masked(), masked()
    pruned.mask({"4.weight": torch.tensor([[True, False, True, True]])})
    other.load_state_dict(pruned.state_dict())
    assert other.left() == pruned.left()
    assert other.model[4].weight[0, 1] == 0
    small = MaskedWeights(nn.Linear(2, 3), [])
    with pytest.raises(ValueError, match="'state' must be of a model with weights of these shapes"):
        small.load_state_dict(pruned.state_dict())
    with pytest.raises(ValueError, match=r"Masks must be of parameters: weight \(got 'bias'\)"):
        small.mask({"bias": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"'weight' must have shape \[3, 2\] \(got \[2, 3\]\)"):
        small.mask({"weight": torch.ones(2, 3)})


def test_single_weights_need_no_rules() -> None:
    model = nn.Sequential(nn.Bilinear(3, 4, 5), nn.Conv2d(1, 2, 3), nn.Linear(5, 2))
    pruner = Pruner(model, Magnitude(), "weight", keep=0.5, ignore=["2"])
    pruner.step()
    assert not hasattr(model[2], "weight_mask")
    assert pruner.share <= 0.5
