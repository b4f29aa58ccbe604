"""Tests of pyg_stkd/prune/following/leaves.py: a rule where its module is called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.nn import STGCN
from pyg_stkd.nn.sequence.time_conv import TimeConv
from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.following.leaves import Leaf, joins_layers, leaf_of
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import find_rule
from pyg_stkd.prune.structure.units import Channels

EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])


@pytest.fixture(name="labels_of")
def _labels_of(unfollowed: Any) -> Any:
    return lambda module: Labels(unfollowed(module))


def labelled(labels: Labels, *shape: int, dim: int = -1, zero: bool = True) -> Any:
    """Returns a tensor and the channels of one of its dimensions."""
    tensor = torch.randn(shape)
    channels = labels.ports.new(tensor.size(dim))
    labels.put(tensor, {dim % tensor.dim(): Axis(channels, zero)})
    return tensor, channels


def same(ports: Ports, a: Channels, b: Channels) -> bool:
    return [*map(ports.find, a)] == [*map(ports.find, b)]


def test_a_rule_holds_for_a_layer_but_not_for_what_joins_layers() -> None:
    for module in (nn.Linear(2, 3), pyg.GCNConv(2, 3), nn.GRU(2, 3), nn.LayerNorm(2)):
        assert leaf_of(module)
        assert not joins_layers(find_rule(type(module)))
    for joining in (nn.Sequential(nn.ReLU()), pyg.JumpingKnowledge("cat"), nn.ReLU(), nn.PReLU(2)):
        assert not leaf_of(joining)
        assert joins_layers(find_rule(type(joining)))
    stgcn = STGCN(1, [(2, 2, 2)], 1, num_steps=5)  # which has a rule that says all
    assert not leaf_of(stgcn)
    assert not joins_layers(find_rule(type(stgcn)))
    assert not leaf_of(nn.Bilinear(2, 2, 2))
    own = nn.Linear(2, 3)
    own.forward = lambda x: x  # type: ignore[method-assign]
    assert not leaf_of(own)


@pytest.mark.parametrize(
    ("module", "shape", "dim"),
    [
        (nn.Linear(6, 3), (5, 6), 1),
        (nn.Linear(6, 3), (2, 5, 6), 2),
        (nn.Conv1d(6, 3, 1), (2, 6, 5), 1),
        (nn.Conv2d(6, 3, 1), (2, 6, 5, 4), 1),
        (nn.Conv3d(6, 3, 1), (6, 5, 4, 3), 0),  # without a batch
        (TimeConv(6, 3, 1), (2, 5, 4, 6), 3),
        (nn.BatchNorm1d(6), (2, 6, 5), 1),
        (nn.BatchNorm2d(6), (2, 6, 5, 4), 1),
        (nn.InstanceNorm1d(6), (2, 6, 5), 1),
    ],
)
def test_channels_are_where_the_layer_has_them(
    labels_of: Any, module: nn.Module, shape: Any, dim: int
) -> None:
    labels = labels_of(module)
    x, channels = labelled(labels, *shape, dim=dim)
    assert Leaf(module, (x,), {}, labels).channels() == channels
    for other in set(range(len(shape))) - {dim}:
        x, _ = labelled(labels, *shape, dim=other)
        with pytest.raises(ValueError, match=r"^its channels are not where its rule expects them$"):
            Leaf(module, (x,), {}, labels).channels()
    assert Leaf(module, (torch.randn(shape),), {}, labels).channels() is None
    out = module(x)
    width = out.size(dim)
    leaf = Leaf(module, (x,), {}, labels)
    leaf.label(out, labels.ports.new(width))
    assert list(labels.of(out)) == [dim]
    with pytest.raises(ValueError, match=rf"^its output must have {width + 1} channels$"):
        leaf.label(out, labels.ports.new(width + 1))


@pytest.mark.parametrize("kwargs", [{"gate": "glu"}, {"residual": 6}])
def test_a_convolution_in_time_with_a_gate_is_followed(labels_of: Any, kwargs: Any) -> None:
    conv = TimeConv(6, 8, 3)
    labels = labels_of(conv)
    x, channels = labelled(labels, 2, 5, 4, 6)
    assert Leaf(conv, (x,), {"gate": "linear", "residual": 0}, labels).channels() == channels
    with pytest.raises(ValueError, match=r"^its gate or its residual makes other channels$"):
        Leaf(conv, (x,), kwargs, labels).channels()


class InTime(nn.Module):
    """A convolution along time in a model of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.conv, self.out = nn.Linear(2, 6), TimeConv(6, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(self.inputs(x).relu()).relu())


def test_both_ends_of_a_convolution_in_time_go(prune_followed: Any) -> None:
    pruner = prune_followed(InTime(), (torch.randn(2, 9, 5, 2),), strict=True)
    assert set(pruner.widths) == {"inputs", "conv"}


def test_sources_and_targets_have_channels_of_their_own(labels_of: Any) -> None:
    conv = pyg.SAGEConv((6, 4), 3)
    labels = labels_of(conv)
    (x, a), (y, b) = labelled(labels, 5, 6), labelled(labels, 5, 4)
    assert Leaf(conv, ((x, y), EDGES), {}, labels).channels() == [a, b]
    assert Leaf(conv, ((x, None), EDGES), {}, labels).channels() == [a, None]
    assert Leaf(conv, (), {"x": (x, y), "edge_index": EDGES}, labels).channels() == [a, b]


