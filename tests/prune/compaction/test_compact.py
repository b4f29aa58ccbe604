"""Tests of pyg_stkd/prune/compaction/compact.py: plain modules, and masks of other tools."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch_geometric.nn import GAT, GCN, MLP

from pyg_stkd.nn.models.stgcn import STGCN
from pyg_stkd.prune import Pruner, Random, compact

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def state_of(model: nn.Module) -> set[str]:
    return {f"{n}.{key}" for n, m in model.named_modules() for key, v in vars(m).items() if v}


def test_is_what_the_constructor_would_make(prune_at_random: Any) -> None:
    model = GCN(3, 8, 3, 2, norm="batch_norm")
    pruner = prune_at_random(model, 0, 1.0)
    first = torch.tensor([1, 1, 1, 0, 0, 0, 1, 1])
    pruner.mask({"convs.0": first, "convs.1": first.flip(0)})
    small, made = pruner.compact(), GCN(3, 5, 3, 2, norm="batch_norm")
    assert repr(small) == repr(made)
    assert [repr(m) for m in small.modules()] == [repr(m) for m in made.modules()]
    assert state_of(small) == state_of(made)
    assert small.hidden_channels == 5
    made.load_state_dict(small.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(made.eval()(x, EDGES), small.eval()(x, EDGES))


def test_attributes_are_true(prune_at_random: Any) -> None:
    model = GAT(3, 8, 3, 2, heads=2)
    pruner = prune_at_random(model, 0, 1.0)
    pruner.mask({"convs.0": torch.tensor([1, 0, 1, 1]), "convs.1": torch.tensor([1, 0, 0, 1])})
    small = pruner.compact()
    assert [repr(conv) for conv in small.convs] == [
        "GATConv(3, 3, heads=2)",
        "GATConv(6, 2, heads=2)",
        "GATConv(4, 2, heads=2)",
    ]
    assert small.hidden_channels == [6, 4]
    assert (small.convs[1].lin.in_channels, small.convs[1].lin.out_channels) == (6, 4)

    stgcn = STGCN(1, [(4, 4, 4)], 2, head_channels=(6, 5), num_steps=5)
    pruner = prune_at_random(stgcn, 0, 0.4)
    small = pruner.compact()
    block = small.blocks[0]
    widths = (block.temporal_channels, block.hidden_channels, block.out_channels)
    assert small.hidden_channels == [widths]
    assert widths[0] == block.temporal1.out_channels == block.temporal1.conv.weight.size(0) // 2
    assert small.head_channels == (small.lin1.in_features, small.lin2.in_features)
    mlp = MLP([3, 6, 2])
    small = prune_at_random(mlp, 0, 0.4).compact()
    assert small.channel_list == [3, small.lins[0].out_channels, 2]
    assert small.norms[0].in_channels == small.norms[0].module.num_features


def test_the_masked_model_is_left_alone(prune_at_random: Any) -> None:
    model = GCN(3, 8, 3, 2)
    pruner = prune_at_random(model, 0, 0.5)
    x = torch.randn(4, 3)
    before, left = model(x, EDGES), pruner.num_parameters
    pruner.compact()
    assert torch.equal(model(x, EDGES), before)
    assert pruner.num_parameters == left


def test_hooks_stay_behind(prune_at_random: Any) -> None:
    model = GCN(3, 8, 3, 2)
    pruner = prune_at_random(model, 0, 0.5)
    model.convs[0].register_forward_hook(lambda module, args, out: out * 0)
    small = pruner.compact()
    assert not any(module._forward_hooks for module in small.modules())


def test_masks_of_other_tools_count_where_all_slices_are_zero() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    prune.ln_structured(model[0], "weight", amount=2, n=2, dim=0)
    x = torch.randn(3, 2)
    partly = compact(model)  # the biases of these rows are alive
    assert partly[0].out_features == 4
    torch.testing.assert_close(partly(x), model(x))
    rows = model[0].weight_mask[:, 0]
    prune.custom_from_mask(model[0], "bias", rows)
    prune.custom_from_mask(model[2], "weight", rows.view(1, 4))
    small = compact(model)
    assert small[0].out_features == 2
    torch.testing.assert_close(small(x), model(x))


def test_masked_heads_go() -> None:
    model = GAT(3, 8, 2, 2, heads=4)
    pruner = Pruner(model, Random(0), "head", keep=1.0)
    pruner.mask({"convs.0": torch.tensor([0, 1, 1, 0])})
    small = compact(model)
    assert repr(small.convs[0]) == "GATConv(3, 2, heads=2)"
    x = torch.randn(4, 3)
    torch.testing.assert_close(small(x, EDGES), model(x, EDGES))


def test_zeros_that_a_norm_counts_stay(prune_at_random: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 6, bias=False), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 1))
    kept = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    for module, name, mask in (
        (model[0], "weight", kept.view(6, 1).expand(6, 2)),
        (model[1], "weight", kept),
        (model[1], "bias", kept),
        (model[3], "weight", kept.view(1, 6)),
    ):
        prune.custom_from_mask(module, name, mask)
    x = torch.randn(3, 2)
    expected = model(x)
    assert compact(model)[0].out_features == 6
    torch.testing.assert_close(compact(model)(x), expected)
    pruner = Pruner(model, Random(0), keep=1.0)
    with pytest.warns(UserWarning, match="Nothing is masked, so"):
        torch.testing.assert_close(pruner.compact()(x), expected)
    pruner.step()  # drops nothing
    torch.testing.assert_close(model(x), expected)
    pruner.mask({"0": torch.tensor([0, 1, 1, 1, 1, 1])})
    small = pruner.compact()
    assert small[0].out_features == 5
    torch.testing.assert_close(small(x), model(x))


def test_hooks_need_no_copy_but_those_that_compute_stay() -> None:
    model = nn.Sequential(
        nn.Linear(2, 6), nn.utils.spectral_norm(nn.Linear(6, 6)), nn.Linear(6, 4), nn.Linear(4, 1)
    ).eval()
    lock = threading.Lock()
    model[0].register_forward_hook(lambda module, args, out, lock=lock: lock and None)
    model[2].register_full_backward_hook(partial(lambda lock, *args: None, lock))
    x = torch.randn(3, 2)
    model(x)
    pruner = Pruner(model, Random(0), keep=1.0, ignore=["1"], example=(x,))
    pruner.mask({"2": torch.tensor([1, 0, 0, 1])})
    small = pruner.compact()
    assert small[2].out_features == 2
    assert not small[0]._forward_hooks
    assert not small[2]._backward_hooks
    torch.testing.assert_close(small(x), model(x))
    small.train()(x).sum().backward()
    assert small[1].weight_orig.grad is not None


@pytest.mark.parametrize("ignore", [(), ("out",)])
def test_tied_weights_stay_one(ignore: tuple[str, ...]) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.hidden, self.back = (
                nn.Embedding(9, 6),
                nn.Linear(6, 12),
                nn.Linear(12, 6),
            )
            self.out = nn.Linear(6, 9)
            self.out.weight = self.table.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.back(self.hidden(self.table(x)).relu()))

    torch.manual_seed(0)
    model, x = Tied(), torch.arange(9)
    pruner = Pruner(model, Random(0), keep=0.8, example=(x,), ignore=ignore)
    assert set(pruner.widths) == ({"hidden"} if ignore else {"hidden", "back"})
    pruner.step()
    small = pruner.compact()
    assert small.out.weight is small.table.weight
    assert small.out.weight is not model.out.weight
    assert small.hidden.out_features < 12
    torch.testing.assert_close(small(x), model(x))
    pruner.shrink()
    assert model.out.weight is model.table.weight
