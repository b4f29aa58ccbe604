"""What torch.func makes of functions and layers: what torch.autograd does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap

import pyg_stkd.nn as layers
from pyg_stkd.functional import gsp, lsp, spatial_correlation, spmm, temporal_correlation
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF, Cosine, Laplacian

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    # Older versions of torch have no rule for batches of some operators of PyG.
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 0]])
GRAPH = Graph(EDGES, 5)
NODES = torch.randn(5, 3, dtype=torch.float64)
STEPS = torch.randn(2, 6, 5, 3, dtype=torch.float64)
CLOUDS = torch.tensor([0, 0, 0, 1, 1])
EDGE_NETWORK = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
LAYERS = {
    "GATConv": (layers.GATConv(3, 2), NODES),
    "EdgeConv": (layers.EdgeConv(EDGE_NETWORK), NODES),
    "DynamicEdgeConv": (layers.DynamicEdgeConv(EDGE_NETWORK, 2), NODES),
    "ChebConv": (layers.ChebConv(3, 2, 3), STEPS),
    "GCNConv": (layers.GCNConv(3, 2), STEPS),
    "GatedTemporalConv": (layers.GatedTemporalConv(3, 2), STEPS),
    "STConv": (layers.STConv(3, 2, 2), STEPS),
    "GAT": (layers.GAT(3, 2, 2, num_layers=2), NODES),
    "DGCNN": (layers.DGCNN(3, 2, k=2, channels=(4, 4), mlp_channels=(4,)), NODES),
    "STGCN": (layers.STGCN(3, 2, 2, num_steps=6, num_blocks=1), STEPS),
    "ASTGCN": (layers.ASTGCN(3, 4, 2, num_nodes=5, num_steps=6), STEPS),
}
WITHOUT_EDGES = ("DynamicEdgeConv", "GatedTemporalConv", "DGCNN")


def call_of(name: str) -> Callable[[Tensor], Tensor]:
    layer = LAYERS[name][0].double().eval()
    return layer if name in WITHOUT_EDGES else lambda x: layer(x, EDGES)


def loss_of(function: Callable[..., Tensor], *args: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, 1.5 * x.detach().roll(1, 0) + STEPS[0, 0, :1], *args)


CALLS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "spmm": (lambda x: spmm(GRAPH, x[GRAPH.col, 0], x), NODES),
    "lsp": (loss_of(lsp, GRAPH, RBF()), NODES),
    "lsp, Cosine": (loss_of(lsp, GRAPH, Cosine()), NODES),
    "lsp, Laplacian": (loss_of(lsp, GRAPH, Laplacian(2.0)), NODES),
    "gsp": (loss_of(gsp, RBF()), NODES),
    "gsp, Cosine": (loss_of(gsp), NODES),
    "temporal_correlation": (loss_of(temporal_correlation, RBF()), STEPS),
    "spatial_correlation": (loss_of(spatial_correlation, EDGES, RBF()), STEPS),
    **{name: (call_of(name), x) for name, (_, x) in LAYERS.items()},
}
TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": lambda f, x: grad(lambda x: f(x).sum())(x),
    "jacrev": lambda f, x: jacrev(f)(x),
    "jvp": lambda f, x: jvp(f, (x,), (x,))[1],
    "vmap": lambda f, x: vmap(f)(torch.stack([x, 2 * x])),
}


def expected(name: str, f: Callable[[Tensor], Tensor], x: Tensor) -> Any:
    if name == "grad":
        return torch.autograd.functional.jacobian(lambda x: f(x).sum(), x)
    if name == "jacrev":
        return torch.autograd.functional.jacobian(f, x)
    if name == "jvp":
        return torch.autograd.functional.jvp(f, x, x)[1]
    return torch.stack([f(x), f(2 * x)])


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("call", CALLS)
def test_equals_autograd(call: str, transform: str) -> None:
    function, x = CALLS[call]
    given = TRANSFORMS[transform](function, x)
    torch.testing.assert_close(given, expected(transform, function, x))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_each_of_several_layers(name: str) -> None:
    layer, x = LAYERS[name][0].double().eval(), LAYERS[name][1]
    args = () if name in WITHOUT_EDGES else (EDGES,)
    copies = [copy.deepcopy(layer) for _ in range(2)]
    with torch.no_grad():
        for p in copies[1].parameters():
            p.add_(0.1 * torch.randn_like(p))
    weights, buffers = stack_module_state(copies)

    def loss(weights: Any, buffers: Any) -> Tensor:
        return functional_call(layer, (weights, buffers), (x, *args)).square().sum()

    given = vmap(grad(loss))(weights, buffers)
    for i, each in enumerate(copies):
        each(x, *args).square().sum().backward()
        for key, p in each.named_parameters():
            truth = torch.zeros_like(p) if p.grad is None else p.grad
            torch.testing.assert_close(given[key][i], truth)


def test_clouds_of_a_batch_can_be_derived() -> None:
    layer = LAYERS["DynamicEdgeConv"][0].double()
    given = grad(lambda x: layer(x, CLOUDS).square().sum())(NODES)
    x = NODES.clone().requires_grad_()
    layer(x, CLOUDS).square().sum().backward()
    torch.testing.assert_close(given, x.grad)


def test_functional_call() -> None:
    layer = layers.GATConv(3, 2).double()
    other = {name: 2 * value.detach() for name, value in layer.named_parameters()}
    given = functional_call(layer, other, (NODES, EDGES))
    layer.load_state_dict(other)
    torch.testing.assert_close(given, layer(NODES, EDGES))
