"""Tests of pyg_stkd/prune/structure/rules/dense.py: rows, columns, and each channel by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.nn.sequence.time_conv import TimeConv
from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure import registry
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.prunable import keeps_channels
from pyg_stkd.prune.structure.rules.dense import convolution, elementwise, linear

TYPES = torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize(
    ("lin", "names"),
    [
        (nn.Linear(2, 3), ("in_features", "out_features")),
        (nn.Linear(2, 3, bias=False), ("in_features", "out_features")),
        (pyg.Linear(2, 3), ("in_channels", "out_channels")),
    ],
)
def test_rows_are_outputs_and_columns_inputs(said: Any, lin: Any, names: Any) -> None:
    found = said(lin, 2)
    expected: dict[str, Any] = {"weight": {0: found.out, 1: found.x}}
    if lin.bias is not None:
        expected["bias"] = {0: found.out}
    assert found.owned == expected
    assert (len(found.out), found.of_root) == (3, {names[0]: found.x, names[1]: found.out})
    assert found.ports.outputs[""] == found.out
    assert found.free(found.out) == [True] * 3


def test_rows_may_be_those_of_other_channels(unsaid: Ports) -> None:
    lin: Any = unsaid.model
    x, out = unsaid.new(4), unsaid.new(2)
    assert linear(unsaid, lin, x, out * 3) == out * 3
    assert unsaid.owned["weight"][0] == unsaid.owned["bias"][0] == out * 3
    assert unsaid.axes == []  # no new ones


@pytest.fixture
def unsaid() -> Ports:
    """The ports of a linear layer of 4 to 6 channels."""
    return Ports(nn.Linear(4, 6), follow=lambda ports, model: [])


def test_inputs_of_unknown_channels_stay_and_others_must_be_as_many(said: Any) -> None:
    found = said(nn.Linear(2, 3), None)
    assert found.free(found.owned["weight"][1]) == [False, False]
    for module in (nn.Linear(2, 3), pyg.HeteroLinear(2, 3, 2), nn.Conv1d(2, 3, 1), nn.PReLU(2)):
        with pytest.raises(ValueError, match=r"^The rules disagree at '': it takes 2 channels \(g"):
            said(module, 5)


def test_matrices_of_all_types_are_from_and_to_the_same_channels(said: Any) -> None:
    lin = pyg.HeteroLinear(2, 3, 4)
    found = said(lin, 2)
    assert found.owned == {"weight": {1: found.x, 2: found.out}, "bias": {1: found.out}}
    assert found.of_root == {"in_channels": found.x, "out_channels": found.out}
    assert lin.weight.shape == (4, 2, 3)


def test_small_layers_of_types_hold_the_slices_that_are_left(declared: Any) -> None:
    def run(layers: Any, x: Tensor) -> Tensor:
        return layers[1](layers[0](x, TYPES), TYPES)

    model = declared([pyg.HeteroLinear(2, 4, 3), pyg.HeteroLinear(4, 2, 3)], run)
    pruner = Pruner(model, Random(0), keep=1.0)
    pruner.mask({"layers.0": torch.tensor([0, 1, 0, 1])})
    small: Any = pruner.compact()
    a, b = model.layers
    assert torch.equal(small.layers[0].weight, a.weight_orig[:, :, [1, 3]])
    assert torch.equal(small.layers[0].bias, a.bias_orig[:, [1, 3]])
    assert torch.equal(small.layers[1].weight, b.weight_orig[:, [1, 3]])
    assert repr(small.layers[0]) == "HeteroLinear(2, 2, num_types=3, bias=True)"
    x = torch.randn(5, 2)
    torch.testing.assert_close(small(x), model(x))


@pytest.mark.parametrize(
    "conv", [nn.Conv1d(2, 3, 4), nn.Conv2d(2, 3, 4), nn.Conv3d(2, 3, 4), TimeConv(2, 3, 4)]
)
def test_kernels_are_as_linear_layers(said: Any, conv: Any) -> None:
    found = said(conv, 2)
    assert found.owned == {"weight": {0: found.out, 1: found.x}, "bias": {0: found.out}}
    assert found.of_root == {"in_channels": found.x, "out_channels": found.out}


def test_groups_of_channels_are_kept() -> None:
    conv = nn.Conv1d(4, 6, 1, groups=2)
    ports = Ports(conv, follow=lambda ports, model: [])
    x, given = ports.new(4), ports.new(6)
    assert convolution(ports, conv, x, given) == given
    assert ports.owned == {}
    assert not ports.is_free(x)
    assert not ports.is_free(given)
    pruner = Pruner(nn.Sequential(nn.Conv1d(2, 4, 1), conv, nn.Conv1d(6, 5, 1), nn.Conv1d(5, 1, 1)))
    assert [group.name for group in pruner.groups] == ["2"]


ELEMENTWISE = [cls for cls, rule in registry._RULES.items() if rule is elementwise]


def on_image(module: nn.Module) -> Any:
    """Returns a function of features that gives them to the module as an image, [1, C, N, 1]."""
    return lambda x: module(x.t()[None, :, :, None])[0, :, :, 0].t()


@pytest.mark.parametrize("cls", ELEMENTWISE)
def test_what_is_said_to_treat_each_channel_alone_does(said: Any, cls: Any) -> None:
    module = cls(0.1, 20.0) if cls is nn.Threshold else cls()
    found = said(module, 4)
    assert found.out is found.x
    assert (found.owned, found.of_root) == ({}, {})
    assert said(module, None).out is None
    module.eval()
    assert keeps_channels(on_image(module) if cls is nn.Dropout2d else module)


def test_softmax_is_not_among_them() -> None:
    assert len(ELEMENTWISE) > 25
    assert not {nn.Softmax, nn.LogSoftmax, nn.GLU, nn.Softmin} & set(ELEMENTWISE)


def test_slopes_are_one_or_one_for_each_channel(said: Any) -> None:
    one, many = said(nn.PReLU(), 4), said(nn.PReLU(4), 4)
    assert (one.out, one.owned, one.of_root) == (one.x, {}, {})
    assert many.out == many.x
    assert many.owned == {"weight": {0: many.x}}
    assert many.of_root == {"num_parameters": many.x}


def test_small_slopes_are_those_of_their_channels() -> None:
    slopes = nn.PReLU(4)
    slopes.weight.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    model = nn.Sequential(nn.Linear(2, 4), slopes, nn.Linear(4, 1))
    pruner = Pruner(model, Random(0), keep=1.0)
    pruner.mask({"0": torch.tensor([0, 1, 0, 1])})
    small: Any = pruner.compact()
    torch.testing.assert_close(small[1].weight.tolist(), [0.2, 0.4])
    assert small[1].num_parameters == 2
    x = torch.randn(5, 2)
    torch.testing.assert_close(small(x), model(x))
