"""What forecasts depend on, of a model of which it is known."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph import Graph
from pyg_stkd.report.interpretation.occlusion import occlude

EDGES = torch.tensor([[0, 1, 2], [1, 2, 2]])
WEIGHT = torch.tensor([2.0, 0.5, 3.0])


def forecast(x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    """Two horizons: the last readings of the neighbours, weighted, and that of the node itself."""
    last = x[:, -1, :, 0]
    weight = torch.ones(edges.size(1)) if weight is None else weight
    near = torch.zeros_like(last).index_add(1, edges[1], last[:, edges[0]] * weight)
    return torch.stack([near, last], dim=1)


def test_influence_is_the_change_of_the_forecasts() -> None:
    x = torch.randn(5, 4, 3, 2)
    graph = Graph(EDGES, 3)
    found = occlude(forecast, x, graph, WEIGHT)
    off = (x[:, -1, :, 0] - x[..., 0].mean((0, 1))).abs().mean(0)  # [N]
    own = off / 2  # of two horizons
    expected = torch.zeros(3, 3)
    expected[0, 0], expected[0, 1] = own[0], 2.0 * own[0]
    expected[1, 1], expected[1, 2] = own[1], 0.5 * own[1]
    expected[2, 2] = (3.0 + 1.0) * own[2]
    torch.testing.assert_close(found.nodes, expected)
    assert (found.steps[:3] == 0).all()
    assert found.steps[3] > 0
    size = x[:, -1, :, 0].abs().mean(0)
    cut = torch.stack([2.0 * size[0], 0.5 * size[1], 3.0 * size[2]]) / 6  # horizons and nodes
    torch.testing.assert_close(found.edges, cut)


def test_edges_may_have_no_weights() -> None:
    x = torch.randn(2, 4, 3, 1)
    found = occlude(forecast, x, Graph(EDGES, 3), None)
    ones = occlude(forecast, x, Graph(EDGES, 3), torch.ones(3))
    torch.testing.assert_close(found.edges, ones.edges)


def test_a_graph_may_have_no_edges() -> None:
    found = occlude(forecast, torch.randn(2, 4, 3, 1), Graph(EDGES[:, :0], 3), None)
    assert found.edges.shape == (0,)
    assert found.nodes.shape == (3, 3)
