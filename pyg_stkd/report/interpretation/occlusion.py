"""What a forecaster looks at: how its forecasts change when a part of its input is taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyg_stkd.graph import Graph

__all__ = ["Influence", "occlude"]

# A model on sequences, edges and weights.
Forecast = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Influence:
    r"""By how much forecasts change when something is taken away, as a mean absolute difference.

    Args:
        nodes (Tensor): The change at each node (columns) when another one (rows) shows nothing but
            its mean, :math:`(N, N)`.
        steps (Tensor): The change when all nodes show their means at a step, :math:`(T)`.
        edges (Tensor): The change when an edge is left out, :math:`(|\mathcal{E}|)`.
    """

    nodes: Tensor
    steps: Tensor
    edges: Tensor


@torch.no_grad()
def occlude(forecast: Forecast, x: Tensor, graph: Graph, weight: Tensor | None) -> Influence:
    r"""Return the influence of each node, time step and edge on forecasts.

    What is taken away is replaced by the mean of the node over all sequences and steps. There are
    :math:`N + T + |\mathcal{E}|` calls.

    Args:
        forecast (callable): The model, in eval mode.
        x (Tensor): Sequences.
        graph (Graph): The edges.
        weight (Tensor, optional): Their weights, in the graph's order.

    Shapes:
        - **x:** :math:`(B, T, N, C)`
        - **output** of the model: :math:`(B, C', N)`
    """
    edges, count = graph.edge_index, graph.edge_index.size(1)
    usual = x.mean((0, 1))  # [N, C]
    before = forecast(x, edges, weight)

    def change(after: Tensor) -> Tensor:
        return (after - before).abs().mean((0, 1))  # [N]

    nodes = []
    for node in range(x.size(2)):
        hidden = x.clone()
        hidden[:, :, node] = usual[node]
        nodes.append(change(forecast(hidden, edges, weight)))
    steps = []
    for step in range(x.size(1)):
        hidden = x.clone()
        hidden[:, step] = usual
        steps.append(change(forecast(hidden, edges, weight)).mean())
    without = []
    for edge in range(count):
        left = torch.arange(count, device=x.device) != edge
        less = None if weight is None else weight[left]
        without.append(change(forecast(x, edges[:, left], less)).mean())
    empty = x.new_zeros(0)
    return Influence(*(torch.stack(part) if part else empty for part in (nodes, steps, without)))