def test_other_inputs_with_channels_are_no_matter_of_a_rule(labels_of: Any) -> None:
    conv = pyg.GATConv(6, 3, edge_dim=4)
    labels = labels_of(conv)
    (x, channels), (attr, _) = labelled(labels, 5, 6), labelled(labels, 5, 4)
    with pytest.raises(ValueError, match=r"^an input beside the features has channels$"):
        Leaf(conv, (x, EDGES), {"edge_attr": attr}, labels).channels()
    assert Leaf(conv, (x, EDGES), {"edge_attr": attr + 0}, labels).channels() == channels
    with pytest.raises(ValueError, match=r"^its inputs are not features of nodes$"):
        Leaf(conv, ([x, x, x], EDGES), {}, labels).channels()
    assert Leaf(conv, (EDGES,), {}, labels).channels() is None
    assert Leaf(nn.Identity(), (), {}, labels).channels() is None


def test_keys_and_values_are_as_wide_as_queries(labels_of: Any) -> None:
    layer = nn.MultiheadAttention(6, 2)
    labels = labels_of(layer)
    (q, a), (k, b), (v, c) = (labelled(labels, 5, 6) for _ in range(3))
    assert Leaf(layer, (q, k, v), {}, labels).channels() == a
    assert same(labels.ports, a, b)
    assert same(labels.ports, a, c)
    labels = labels_of(layer)
    q, a = labelled(labels, 5, 6)
    Leaf(layer, (q, torch.randn(5, 6), q), {}, labels).channels()
    assert not labels.ports.is_free(a)  # keys of the model's inputs


def test_first_features_have_the_same_channels(labels_of: Any) -> None:
    conv = pyg.GCN2Conv(6, 0.1)
    labels = labels_of(conv)
    (x, a), (first, b) = labelled(labels, 5, 6), labelled(labels, 5, 6)
    assert Leaf(conv, (x, first, EDGES), {}, labels).channels() == a
    assert same(labels.ports, a, b)


def test_outputs_must_be_what_the_rule_returned(labels_of: Any) -> None:
    lin = nn.Linear(6, 3)
    labels = labels_of(lin)
    x, _ = labelled(labels, 5, 6)
    leaf, out = Leaf(lin, (x,), {}, labels), lin(x)
    channels = labels.ports.new(3)
    with pytest.raises(
        ValueError, match=r"^its rule returns more than the channels of one output$"
    ):
        leaf.label(out, [channels, channels])
    with pytest.raises(ValueError, match=r"^it returns more than features$"):
        leaf.label((out, out), channels)
    with pytest.raises(ValueError, match=r"^its output must have 2 channels$"):
        leaf.label(out, channels[:2])
    assert labels.of(out) == {}
    assert labels.knows(out)
    leaf.label(out, None)  # a rule that says nothing
    assert labels.of(out) == {}
    leaf.label(out, channels)
    assert labels.of(out) == {1: Axis(channels, True)}


class Shift(nn.Module):
    """A layer of the user's, whose masked channels come out as 0 or not."""

    def __init__(self, shift: float, error: bool = False) -> None:
        super().__init__()
        self.weight, self.shift, self.error = nn.Parameter(torch.rand(6) + 1), shift, error

    def forward(self, x: Tensor) -> Tensor:
        if self.error and not bool(self.weight.all()):
            raise RuntimeError("a weight of 0")
        return x * self.weight + self.shift


@pytest.mark.parametrize(
    ("layer", "zero"), [(Shift(0.0), True), (Shift(1.0), False), (Shift(0.0, error=True), False)]
)
def test_zeros_of_other_layers_are_found_by_trial(labels_of: Any, layer: Any, zero: bool) -> None:
    labels = labels_of(layer)
    x, channels = labelled(labels, 5, 6)
    labels.ports.own(layer, "weight", 0, channels)
    leaf, before = Leaf(layer, (x,), {}, labels), layer.weight.detach().clone()
    out = layer(x)
    leaf.label(out, channels)
    assert labels.of(out) == {1: Axis(channels, zero)}
    assert torch.equal(layer.weight, before)  # put back, whatever it raised
    labels.ports.freeze(channels)
    leaf.label(out, channels)
    assert labels.of(out) == {}


def test_states_of_both_ways_are_of_the_same_units(labels_of: Any) -> None:
    layer = nn.LSTM(6, 3, bidirectional=True)
    labels = labels_of(layer)
    x, channels = labelled(labels, 4, 2, 6)
    (h, of_h), (c, of_c) = labelled(labels, 2, 2, 3), labelled(labels, 2, 2, 3, zero=False)
    leaf = Leaf(layer, (x, (h, c)), {}, labels)
    assert leaf.channels() == channels
    units = labels.ports.new(3)
    out, (last, cell) = layer(x, (h, c))
    leaf.label((out, (last, cell)), units)
    assert labels.of(out) == {2: Axis(units * 2, False)}  # a state at first is not 0 where masked
    assert labels.of(last) == labels.of(cell) == {2: Axis(units, False)}
    assert same(labels.ports, units, of_h)
    assert same(labels.ports, units, of_c)
    alone = Leaf(layer, (x,), {}, labels)
    out, states = layer(x)
    alone.label((out, states), units)
    assert labels.of(out) == {2: Axis(units * 2, True)}
