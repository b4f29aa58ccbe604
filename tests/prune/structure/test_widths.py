"""Tests of pyg_stkd/prune/structure/widths.py: what widths count, and what cannot be true."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import GCN

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.widths import check_widths, widths_of


def gcn() -> nn.Module:
    return GCN(3, 8, 3, 2, norm="batch_norm", jk="cat")


def tensors(model: nn.Module) -> dict[str, Any]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def attributes(model: nn.Module) -> list[Any]:
    modules = dict(model.named_modules())
    return [(p, n, getattr(modules[p], n)) for p, n, _ in Ports(model).attributes]


def test_each_width_is_a_sum_of_sets() -> None:
    model = gcn()
    widths = {
        tuple(where): (parts, kept)
        for where, parts, kept in widths_of(Ports(model))
        if len(where) == 2
    }
    (a,), (b,), (c,) = (widths[f"convs.{i}.bias", 0][0] for i in range(3))
    assert len({a[0], b[0], c[0]}) == 3
    assert widths["lin.weight", 1] == ([a, b, c], 0)
    assert widths["convs.0.lin.weight", 1] == ([], 3)
    assert widths["lin.weight", 0] == ([], 2)
    assert widths["norms.0.module.running_mean", 0] == ([a], 0)
    doubled = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    assert widths_of(Ports(doubled))[0][1] == [[0, 1]]


@given(st.integers(0, 20))
def test_every_pruned_model_fits(seed: int) -> None:
    model = gcn()
    pruner = Pruner(model, Random(seed), keep=0.5, rho=0.0, min_width=1)
    pruner.step()
    small, whole = pruner.compact(), gcn()
    check_widths(whole, widths_of(Ports(whole)), tensors(whole), tensors(small), attributes(small))


@given(st.data())
def test_no_other_width_fits(data: st.DataObject) -> None:
    whole, small = gcn(), gcn()
    state = tensors(small)
    name = data.draw(st.sampled_from(sorted(n for n in state if state[n].dim())))
    dim = data.draw(st.integers(0, state[name].dim() - 1))
    size = data.draw(st.integers(0, state[name].size(dim) - 1))
    state[name] = state[name].narrow(dim, 0, size)
    with pytest.raises(ValueError, match=r"must be|contradict"):
        check_widths(whole, widths_of(Ports(whole)), tensors(whole), state, attributes(small))


def test_without_widths_sizes_are_bounds() -> None:
    whole, small = nn.Linear(3, 8), nn.Linear(2, 5)
    check_widths(whole, None, tensors(whole), tensors(small), [("", "in_features", 2)])
    with pytest.raises(ValueError, match="dimension 1 of 'weight' must be at most 3, not 4"):
        check_widths(whole, None, tensors(whole), tensors(nn.Linear(4, 5)), [])
    state = {"weight": torch.ones(8, 3).long(), "bias": torch.ones(8)}
    with pytest.raises(
        ValueError,
        match=r"'weight' must be as \[8, 3\] of torch.float32, not \[8, 3\] of torch.int64",
    ):
        check_widths(whole, None, tensors(whole), state, [])
    half = tensors(nn.Linear(3, 8).half())
    check_widths(whole, None, tensors(whole), half, [])
