"""Tests of pyg_stkd/prune/compaction/locate.py: gaps of tensors, the first layer that differs."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.compact import narrow, plain_copy
from pyg_stkd.prune.compaction.locate import first_layer, gap_of, tolerance_of
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.layout import Layout
from pyg_stkd.prune.structure.ports import Ports

INPUTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("x", "y", "gap"),
    [
        ([4.0, 2.0], [4.0, 1.0], 0.25),  # of the largest entry of the first
        ([4.0, math.nan], [4.0, math.nan], 0.0),
        ([4.0, math.inf], [2.0, math.inf], 0.5),
        ([4.0, 1.0], [4.0, math.nan], math.inf),
        ([0.0, 1e-4], [0.0, 0.0], 0.1),  # what is all but 0 counts as 1e-3
        ([1, 2], [1, 2], 0.0),
        ([1, 2], [1, 3], 1.0),
        ([], [], 0.0),
    ],
)
def test_gaps(x: list[float], y: list[float], gap: float) -> None:
    assert gap_of(torch.tensor(x), torch.tensor(y)) == pytest.approx(gap)


def test_tolerances_are_those_of_the_type_or_the_one_given() -> None:
    sizes = [tolerance_of(torch.ones(1, dtype=t), None) for t in (torch.float64, torch.float32)]
    assert sizes == [1e-7, 1e-4]
    assert tolerance_of(torch.ones(1).half(), None) > 1e-3
    assert tolerance_of(torch.ones(1), 0.5) == 0.5


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)
    ).double()


def smaller(model: nn.Sequential) -> tuple[nn.Module, nn.Module]:
    """Returns the model with channels masked, and without them."""
    ports = Ports(model)
    layout = Layout(model, ports)
    kept = torch.ones(len(layout.units), dtype=torch.bool)
    kept[[group.units[1] for group in layout.groups]] = False
    masked, small = plain_copy(model), plain_copy(model)
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            parameter.mul_(layout.mask(name, kept))
    narrow(small, ports, layout, kept)
    return masked, small


@pytest.mark.parametrize("layer", ["0", "2", "4"])
def test_the_first_layer_that_differs_is_named_though_others_have_fewer_channels(
    layer: str,
) -> None:
    masked, small = smaller(chain())
    example = Example((INPUTS.double(),))
    assert first_layer(masked, small, example) == ""
    with torch.no_grad():
        small.get_submodule(layer).bias[0] += 0.5
    assert first_layer(masked, small, example) == layer


def test_where_the_small_model_breaks_the_last_layer_that_ran_is_named() -> None:
    masked, small = smaller(chain())
    small[4] = nn.Linear(8, 2).double()
    assert first_layer(masked, small, Example((INPUTS.double(),))) == "3"


def test_calls_of_other_layers_are_a_difference() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.skips = nn.Linear(3, 3), nn.Linear(3, 3), False

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x if self.skips else self.a(x))

    model = Skips()
    other = copy.deepcopy(model)
    other.skips = True
    assert first_layer(model, other, Example((INPUTS,))) == "a"
    assert not any(module._forward_hooks for module in model.modules())
