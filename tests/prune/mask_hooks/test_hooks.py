"""Tests of pyg_stkd/prune/mask_hooks.py: the faults of torch.nn.utils.prune, one by one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch.nn.utils import prune

from pyg_stkd.nn.conv.gat_conv import GATConv
from pyg_stkd.prune.mask_hooks.hooks import (
    MaskContainer,
    Refresh,
    masked_names,
    refresh,
    remove_masks,
    set_mask,
)

LINEARS = [nn.Linear, torch_geometric.nn.Linear]
MASK = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
X = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]])


def masked(kind: Any = nn.Linear) -> Any:
    lin = kind(3, 2)
    set_mask(lin, "weight", MASK)
    return lin


@pytest.mark.parametrize("kind", LINEARS)
def test_output_and_gradient_are_those_of_the_product(kind: Any) -> None:
    lin = kind(3, 2)
    weight, bias = lin.weight.detach().clone(), lin.bias.detach().clone()
    set_mask(lin, "weight", MASK)
    out = lin(X)
    torch.testing.assert_close(out, X @ (weight * MASK).t() + bias)
    out.sum().backward()
    torch.testing.assert_close(lin.weight_orig.grad, X.sum(0).expand(2, 3) * MASK)


def test_masks_add_up() -> None:
    lin = masked()
    set_mask(lin, "weight", torch.tensor([[0, 1, 1], [1, 1, 0]]))
    assert lin.weight_mask.tolist() == [[0, 0, 1], [0, 1, 0]]
    assert len(next(iter(lin._forward_pre_hooks.values()))) == 2  # both stages are on record


def test_other_tools_see_the_masks_and_go_on() -> None:
    lin = masked()
    assert prune.is_pruned(lin)
    assert dict(lin.named_buffers()).keys() == {"weight_mask"}
    scores = torch.tensor([[9.0, 9.0, 1.0], [9.0, 2.0, 3.0]])
    prune.l1_unstructured(lin, "weight", amount=2, importance_scores=scores)
    assert lin.weight_mask.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert isinstance(next(iter(lin._forward_pre_hooks.values())), MaskContainer)
    set_mask(lin, "weight", torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert lin.weight_mask.tolist() == [[0, 0, 0], [0, 0, 1]]
    prune.remove(lin, "weight")
    assert not prune.is_pruned(lin)
    assert (lin.weight != 0).tolist() == [[False, False, False], [False, False, True]]


def test_goes_on_from_masks_of_other_tools() -> None:
    lin = nn.Linear(3, 2)
    prune.custom_from_mask(lin, "weight", MASK)
    set_mask(lin, "weight", torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert lin.weight_mask.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert torch.equal(lin.weight, lin.weight_orig * lin.weight_mask)


# Fault 1: torch_geometric.nn.Linear leaves both tensors out of its state.
@pytest.mark.parametrize("kind", LINEARS)
def test_state_holds_masks(kind: Any) -> None:
    lin = masked(kind)
    lin(X)
    state = lin.state_dict()
    assert state.keys() == {"weight_orig", "weight_mask", "bias"}
    other = masked(kind)
    other.load_state_dict(state)
    assert torch.equal(other(X), lin(X))
    nested = nn.Sequential(masked(kind))
    assert nested.state_dict().keys() == {"0.weight_orig", "0.weight_mask", "0.bias"}


def test_state_of_a_copy_holds_masks() -> None:
    copied = pickle.loads(pickle.dumps(copy.deepcopy(masked(torch_geometric.nn.Linear))))
    assert copied.state_dict().keys() == {"weight_orig", "weight_mask", "bias"}


# Fault 2: no deepcopy after a forward.
@pytest.mark.parametrize("kind", LINEARS)
def test_can_be_copied_and_pickled_after_a_forward(kind: Any) -> None:
    lin = masked(kind)
    out = lin(X)
    for copied in (copy.deepcopy(lin), pickle.loads(pickle.dumps(lin))):
        assert torch.equal(copied(X), out)
        copied.weight_orig.data.zero_()
        assert torch.equal(lin(X), out)
        copied(X).sum().backward()
        assert copied.weight_orig.grad is not None
    assert lin.weight_orig.grad is None


# Fault 3: reset_parameters() draws weights that nobody uses. Pruner.reset_parameters, test_pruner.


# Fault 4: zeros that come back in training.
@pytest.mark.parametrize("kind", LINEARS)
def test_zeros_stay_while_training(kind: Any) -> None:
    lin = masked(kind)
    optimizer = torch.optim.SGD(lin.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        lin(X).square().sum().backward()
        optimizer.step()
    refresh(lin)
    assert torch.equal(lin.weight == 0, MASK == 0)


# Fault 5: the product is as old as the last forward of its module.
def test_weights_are_true_after_a_step_for_those_who_read_them() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = masked(torch_geometric.nn.Linear)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.lin.weight.t()  # without a forward of the layer

    model = Reader()
    model.register_forward_pre_hook(Refresh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # twice: an old product has no graph any more
        optimizer.zero_grad()
        model(X).sum().backward()
        optimizer.step()
    expected = X @ (model.lin.weight_orig * MASK).t()
    torch.testing.assert_close(model(X), expected)


def test_gat_with_edge_features_trains_under_masks() -> None:
    model = nn.ModuleList([GATConv(3, 2, heads=2, edge_dim=2)])
    conv = model[0]
    set_mask(conv.lin_edge, "weight", torch.tensor([[1, 0]] * 4))
    conv.register_forward_pre_hook(Refresh())
    edge_index, edge_attr = torch.tensor([[0, 1], [1, 0]]), torch.randn(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outs = []
    for _ in range(3):
        optimizer.zero_grad()
        out = conv(X, edge_index, edge_attr)
        outs.append(out.detach())
        out.square().sum().backward()
        optimizer.step()
    refresh(model)
    plain = copy.deepcopy(model)
    remove_masks(plain)
    torch.testing.assert_close(conv(X, edge_index, edge_attr), plain[0](X, edge_index, edge_attr))
    assert not torch.equal(outs[1], outs[2])


def test_follows_dtypes() -> None:
    lin = masked().double()
    assert lin.weight_mask.dtype == torch.float64
    torch.testing.assert_close(
        lin(X.double()), X.double() @ (lin.weight_orig * MASK.double()).t() + lin.bias
    )


def test_parameters_keep_their_order() -> None:
    lin = masked()
    assert [name for name, _ in lin.named_parameters()] == ["weight_orig", "bias"]
    remove_masks(lin)
    assert [name for name, _ in lin.named_parameters()] == ["weight", "bias"]


def test_removal_leaves_no_trace() -> None:
    plain, lin = nn.Linear(3, 2), masked()
    lin.register_forward_pre_hook(Refresh())
    out = lin(X)
    remove_masks(lin)
    assert vars(lin).keys() == vars(plain).keys()
    assert masked_names(lin) == []
    assert not lin._forward_pre_hooks
    assert not lin._state_dict_hooks
    assert lin.weight.is_leaf
    assert torch.equal(lin(X), out)


def test_mask_must_have_the_shape_of_the_parameter() -> None:
    with pytest.raises(ValueError, match=r"'mask' of 'weight' must have shape \[2, 3\] \(got \[3"):
        set_mask(nn.Linear(3, 2), "weight", torch.ones(3, 2))


def test_runs_compiled() -> None:
    lin = masked()
    compiled = torch.compile(lin, backend="eager")
    torch.testing.assert_close(compiled(X), lin(X))


@pytest.mark.parametrize("kind", LINEARS)
@pytest.mark.parametrize("twice", [False, True])
def test_masks_of_torch_become_ours(kind: Any, twice: bool) -> None:
    lin = kind(3, 2)
    prune.custom_from_mask(lin, "weight", torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    if twice:
        prune.custom_from_mask(lin, "weight", torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
    set_mask(lin, "weight", MASK)
    expected = MASK * torch.tensor([[0.0 if twice else 1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert torch.equal(lin.weight_mask, expected)
    assert {"weight_orig", "weight_mask"} <= lin.state_dict().keys()
    for one in (copy.deepcopy(lin), pickle.loads(pickle.dumps(lin))):
        assert torch.equal(one(X), lin(X))
        assert torch.equal(one.weight_mask, expected)
    remove_masks(lin)
    assert masked_names(lin) == []
    assert torch.equal(lin.weight != 0, expected.bool())
