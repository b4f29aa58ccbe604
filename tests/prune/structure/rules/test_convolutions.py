"""Tests of pyg_stkd/prune/structure/rules/convolutions.py: graph convolutions of PyG."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.rules.convolutions import aggregate, pair

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 2, 3, 4, 5, 0, 2, 0, 1, 4]])
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_sources_and_targets_need_not_differ() -> None:
    assert pair(None) == (None, None)
    assert pair((3, 4)) == ((3, 4), (3, 4))
    assert pair([(3, 4), (5,)]) == ((3, 4), (5,))
    assert pair([(3, 4), None]) == ((3, 4), None)


@pytest.mark.parametrize("kind", ["add", "mean", "max", "min", "mul", "var", "std", "median"])
def test_each_channel_is_aggregated_by_itself(kind: str) -> None:
    conv = pyg.SAGEConv(2, 3, aggr=kind)
    ports = Ports(conv, follow=lambda ports, model: [])
    assert aggregate(ports, conv.aggr_module, (5, 6)) == (5, 6)


def test_several_ways_stand_side_by_side() -> None:
    conv = pyg.SAGEConv(2, 3, aggr=["mean", "max", "std"])
    ports = Ports(conv, follow=lambda ports, model: [])
    assert aggregate(ports, conv.aggr_module, (5, 6)) == (5, 6) * 3
    joined = pyg.SAGEConv(
        2, 3, aggr=["mean", "max"], aggr_kwargs={"mode": "proj", "mode_kwargs": {
            "in_channels": 2, "out_channels": 2}},
    )  # fmt: skip
    ports = Ports(joined, follow=lambda ports, model: [])
    with pytest.raises(ValueError, match="in MultiAggregation of 'aggr_module'"):
        aggregate(ports, joined.aggr_module, (5, 6))


@pytest.mark.parametrize(
    ("aggr", "name"),
    [
        ("softmax", "Softmax"),
        ("powermean", "PowerMean"),
        (pyg.SoftmaxAggregation(learn=True), "Softmax"),
        (pyg.LSTMAggregation(4, 4), "LSTM"),
        (["mean", "softmax"], "Softmax"),
    ],
)
def test_an_aggregation_without_a_rule_is_refused(aggr: Any, name: str) -> None:
    where = r"'1\.aggr_module(\.aggrs\.1)?'"
    with pytest.raises(
        ValueError,
        match=rf"^No rule says what becomes of channels in {name}Aggregation of {where}: register",
    ):
        Ports(nn.Sequential(nn.Linear(2, 4), pyg.SAGEConv(4, 4, aggr=aggr)))


def test_one_linear_layer_and_a_bias(said: Any) -> None:
    found = said(pyg.GCNConv(3, 4), 3)
    assert found.owned == {"bias": {0: found.out}, "lin.weight": {0: found.out, 1: found.x}}
    assert found.of_root == {"in_channels": found.x, "out_channels": found.out}
    assert found.attributes["lin.in_channels"] == found.x
    assert found.attributes["lin.out_channels"] == found.out
    assert said(pyg.GCNConv(3, 4, bias=False), 3).owned.keys() == {"lin.weight"}


def test_all_orders_are_from_and_to_the_same_channels(said: Any) -> None:
    found = said(pyg.ChebConv(3, 4, K=3), 3)
    lins = {f"lins.{k}.weight": {0: found.out, 1: found.x} for k in range(3)}
    assert found.owned == {"bias": {0: found.out}, **lins}
    assert [name for name, _ in found.ports.axes] == [""]


@pytest.mark.parametrize("shared", [False, True])
def test_square_matrices_are_from_and_to_one_set_of_channels(said: Any, shared: bool) -> None:
    found = said(pyg.GCN2Conv(4, 0.1, theta=0.5, layer=1, shared_weights=shared), 4)
    names = ["weight1"] if shared else ["weight1", "weight2"]
    assert found.owned == {name: {0: found.x, 1: found.x} for name in names}
    assert found.out == found.x
    assert found.of_root == {"channels": found.x}


def test_neighbours_and_the_node_itself_are_added(said: Any) -> None:
    found = said(pyg.SAGEConv(3, 4), 3)
    assert found.owned == {
        "lin_l.weight": {0: found.out, 1: found.x},
        "lin_l.bias": {0: found.out},
        "lin_r.weight": {0: found.out, 1: found.x},
    }
    assert found.of_root == {"in_channels": found.x, "out_channels": found.out}
    alone = said(pyg.SAGEConv(3, 4, root_weight=False), 3)
    assert alone.owned.keys() == {"lin_l.weight", "lin_l.bias"}
    graph = said(pyg.GraphConv(3, 4), 3)
    assert graph.owned["lin_rel.weight"] == graph.owned["lin_root.weight"]


def test_projected_messages_have_channels_of_their_own(said: Any) -> None:
    found = said(pyg.SAGEConv(3, 4, aggr=["mean", "max"], project=True), 3)
    sent = found.owned["lin.weight"][0]
    assert found.owned["lin.weight"][1] == found.owned["lin_r.weight"][1] == found.x
    assert found.owned["lin_l.weight"][1] == sent * 2
    assert not set(sent) & {*found.x, *found.out}


@pytest.mark.parametrize(
    ("conv", "names"),
    [
        (pyg.SAGEConv((3, 5), 4), ("lin_l", "lin_r")),
        (pyg.GraphConv((3, 5), 4), ("lin_rel", "lin_root")),
    ],
)
def test_sources_and_targets_have_layers_of_their_own(said: Any, conv: Any, names: Any) -> None:
    found = said(conv, 3, 5)
    src, dst = found.x
    assert [found.owned[f"{name}.weight"][1] for name in names] == [src, dst]
    assert [found.owned[f"{name}.weight"][0] for name in names] == [found.out, found.out]
    assert found.of_root == {"in_channels": [src, dst], "out_channels": found.out}
    unknown = said(conv, None)
    assert [len(unknown.owned[f"{name}.weight"][1]) for name in names] == [3, 5]


def test_the_network_of_a_sum_takes_nodes_and_neighbours_alike(said: Any) -> None:
    found = said(pyg.GINConv(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4))), 3)
    assert found.owned["nn.0.weight"][1] == found.x
    assert found.owned["nn.2.weight"] == {0: found.out, 1: found.owned["nn.0.weight"][0]}
    bipartite = said(pyg.GINConv(nn.Linear(3, 4)), 3, 3)
    assert bipartite.same(*bipartite.x)
    unknown = said(pyg.GINConv(nn.Linear(3, 4)), None, 3)
    assert unknown.free(unknown.x[1]) == [False] * 3  # added to what must stay


def test_chains_of_all_are_the_same_when_they_are_small(check_rule: Any) -> None:
    def build() -> nn.Module:
        gin = pyg.GINConv(
            nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), train_eps=True
        )
        steps: list[Any] = [
            pyg.SAGEConv(3, 6, aggr=["mean", "max"], project=True), nn.Tanh(), gin, nn.ELU(),
            pyg.GraphConv(4, 5, aggr="max"), pyg.GCNConv(5, 2),
        ]  # fmt: skip
        graph = (pyg.SAGEConv, pyg.GINConv, pyg.GraphConv, pyg.GCNConv)
        return pyg.Sequential(
            "x, e", [(s, "x, e -> x" if isinstance(s, graph) else "x -> x") for s in steps]
        )

    def run(model: Any) -> Tensor:
        return model(X, EDGES)

    pruner = check_rule(build, run, 0, 0.3)
    assert set(pruner.widths) == {
        "module_0", "module_0 (2)", "module_2.nn.0", "module_2.nn.2", "module_4",
    }  # fmt: skip
