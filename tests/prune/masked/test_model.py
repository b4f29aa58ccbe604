"""Tests of pyg_stkd/prune/masked/model.py: weights under masks, and what masks must be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.prune.following.explain import Explanation
from pyg_stkd.prune.mask_hooks.hooks import MaskContainer, Refresh, set_mask
from pyg_stkd.prune.masked.model import MaskedModel, check_at_first, check_mask

MASK = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def masked() -> MaskedModel:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    set_mask(model[0], "weight", MASK)
    return MaskedModel(model)


@pytest.mark.parametrize(
    "mask", [[1, 0], torch.tensor([1.0, 0.0]), torch.tensor([True, False]), torch.tensor([1, 0])]
)
def test_masks_of_zeros_and_ones_become_booleans(mask: Any) -> None:
    checked = check_mask("lin", mask, (2,))
    assert checked.dtype == torch.bool
    assert checked.tolist() == [True, False]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 1), r"^The mask of 'lin' must have shape \[2\] \(got \[2, 1\]\)$"),
        (torch.ones(3), r"^The mask of 'lin' must have shape \[2\] \(got \[3\]\)$"),
        (torch.tensor([1.0, 0.5]), r"^The mask of 'lin' must hold zeros and ones \(got others\)$"),
        (torch.tensor([-1, 0]), "must hold zeros and ones"),
        (torch.tensor([1.0, torch.nan]), "must hold zeros and ones"),
    ],
)
def test_other_masks_are_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_mask("lin", mask, (2,))


def test_a_saved_mask_must_not_keep_what_is_gone() -> None:
    now = torch.tensor([True, False, True])
    for saved in ([1, 0, 1], [0, 0, 1], [0, 0, 0]):  # the same, or further
        check_at_first("lin", torch.tensor(saved), now)
    with pytest.raises(ValueError, match=r"masked less than the state \(got one where 'lin' is"):
        check_at_first("lin", torch.tensor([0, 1, 0]), now)
    with pytest.raises(ValueError, match=r"'lin' must have shape \[3\] \(got \[2\]\)"):
        check_at_first("lin", torch.ones(2), now)


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_an_earlier_state_does_not_fit_a_model_that_is_masked_further(granularity: Any) -> None:
    model = GCN(3, 16, 3, 2, norm="batch_norm")
    pruner = Pruner(model, Magnitude(), granularity, keep=(0.7, 0.5), rho=0.3)
    pruner.step()
    early = pruner.state_dict()
    pruner.load_state_dict(early)  # the same
    pruner.step()
    late = pruner.state_dict()
    with pytest.raises(ValueError, match=r"'state' must be .* masked less .*is masked further"):
        pruner.load_state_dict(early)
    assert pruner.stage == 2
    assert all(torch.equal(late["kept"][k], v) for k, v in pruner.state_dict()["kept"].items())


@torch.no_grad()
def test_weights_go_back_under_their_masks() -> None:
    pruned = masked()
    model: Any = pruned.model
    names = {"0.weight": (2, 2), "0.bias": (2,), "1.weight": (2,), "1.bias": (2,)}
    state = {name: torch.randn(shape) for name, shape in names.items()}
    state["1.running_mean"] = torch.tensor([3.0, 4.0])
    state["1.running_var"] = torch.ones(5)  # of another shape: it stays as it is
    pruned.rewind(state)
    assert torch.equal(model[0].weight_orig, state["0.weight"])
    assert torch.equal(model[0].weight, state["0.weight"] * MASK)  # at once, before any forward
    assert torch.equal(model[0].weight_mask, MASK)
    assert torch.equal(model[1].bias, state["1.bias"])
    assert model[1].running_mean.tolist() == [3.0, 4.0]
    assert model[1].running_var.tolist() == [1.0, 1.0]


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.bias": None}, r"'state' must hold '1.bias' of shape \[2\] \(got none\)"),
        ({"1.bias": torch.ones(3)}, r"'state' must hold '1.bias' of shape \[2\] \(got \[3\]\)"),
    ],
)
def test_states_that_do_not_fit_change_nothing(change: Any, message: str) -> None:
    pruned = masked()
    state = {"0.weight": torch.randn(2, 2), "0.bias": torch.randn(2), "1.weight": torch.randn(2)}
    state |= {key: value for key, value in change.items() if value is not None}
    before = copy.deepcopy(pruned.model.state_dict())
    with pytest.raises(ValueError, match=message):
        pruned.rewind(state)
    assert all(torch.equal(before[k], v) for k, v in pruned.model.state_dict().items())


def test_functions_see_parameters_in_place_of_products() -> None:
    pruned = masked()
    lin: Any = pruned.model[0]  # type: ignore[index]
    seen: list[Any] = []

    @torch.no_grad()
    def double(model: Any) -> None:
        seen.append(model[0].weight)
        model[0].weight.mul_(2.0)

    before = lin.weight_orig.detach().clone()
    pruned.with_originals(double)
    assert seen[0] is lin.weight_orig
    assert torch.equal(lin.weight_orig, 2 * before)
    assert torch.equal(lin.weight, 2 * before * MASK)  # the product again


class Reads(nn.Linear):
    """Reads a weight of another module, without calling it."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.inner.weight.t() @ self.weight.t()


def test_masks_hold_for_those_who_read_parameters_alone() -> None:
    model = Reads()
    set_mask(model, "weight", MASK), set_mask(model.inner, "weight", MASK)
    pruned = MaskedModel(model)
    for _ in range(3):
        pruned.attach()
    hooks = list(model._forward_pre_hooks.values())
    assert [type(hook) for hook in hooks] == [Refresh, MaskContainer]  # once, and it comes first
    with torch.no_grad():  # as an optimizer would
        model.weight_orig.add_(1.0), model.inner.weight_orig.add_(1.0)  # type: ignore[union-attr]
    x = torch.randn(3, 2)
    a, b = model.inner.weight_orig * MASK, model.weight_orig * MASK  # type: ignore[operator]
    torch.testing.assert_close(model(x), x @ a.t() @ b.t())


def test_what_a_model_of_no_kind_knows() -> None:
    pruned = masked()
    x = torch.randn(4, 2)
    small = pruned.compact()
    assert not any("mask" in name or "orig" in name for name in small.state_dict())
    torch.testing.assert_close(small.eval()(x), pruned.model.eval()(x))
    assert pruned.explain() == Explanation(())
    found = pruned.channels_of("0")
    assert (found.known, found.kept.numel(), found.prunable.numel()) == (False, 0, 0)
    names = list(pruned.model.state_dict())
    pruned.shrink()
    assert list(pruned.model.state_dict()) == names
    assert pruned.spent is None
    calls = (
        pruned.weights,
        pruned.left,
        pruned.state_dict,
        lambda: pruned.mask({}),
        lambda: pruned.load_state_dict({}),
        lambda: pruned.prune(Magnitude(), {}, 0.5, 0.0, 1),
    )
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()
