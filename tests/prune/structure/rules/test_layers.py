"""Tests of pyg_stkd/prune/rules: layers in chains, alone and joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv, EdgeConv
from pyg_stkd.nn.conv.gat_conv import GATConv
from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.sequence.st_conv import STConv
from pyg_stkd.prune import Ports, Pruner, Random

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 2, 3, 4, 5, 0, 2, 0, 1, 4]])
GENERATOR = torch.Generator().manual_seed(0)
NODES = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
ATTRS = torch.randn(10, 2, generator=GENERATOR, dtype=torch.float64)
STEPS = torch.randn(2, 9, 6, 2, generator=GENERATOR, dtype=torch.float64)
IMAGES = torch.randn(2, 3, 5, 5, generator=GENERATOR, dtype=torch.float64)


def chain(*layers: Any) -> pyg.Sequential:
    """A chain on a graph: a triple of a convolution, a norm and an activation is one step."""
    steps: list[Any] = []
    for layer in layers:
        with_graph = isinstance(layer, pyg.MessagePassing)
        steps.append((layer, "x, edge_index -> x" if with_graph else "x -> x"))
    return pyg.Sequential("x, edge_index", steps)


def jumping() -> pyg.Sequential:
    return pyg.Sequential(
        "x, edge_index, batch",
        [
            (pyg.GCNConv(3, 4), "x, edge_index -> x1"),
            nn.PReLU(4),
            (pyg.GraphConv(4, 5, aggr="mean"), "x1, edge_index -> x2"),
            nn.Softplus(),
            (lambda x1, x2: [x1, x2], "x1, x2 -> xs"),
            (pyg.JumpingKnowledge("cat", 4, 2), "xs -> x"),
            (pyg.global_mean_pool, "x, batch -> x"),
            nn.Linear(9, 2),
        ],
    )


def on_graph(model: nn.Module) -> Any:
    return model(NODES.to(next(model.parameters()).dtype), EDGES)


def on_steps(model: nn.Module) -> Any:
    return model(STEPS.to(next(model.parameters()).dtype))


def with_attributes(model: Any) -> Any:
    return model[1](model[0](NODES, EDGES, ATTRS), EDGES)


def on_images(model: nn.Module) -> Any:
    return model(IMAGES.to(next(model.parameters()).dtype))


def pooled(model: nn.Module) -> Any:
    x = NODES.to(next(model.parameters()).dtype)
    return model(x, EDGES, torch.tensor([0, 0, 0, 1, 1, 1]))


def edge_nn(width_in: int, width_out: int, *rest: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * width_in, width_out), nn.BatchNorm1d(width_out), *rest)


LAYERS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "cheb": (
        lambda: chain(pyg.ChebConv(3, 5, 3), nn.Tanh(), pyg.ChebConv(5, 4, 2), pyg.GCNConv(4, 2)),
        on_graph,
    ),
    "norms": (
        lambda: chain(
            pyg.GCNConv(3, 6), pyg.LayerNorm(6), nn.ELU(), pyg.SAGEConv(6, 5),
            pyg.LayerNorm(5, mode="node"), pyg.ChebConv(5, 4, 2), nn.BatchNorm1d(4, affine=False),
            nn.Sigmoid(), pyg.GraphConv(4, 4), nn.LayerNorm(4, elementwise_affine=False),
            pyg.GCNConv(4, 2),
        ),
        on_graph,
    ),
    "gin": (
        lambda: chain(
            pyg.GINConv(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), pyg.Linear(5, 4))),
            pyg.GINConv(pyg.MLP([4, 6, 2], norm="layer_norm", act_first=True)),
        ),
        on_graph,
    ),
    "gat, means of heads": (
        lambda: chain(
            GATConv(3, 4, heads=2, concat=False, residual=True), nn.ELU(),
            pyg.GATConv(4, 3, heads=2, residual=True), GATConv(6, 2),
        ),
        on_graph,
    ),
    "edge conv": (
        lambda: chain(
            EdgeConv(edge_nn(3, 5, nn.LeakyReLU(0.2))), pyg.EdgeConv(edge_nn(5, 4, nn.Sigmoid())),
            EdgeConv(edge_nn(4, 5, nn.ReLU(), nn.Linear(5, 3)), aggr="mean"), pyg.GCNConv(3, 2),
        ),
        on_graph,
    ),
    "dynamic edge conv": (
        lambda: nn.Sequential(
            DynamicEdgeConv(edge_nn(3, 5, nn.ReLU()), k=3),
            DynamicEdgeConv(edge_nn(5, 4), k=2), nn.Linear(4, 2),
        ),
        lambda model: model(NODES),
    ),
    "jumping knowledge": (jumping, pooled),
    "temporal": (
        lambda: nn.Sequential(
            GatedTemporalConv(2, 5), GatedTemporalConv(5, 3, gate="gtu"),
            GatedTemporalConv(3, 4, gate="pgt", padding="same"), nn.Linear(4, 2),
        ),
        on_steps,
    ),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 1),
            nn.InstanceNorm2d(5, affine=True), nn.Conv2d(5, 4, 3, groups=1)),
        on_images,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("seed", "share"), [(0, 0.001), (1, 0.3), (2, 0.6)])
def test_masked_equals_compacted(check_rule: Any, name: str, seed: int, share: float) -> None:
    check_rule(*LAYERS[name], seed, share)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "jumping knowledge"])
def test_round_trips(check_round_trips: Any, name: str) -> None:
    check_round_trips(*LAYERS[name])  # a lambda inside a chain cannot be pickled


@pytest.mark.parametrize("kind", [GATConv, pyg.GATConv, pyg.GATv2Conv])
def test_edge_features(kind: Any) -> None:
    model = nn.ModuleList([kind(3, 4, heads=2, edge_dim=2), pyg.GCNConv(8, 2)]).double()
    ports = Ports(_Declared(model))
    assert ports.owned["layers.0.lin_edge.weight"][0] == ports.owned["layers.0.bias"][0]
    declared = _Declared(model)
    pruner = Pruner(declared, Random(0), keep=1.0)
    pruner.mask({"layers.0": torch.tensor([1, 0, 1, 0])})
    small = pruner.compact()
    assert small.layers[0].out_channels == 2
    for _ in range(2):  # the second time, the products of the first have no graph any more
        out = declared(NODES, EDGES, ATTRS)
        torch.testing.assert_close(small(NODES, EDGES, ATTRS), out)
        out.sum().backward()


class _Declared(nn.Module):
    """A model of the user's, with its wiring in a rule."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Any, edge_index: Any, edge_attr: Any) -> Any:
        return self.layers[1](self.layers[0](x, edge_index, edge_attr), edge_index)


