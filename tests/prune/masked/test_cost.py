from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd.nn import STGCN
from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.prune.masked.cost import count_flops, latency

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )


def products(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_flops_are_met_with_as_few_channels_dropped_as_may_be(share: float) -> None:
    x = torch.randn(7, 4)
    pruner = Pruner(mlp(), Magnitude(), keep=share, budget="flops", example=(x,))
    before = 2 * 7 * products(pruner.model)
    assert count_flops(pruner.model, (x,)) == before
    pruner.step()
    small = pruner.compact()
    left = count_flops(small, (x,))
    assert left == 2 * 7 * products(small)
    assert left <= share * before
    assert pruner.spent == left / before
    # One channel fewer dropped would be too many operations: a channel costs 72 entries at most.
    assert left > share * before - 2 * 7 * 72


def test_latency_may_be_what_the_user_measures() -> None:
    seen: list[int] = []

    def seconds(model: nn.Module) -> float:
        assert not any("mask" in name for name, _ in model.named_buffers())
        seen.append(model[0].out_features)  # as if only the first layer took time
        return model[0].out_features / 1000

    pruner = Pruner(mlp(), Magnitude(), keep=(0.5, 0.25), rho=0.0, budget=seconds)
    assert pruner.spent == 1.0
    pruner.step()
    assert pruner.compact()[0].out_features == 16
    assert pruner.spent == 0.5
    assert pruner.share > 0.25
    pruner.shrink()
    pruner.step()
    assert pruner.model[0].weight.size(0) == 16  # masked
    assert pruner.compact()[0].out_features == 8
    assert seen[0] == 32
    assert len(seen) < 20  # by bisection


def test_floors_hold_for_every_budget() -> None:
    pruner = Pruner(mlp(), Magnitude(), keep=0.01, rho=0.6, budget=lambda model: 1.0)
    with pytest.warns(UserWarning, match=r"leave 100.0% of the budget, more than the 1.0%"):
        pruner.step()
    assert min(pruner.widths.values()) == 2


def test_propagation_counts() -> None:
    model = STGCN(1, [(3, 2, 3)], 1, head_channels=2, num_steps=5)
    model.blocks[0].conv.propagation = "sparse"
    x = torch.randn(1, 5, 3, 1)
    before = count_flops(model, (x, EDGES))
    more = torch.cat([EDGES, EDGES.flip(0)], dim=1)
    # Two products with each of three more edges, over 3 steps of 2 channels.
    assert count_flops(model, (x, more)) - before == 2 * 2 * 3 * 3 * 2


def test_a_model_of_pyg_gets_smaller_by_flops() -> None:
    inputs = (torch.randn(3, 4), EDGES)
    pruner = Pruner(GCN(4, 16, 3, 2), Magnitude(), keep=0.4, budget="flops", example=inputs)
    before = count_flops(pruner.model, inputs)
    pruner.step()
    assert count_flops(pruner.compact(), inputs) <= 0.4 * before


def test_the_mode_of_the_model_is_left_alone() -> None:
    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(2, 2)
            self.modes: list[bool] = []

        def forward(self, x: Tensor) -> Tensor:
            self.modes.append(self.training)
            return self.lin(x)

    model = Watch()
    assert latency(model, (torch.zeros(1, 2),), repeats=3) >= 0
    count_flops(model, (torch.zeros(1, 2),))
    assert model.modes == [False] * 5
    assert model.training
    assert model.lin.training


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"budget": "bytes"}, r"'budget' must be 'parameters', 'flops', .* \(got 'bytes'\)"),
        ({"budget": "flops"}, r"'example' must be inputs .* budget='flops' \(got None\)"),
        ({"budget": "latency", "example": "x"}, r"'example' must be inputs .*\(got \w+Error"),
        ({"budget": lambda m: float("nan")}, r"'budget' must give a finite cost above 0 \(got nan"),
        ({"budget": lambda m: 0}, r"'budget' must give a finite cost above 0 \(got 0.0\)"),
        (
            {"budget": lambda m: 1.0, "granularity": "weight"},
            "'budget' must be 'parameters' for single weights",
        ),
    ],
)
def test_budgets_are_checked(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pruner(mlp(), Magnitude(), keep=0.5, **kwargs)


def test_a_failing_measure_leaves_the_model_as_it_was() -> None:
    costs = iter([1.0, float("nan")])
    pruner = Pruner(mlp(), Magnitude(), keep=0.5, budget=lambda model: next(costs))
    with pytest.raises(ValueError, match="must give a finite cost"):
        pruner.step()
    assert pruner.stage == 0
    assert pruner.share == 1.0
    assert not list(pruner.model.buffers())
