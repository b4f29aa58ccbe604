"""Tests of pyg_stkd/prune/structure/rules/models.py: each model, masked and compacted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GAT as PyGGAT
from torch_geometric.nn import GCN, GIN, EdgeCNN, GraphSAGE

from pyg_stkd.nn.models.astgcn import ASTGCN
from pyg_stkd.nn.models.dgcnn import DGCNN
from pyg_stkd.nn.models.gat import GAT
from pyg_stkd.nn.models.stgcn import STGCN
from pyg_stkd.prune.following import follow, leaves
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.layout import Layout
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.rules import models

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 2, 3, 4, 5, 0, 2, 0, 1, 4]])
NODES = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
STEPS = torch.randn(2, 9, 6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
POINTS = torch.randn(24, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
CLOUDS = torch.tensor([0] * 14 + [1] * 10)


def dtype_of(model: torch.nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def on_nodes(model: torch.nn.Module) -> Any:
    return model(NODES.to(dtype_of(model)), EDGES)


def on_steps(model: torch.nn.Module) -> Any:
    return model(STEPS.to(dtype_of(model)), EDGES)


def on_points(model: torch.nn.Module) -> Any:
    return model(POINTS.to(dtype_of(model)), CLOUDS)


def stgcn(**kwargs: Any) -> STGCN:
    return STGCN(2, [(6, 3, 5), (4, 4, 6)], 3, head_channels=(7, 5), num_steps=9, **kwargs)


MODELS: dict[str, tuple[Callable[[], torch.nn.Module], Any]] = {
    "gat": (lambda: GAT(3, 4, 2, num_layers=3, heads=2, out_heads=3), on_nodes),
    "gat without residuals": (lambda: GAT(3, 4, 2, 3, heads=2, residual=False), on_nodes),
    "gcn": (lambda: GCN(3, 6, 3, 2, norm="batch_norm"), on_nodes),
    "gcn, jk cat": (lambda: GCN(3, 6, 3, 2, jk="cat", norm="layer_norm", act="elu"), on_nodes),
    "gcn, jk max": (lambda: GCN(3, 6, 3, 2, jk="max", act="sigmoid"), on_nodes),
    "gcn, act first": (lambda: GCN(3, 6, 3, 2, norm="graph_norm", act_first=True), on_nodes),
    "sage": (lambda: GraphSAGE(3, 6, 3, 2, norm="instance_norm"), on_nodes),
    "sage, two ways": (lambda: GraphSAGE(3, 6, 3, 2, aggr=["mean", "max"]), on_nodes),
    "sage, projected": (lambda: GraphSAGE(3, 6, 3, 2, project=True, normalize=True), on_nodes),
    "gin": (lambda: GIN(3, 6, 3, 2, norm="batch_norm", train_eps=True), on_nodes),
    "pyg gat": (lambda: PyGGAT(3, 6, 3, 2, heads=2, residual=True), on_nodes),
    "pyg gat v2": (lambda: PyGGAT(3, 6, 3, 2, heads=2, v2=True, residual=True), on_nodes),
    "edge cnn": (lambda: EdgeCNN(3, 6, 3, 2), on_nodes),
    "stgcn": (stgcn, on_steps),
    "stgcn, norm of nodes": (lambda: stgcn(num_nodes=6), on_steps),
    "stgcn, gcn": (lambda: stgcn(conv="gcn", gate="gtu"), on_steps),
    "stgcn, pgt": (lambda: stgcn(gate="pgt", norm="batch", num_nodes=6, residual=False), on_steps),
    "stgcn, relu": (lambda: stgcn(gate=("relu", "sigmoid"), norm=None), on_steps),
    "astgcn": (lambda: ASTGCN(2, 5, 3, num_nodes=6, num_steps=9), on_steps),
    "dgcnn": (lambda: DGCNN(3, 4, (5, 6, 4, 8), (6, 5), k=4, dropout=0.0), on_points),
}


FAST = settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", MODELS)
@FAST
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.001, 0.2, 0.4, 0.7]))
def test_masked_equals_compacted(check_rule: Any, name: str, seed: int, share: float) -> None:
    check_rule(*MODELS[name], seed, share)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "dgcnn"])
def test_masked_equals_compacted_in_single_precision(check_rule: Any, name: str) -> None:
    # Not on dynamic graphs, whose edges may differ by a rounding.
    check_rule(*MODELS[name], 1, 0.4, torch.float32)


@pytest.mark.parametrize("name", MODELS)
def test_round_trips(check_round_trips: Any, name: str) -> None:
    check_round_trips(*MODELS[name])


@pytest.mark.parametrize("name", ["gat", "pyg gat", "pyg gat v2"])
@FAST
@given(seed=st.integers(0, 10**6))
def test_masked_heads_equal_compacted_heads(check_rule: Any, name: str, seed: int) -> None:
    check_rule(*MODELS[name], seed, 0.5, granularity="head")


# torch says of every masked parameter, as it does of those of its own masks, that it is assigned.
@pytest.mark.filterwarnings("ignore:The tensor attributes .* were assigned during export")
@pytest.mark.parametrize("name", ["gcn", "stgcn"])
def test_exports(prune_at_random: Any, name: str) -> None:
    build, run = MODELS[name]
    model = build().double()
    pruner = prune_at_random(model, 0, 0.4)
    for one in (model.eval(), pruner.compact().eval()):
        args = {on_nodes: (NODES, EDGES), on_steps: (STEPS, EDGES), on_points: (POINTS, CLOUDS)}
        exported = torch.export.export(one, args[run], strict=False).module()
        torch.testing.assert_close(exported(*args[run]), run(one))


INPUTS = {on_nodes: (NODES, EDGES), on_steps: (STEPS, EDGES), on_points: (POINTS, CLOUDS)}
RULES = {
    models.basic_gnn,
    models.gat,
    models.dgcnn,
    models.stgcn,
    models.astgcn,
    models.astgcn_stack,
}


@pytest.mark.parametrize("name", MODELS)
def test_following_finds_the_groups_of_the_rules(name: str, monkeypatch: Any) -> None:
    torch.manual_seed(0)
    make, run = MODELS[name]
    model = make().double()
    by_rule = {(group.members, group.width) for group in Layout(model, Ports(model)).groups}
    monkeypatch.setattr(leaves, "_FOLLOWED", leaves._FOLLOWED | RULES)
    example = Example(INPUTS[run])
    ports = Ports(model, follow=lambda ports, _: follow(ports, model, example))
    assert {(group.members, group.width) for group in Layout(model, ports).groups} == by_rule