@pytest.fixture(autouse=True)
def _declare(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyg_stkd.prune.structure import registry

    def rule(ports: Ports, model: Any, x: Any) -> Any:
        for layer in model.layers:
            x = ports(layer, x)
        return x

    monkeypatch.setitem(registry._RULES, _Declared, rule)


def test_bipartite_layers() -> None:
    for layer in (
        pyg.SAGEConv((3, 4), 5),
        pyg.GraphConv((3, 4), 5),
        pyg.GATConv((3, 4), 5, heads=2),
        pyg.GATv2Conv((3, 4), 5),
    ):
        ports = Ports(layer)
        assert any(len(dims) == 2 for dims in ports.owned.values())
        sizes = {len(dims[1]) for name, dims in ports.owned.items() if "lin" in name and 1 in dims}
        assert sizes == {3, 4}


def test_blocks_with_layers_of_pyg(check_rule: Any) -> None:
    def build() -> nn.Module:
        block = STConv(2, 4, 5, conv=lambda a, b: pyg.GraphConv(a, b), norm=None)
        return _Block(block)

    from pyg_stkd.prune.structure import registry

    registry._RULES[_Block] = lambda ports, model, x: ports(model.lin, ports(model.block, x))
    try:
        check_rule(build, lambda model: model(STEPS, EDGES), 0, 0.4)
    finally:
        del registry._RULES[_Block]


class _Block(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.lin = nn.Linear(5, 1)

    def forward(self, x: Any, edge_index: Any) -> Any:
        return self.lin(self.block(x, edge_index))


def test_what_mixes_channels_without_a_rule_is_refused() -> None:
    for layer, pattern in (
        (pyg.SAGEConv(4, 4, aggr="lstm"), "SAGEConv|LSTM"),
        (pyg.JumpingKnowledge("lstm", 4, 2), "JumpingKnowledge|LSTM"),
    ):
        with pytest.raises(ValueError, match=f"(?s)(No rule says.*({pattern}))"):
            Ports(nn.Sequential(nn.Linear(2, 4), layer))


@pytest.mark.parametrize("aggr", ["softmax", "powermean", pyg.SoftmaxAggregation(learn=True)])
def test_an_aggregation_without_a_rule_is_refused(aggr: Any) -> None:
    with pytest.raises(
        ValueError, match=r"No rule says what becomes of channels in \w+Aggregation"
    ):
        Ports(nn.Sequential(nn.Linear(2, 4), pyg.SAGEConv(4, 4, aggr=aggr)))


def test_what_has_no_parameters_and_no_rule_keeps_channels_and_blocks_nothing() -> None:
    layers = [nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 5), nn.Flatten(), nn.Linear(5, 3)]
    ports = Ports(nn.Sequential(*layers, nn.LogSoftmax(-1)))
    free = {name: ports.is_free(channels) for name, channels in ports.axes}
    assert free == {"0": True, "2": False, "4": False}
    assert [(reason.kind, reason.why.rpartition(".")[2]) for reason in ports.reasons] == [
        ("rule", "Flatten"),
        ("natural", "LogSoftmax"),
    ]


def test_functions_of_several_inputs_are_refused_where_one_is_taken() -> None:
    chain = pyg.Sequential(
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
