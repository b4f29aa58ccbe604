"""Self-loops of a graph, left out or added."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph.graph import Graph

__all__ = ["add_loops", "drop_loops"]


def drop_loops(graph: Graph) -> Graph:
    """Return the graph without its self-loops."""
    col, row = graph.edge_index
    return _of(graph, graph.edge_index[:, col != row])


def add_loops(graph: Graph) -> Graph:
    """Return the graph with a self-loop at each node that has none; duplicates stay."""
    col, row = graph.edge_index
    bare = torch.ones(graph.num_nodes, dtype=torch.bool, device=graph.device)
    bare[row[col == row]] = False
    loops = bare.nonzero().view(-1).expand(2, -1)
    return _of(graph, torch.cat([graph.edge_index, loops], dim=1))


def _of(graph: Graph, edge_index: Tensor) -> Graph:
    out = Graph(edge_index, graph.size)
    out.lasting = graph.lasting
    return out
