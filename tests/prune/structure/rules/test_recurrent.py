"""Tests of pyg_stkd/prune/structure/rules/recurrent.py: a hidden unit goes with all its gates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GATES = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4, nn.RNNCell: 1, nn.GRUCell: 3, nn.LSTMCell: 4}
LAYERS, CELLS = [nn.RNN, nn.GRU, nn.LSTM], [nn.RNNCell, nn.GRUCell, nn.LSTMCell]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bias", [False, True])
def test_rows_of_all_gates_belong_to_a_hidden_unit(said: Any, kind: Any, bias: bool) -> None:
    found = said(kind(3, 4, bias=bias), 3)
    rows = found.out * GATES[kind]
    expected: Any = {
        "weight_ih_l0": {0: rows, 1: found.x},
        "weight_hh_l0": {0: rows, 1: found.out},
    }
    if bias:
        expected |= {"bias_ih_l0": {0: rows}, "bias_hh_l0": {0: rows}}
    assert found.owned == expected
    assert found.of_root == {"input_size": found.x, "hidden_size": found.out}
    assert found.free(found.out) == [True] * 4


def test_layers_and_directions_share_their_units(said: Any) -> None:
    found = said(nn.GRU(3, 4, num_layers=2, bidirectional=True), 3)
    assert len(found.out) == 4  # of a state; outputs of both directions are side by side
    assert len(found.owned) == 2 * 2 * 4
    for end in ("", "_reverse"):
        assert found.owned[f"weight_ih_l0{end}"][1] == found.x
        assert found.owned[f"weight_ih_l1{end}"][1] == found.out * 2
        for layer in range(2):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                assert found.owned[f"{name}_l{layer}{end}"][0] == found.out * 3
            assert found.owned[f"weight_hh_l{layer}{end}"][1] == found.out


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_layers_of_one_step(said: Any, kind: Any) -> None:
    found = said(kind(3, 4), 3)
    rows = found.out * GATES[kind]
    assert found.owned == {
        "weight_ih": {0: rows, 1: found.x},
        "weight_hh": {0: rows, 1: found.out},
        "bias_ih": {0: rows},
        "bias_hh": {0: rows},
    }
    assert found.of_root == {"input_size": found.x, "hidden_size": found.out}
    assert said(kind(3, 4, bias=False), 3).owned.keys() == {"weight_ih", "weight_hh"}
    with pytest.raises(ValueError, match=r"it takes 3 channels \(got 4\)"):
        said(kind(3, 4), 4)


def test_projections_are_refused(said: Any) -> None:
    with pytest.raises(ValueError, match=r"^projections of hidden states are kept$"):
        said(nn.LSTM(3, 4, proj_size=2), 3)


def test_queries_are_of_the_features_and_beside_what_they_read(said: Any) -> None:
    found = said(pyg.Set2Set(3, processing_steps=2), 3)
    assert found.out == found.x * 2
    assert found.owned["lstm.weight_ih_l0"] == {0: found.x * 4, 1: found.x * 2}
    assert found.owned["lstm.weight_hh_l0"] == {0: found.x * 4, 1: found.x}
    assert found.of_root == {"in_channels": found.x, "out_channels": found.x * 2}
    assert found.ports.axes == []  # it makes no channels
    with pytest.raises(ValueError, match=r"^queries of other widths than the features are kept$"):
        said(pyg.Set2Set(3, 2, bidirectional=True), 3)


class Net(nn.Module):
    """A layer over time, between two linear ones; its states start at 0."""

    def __init__(self, layer: nn.Module, width: int = 4) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 5), layer, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.first(x))[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_small_layers_hold_the_rows_of_each_gate(kind: Any) -> None:
    layer = kind(5, 4, batch_first=True)
    model = Net(layer).double()
    pruner = Pruner(model, Random(0), keep=1.0, example=(X,), strict=True)
    pruner.mask({"layer": torch.tensor([0, 1, 0, 1]), "first": torch.tensor([1, 1, 0, 1, 0])})
    small: Any = pruner.compact()
    rows = [4 * gate + i for gate in range(GATES[kind]) for i in (1, 3)]
    original = {name.removesuffix("_orig"): p.detach() for name, p in layer.named_parameters()}
    assert torch.equal(small.layer.weight_ih_l0, original["weight_ih_l0"][rows][:, [0, 1, 3]])
    assert torch.equal(small.layer.weight_hh_l0, original["weight_hh_l0"][rows][:, [1, 3]])
    assert torch.equal(small.layer.bias_ih_l0, original["bias_ih_l0"][rows])
    assert (small.layer.input_size, small.layer.hidden_size) == (3, 2)
    torch.testing.assert_close(small(X), model(X))


def test_small_layers_know_their_new_parameters() -> None:
    # They keep them in a list too, which is what is run.
    model = Net(nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True), width=8).double()
    pruner = Pruner(model, Random(0), keep=1.0, example=(X,), strict=True)
    pruner.mask({"layer": torch.tensor([0, 1, 1, 1])})
    small: Any = pruner.compact()
    assert len(small.layer._flat_weights) == 16
    for name, weight in zip(
        small.layer._flat_weights_names, small.layer._flat_weights, strict=True
    ):
        assert weight is getattr(small.layer, name)
    small(X).sum().backward()
    assert all(weight.grad is not None for weight in small.layer.parameters())


def test_only_the_inputs_of_a_layer_may_shrink() -> None:
    model = Net(nn.GRU(5, 4, batch_first=True)).double()
    # Not compared, nor run: the list is true at once.
    pruner = Pruner(model, Random(0), keep=1.0, example=(X,), verify=False)
    pruner.mask({"first": torch.tensor([0, 1, 1, 1, 0])})
    small: Any = pruner.compact()
    assert small.layer.weight_ih_l0.shape == (12, 3)
    assert small.layer._flat_weights[0] is small.layer.weight_ih_l0
    torch.testing.assert_close(small(X), model(X))
