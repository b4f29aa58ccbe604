"""Layers with rules in chains: masked equals compacted, whatever happens to them."""

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
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 6, 1),
            nn.GroupNorm(1, 6), nn.Tanh(), nn.Conv2d(6, 6, 1), nn.GroupNorm(6, 6, affine=False),
            nn.Sigmoid(), nn.Conv2d(6, 5, 1), nn.GroupNorm(1, 5, affine=False), nn.Conv2d(5, 4, 3)),
        on_images,
    ),
    "groups of nodes' channels": (
        lambda: chain(
            pyg.GCNConv(3, 6), nn.GroupNorm(2, 6), nn.ELU(), pyg.GCNConv(6, 5), nn.GroupNorm(1, 5),
            pyg.GCNConv(5, 2),
        ),
        on_graph,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("seed", "share"), [(0, 0.001), (1, 0.3), (2, 0.6)])
def test_masked_equals_compacted(check_rule: Any, name: str, seed: int, share: float) -> None:
    check_rule(*LAYERS[name], seed, share)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "jumping knowledge"])
def test_round_trips(check_round_trips: Any, name: str) -> None:
    check_round_trips(*LAYERS[name])  # a lambda inside a chain cannot be pickled
