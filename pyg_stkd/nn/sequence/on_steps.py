"""Graph convolutions on sequences: any layer of PyG, and a graph of its own for each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator

__all__ = ["check_each_step", "last_steps", "on_each_step", "on_steps"]


def on_steps(conv: nn.Module, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> Tensor:
    """Run a layer of PyG once on [B, T, N, C], the time steps as disjoint copies of the graph."""
    if isinstance(edge_index, GraphOperator):
        raise TypeError(f"'edge_index' must hold edges for {conv} (got a GraphOperator)")
    num_nodes, num_steps = x.size(2), x.size(0) * x.size(1)
    edges, weight = edge_index, edge_weight
    if not isinstance(edges, Tensor) or edges.layout != torch.strided:
        graph = Graph.of(Graph.of(edges), num_nodes)
        edges = graph.edge_index
        weight = graph.value if edge_weight is None else edge_weight
    Graph.of(edges, num_nodes)  # checks the range: a copy must not reach into the next
    offset = torch.arange(num_steps, device=x.device) * num_nodes
    edges = (edges[:, None] + offset[:, None]).flatten(1)  # [2, S * E]
    kwargs = {}
    if weight is not None:
        if "edge_weight" not in inspect.signature(conv.forward).parameters:
            raise ValueError(f"'edge_weight' must be None for {conv}, which takes no weights")
        kwargs["edge_weight"] = weight.repeat(num_steps)
    out = conv(x.reshape(num_steps * num_nodes, -1), edges, **kwargs)
    return out.view(*x.shape[:3], -1)


def on_each_step(
    run: Callable[[Tensor, Any, Tensor | None], Tensor], x: Tensor, edges: Any, weights: Any
) -> Tensor:
    """Run a layer on [B, T, N, C], each step on its own graph; steps of one graph run together."""
    weights = [None] * len(edges) if weights is None else weights
    groups: dict[tuple[int, int], list[int]] = {}
    for step, pair in enumerate(zip(edges, weights, strict=True)):
        groups.setdefault((id(pair[0]), id(pair[1])), []).append(step)
    outs, order = [], []
    for steps in groups.values():
        index = torch.tensor(steps, device=x.device)
        outs.append(run(x.index_select(1, index), edges[steps[0]], weights[steps[0]]))
        order += steps
    place = torch.tensor(order, device=x.device).argsort()
    return torch.cat(outs, dim=1).index_select(1, place)


def check_each_step(edges: Any, weights: Any, num_steps: int) -> None:
    """Raise unless there is a graph, and weights if any, for each of the steps."""
    for name, given in (("edge_index", edges), ("edge_weight", weights)):
        if given is None and name == "edge_weight":
            continue
        if not isinstance(given, (list, tuple)) or len(given) != num_steps:
            shown = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(
                f"'{name}' must have one item for each of the {num_steps} steps, where "
                f"'edge_index' is a list (got {shown})"
            )


def last_steps(given: Any, num_steps: int) -> Any:
    """Return the items of the last steps where there is one for each, else what is given."""
    return given[len(given) - num_steps :] if isinstance(given, (list, tuple)) else given
