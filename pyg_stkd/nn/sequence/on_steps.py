"""Any graph convolution of PyG on sequences."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator

__all__ = ["on_steps"]


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
