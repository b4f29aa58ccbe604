"""Chains whose modules have several inputs, and functions of which no rule knows what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GCN,
    GATConv,
    GCNConv,
    GINEConv,
    GraphConv,
    JumpingKnowledge,
    SAGEConv,
    Sequential,
    global_mean_pool,
)

from pyg_stkd.prune import Ports, Pruner, Random

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).double()
ATTR = torch.randn(8, 5, generator=torch.Generator().manual_seed(1)).double()


def add(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def encoded(conv: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Sequential(
        "x, e, ea",
        [
            (nn.Linear(5, 16), "ea -> ea"),
            (nn.Linear(8, 8), "x -> x"),
            (conv(), "x, e, ea -> x"),
            nn.ReLU(),
            (nn.Linear(16, 3), "x -> x"),
        ],
    )


def residual(order: str) -> Callable[[], nn.Module]:
    layers = [(GCNConv(8, 8), "x, e -> h"), (add, f"{order} -> h")]
    last = [(nn.Linear(8, 8), "h -> h"), nn.ReLU(), (nn.Linear(8, 3), "h -> h")]
    return lambda: Sequential("x, e", [*layers, *last])


def nested() -> nn.Module:
    inner = Sequential("e, x", [(GCNConv(16, 8), "x, e -> x"), nn.ReLU(), nn.Linear(8, 3)])
    return Sequential("x, e", [(GCNConv(8, 16), "x, e -> h"), (inner, "e, h -> h")])


def layers_of() -> nn.Module:
    return Sequential(
        "x, e, b",
        [
            (GCNConv(8, 6), "x, e -> h1"),
            (GCNConv(6, 4), "h1, e -> h2"),
            (lambda a, b: [a, b], "h1, h2 -> hs"),
            (JumpingKnowledge("cat"), "hs -> h"),
            (global_mean_pool, "h, b -> h"),
            nn.Linear(10, 2),
        ],
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("build", "inputs", "groups"),
    [
        (encoded(lambda: GATConv(8, 16, edge_dim=16)), (X, EDGES, ATTR), ["module_1", "module_2"]),
        (residual("h, x"), (X, EDGES), ["module_2"]),
        (residual("x, h"), (X, EDGES), ["module_2"]),
        (nested, (X, EDGES), ["module_1.module_0"]),
        (layers_of, (X, EDGES, torch.zeros(6, dtype=torch.long)), ["module_0", "module_1"]),
    ],
)
def test_chains_with_several_inputs(
    build: Any, inputs: Any, groups: list[str], seed: int, check_rule: Any
) -> None:
    pruner = check_rule(build, lambda model: model(*inputs), seed, 0.5)
    assert [group.name for group in pruner.groups] == groups


def test_an_ignored_layer_keeps_all_its_inputs(check_rule: Any) -> None:
    def build() -> nn.Module:
        conv = GINEConv(nn.Sequential(nn.Linear(8, 16)), edge_dim=16)
        edges = [(nn.Linear(5, 7), "ea -> ea"), (nn.Linear(7, 16), "ea -> ea")]
        return Sequential("x, e, ea", [*edges, (conv, "x, e, ea -> x"), nn.Linear(16, 3)])

    pruner = check_rule(build, lambda m: m(X, EDGES, ATTR), 0, 0.7, ignore=["module_2"])
    assert [group.name for group in pruner.groups] == ["module_0"]


@pytest.mark.parametrize("conv", [GCNConv, SAGEConv, GATConv, GraphConv])
def test_a_function_of_several_outputs_is_no_pair(conv: Any) -> None:
    model = Sequential(
        "x, e",
        [
            (GCNConv(8, 16), "x, e -> h1"),
            (GCNConv(8, 16), "x, e -> h2"),
            (add, "h1, h2 -> h"),
            (conv(16, 3), "h, e -> h"),
        ],
    )
    with pytest.raises(ValueError, match="No rule says what a function of several inputs, before"):
        Pruner(model, Random(0))


def test_functions_that_mix_channels_keep_them(check_rule: Any) -> None:
    def softmax(x: Tensor) -> Tensor:
        return x.softmax(-1)

    def build() -> nn.Module:
        layers = [(softmax, "x -> x"), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3)]
        return Sequential("x, e", [(GCNConv(8, 16), "x, e -> x"), *layers])

    with pytest.warns(UserWarning, match=r"module_0 \(what softmax makes of channels"):
        pruner = check_rule(build, lambda m: m(X, EDGES), 0, 0.7)
    assert [group.name for group in pruner.groups] == ["module_2"]
    assert len(Pruner(GCN(8, 16, 3, 4, act=torch.relu), Random(0)).groups) == 2
    with pytest.raises(ValueError, match=r"(?s)must have channels that can be pruned.*softmax"):
        Pruner(GCN(8, 16, 3, 4, act=softmax), Random(0))


def test_the_trial_of_a_function_draws_no_numbers() -> None:
    model = GCN(8, 16, 2, 4, act=lambda x: nn.functional.dropout(x, 0.5))
    torch.manual_seed(0)
    assert len(Pruner(model, Random(0)).groups) == 1
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize("mode", ["cat", "max"])
def test_jumping_knowledge_over_ignored_layers(mode: str, check_rule: Any) -> None:
    class Unknown(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(width))

        def forward(self, x: Tensor, edge_index: Tensor, **kwargs: Any) -> Tensor:
            return x.roll(1, -1) * self.weight

    def build() -> nn.Module:
        model = GCN(8, 6, 3, 2, jk=mode)
        model.convs[1] = Unknown(6)
        model.lin = nn.Sequential(nn.Linear(model.lin.in_features, 9), nn.Linear(9, 2))
        return model

    pruner = check_rule(build, lambda m: m(X, EDGES), 0, 0.99, ignore=["convs.1"])
    assert [group.name for group in pruner.groups] == ["lin.0"]


def test_functions_of_several_inputs_are_refused_where_one_is_taken() -> None:
    chain = Sequential(
        "x",
        [
            (nn.Linear(2, 4), "x -> x1"),
            (nn.Linear(4, 4), "x1 -> x2"),
            (lambda a, b: a + b, "x1, x2 -> x"),
            nn.Linear(4, 1),
        ],
    )
    with pytest.raises(ValueError, match="function of several inputs, before 'module_3', makes of"):
        Ports(chain)


def test_layers_that_an_lstm_weighs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"No rule says what belongs to .* 1\.lstm \(.*LSTM\)"):
        Ports(nn.Sequential(nn.Linear(2, 4), JumpingKnowledge("lstm", 4, 2)))
