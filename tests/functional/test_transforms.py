"""What torch.func makes of functions and layers: the right values, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vmap

import pyg_stkd.nn as layers
from pyg_stkd.functional import gsp, lsp, spmm
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 0]])
GRAPH = Graph(EDGES, 5)
NODES = torch.randn(5, 3, dtype=torch.float64)
STEPS = torch.randn(2, 6, 5, 3, dtype=torch.float64)
EDGE_NETWORK = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
CALLS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "spmm": (lambda x: spmm(GRAPH, x[GRAPH.col, 0], x), NODES),
    "lsp": (lambda x: lsp(x, NODES + 1.5 * NODES.roll(1, 0), GRAPH, RBF()), NODES),
    "gsp": (lambda x: gsp(x, NODES.roll(1, 0), RBF()), NODES),
    **{
        name: (lambda x, layer=layer: layer(x, EDGES), x)
        for name, layer, x in (
            ("GATConv", layers.GATConv(3, 2).double(), NODES),
            ("EdgeConv", layers.EdgeConv(EDGE_NETWORK).double(), NODES),
            ("ChebConv", layers.ChebConv(3, 2, 3).double(), STEPS),
        )
    },
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
def test_right_or_refused(call: str, transform: str) -> None:
    function, x = CALLS[call]
    try:
        given = TRANSFORMS[transform](function, x)
    except RuntimeError as error:
        # torch's own word for operators that know no transforms.
        assert "setup_context" in str(error) or "functorch" in str(error)  # noqa: PT017
        return
    torch.testing.assert_close(given, expected(transform, function, x))


def test_functional_call() -> None:
    layer = layers.GATConv(3, 2).double()
    other = {name: 2 * value.detach() for name, value in layer.named_parameters()}
    given = functional_call(layer, other, (NODES, EDGES))
    layer.load_state_dict(other)
    torch.testing.assert_close(given, layer(NODES, EDGES))
