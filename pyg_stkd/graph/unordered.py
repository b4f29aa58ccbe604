"""The pairs of nodes that edges connect, whatever their direction."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph.graph import Graph

__all__ = ["kept_pairs", "pairs_or_edges", "unordered"]

# Up to which share of pairs among the edges it pays to look at pairs in their place.
_FEW = 0.9


def unordered(graph: Graph) -> tuple[Graph | None, Tensor]:
    """Return a graph of one edge for each pair of nodes, and the place in it of each edge's pair.

    What is the same in both directions, such as a distance, is computed once for both on it. Where
    hardly any edge has a counterpart there is no such graph: it is :obj:`None`. Both are kept with
    the graph.

    Example:
        >>> pairs, place = unordered(Graph(torch.tensor([[1, 0, 2], [0, 1, 2]])))
        >>> pairs.edge_index.tolist(), place.tolist()
        ([[0, 2], [1, 2]], [0, 0, 1])
    """
    return graph.derived("unordered", lambda: _build(graph))


def pairs_or_edges(graph: Graph) -> tuple[Graph, Tensor | None]:
    """Return the same, or where hardly any edge has a counterpart the graph itself, and no places.

    Example:
        >>> pairs_or_edges(Graph(torch.tensor([[1], [0]])))[1] is None
        True
    """
    pairs, place = unordered(graph)
    return (graph, None) if pairs is None else (pairs, place)


def kept_pairs(graph: Graph) -> tuple[Graph | None, Tensor | None]:
    """Return the same if it was made before, else nothing."""
    found: tuple[Graph | None, Tensor] | None = graph.kept("unordered")
    return (None, None) if found is None else found


def _build(graph: Graph) -> tuple[Graph | None, Tensor]:
    _, col, row = graph.csr()
    num_nodes = max(graph.size)
    if num_nodes**2 >= 2**31:
        col, row = col.long(), row.long()
    key, perm = (torch.maximum(col, row) * num_nodes + torch.minimum(col, row)).sort()
    first = torch.ones_like(key, dtype=torch.bool)
    torch.ne(key[1:], key[:-1], out=first[1:])
    place = torch.empty_like(perm)
    place[perm] = first.cumsum(0) - 1
    key = key[first]
    if key.numel() > _FEW * first.numel():
        return None, place
    high = torch.div(key, max(1, num_nodes), rounding_mode="floor")
    return Graph(torch.stack([key - high * num_nodes, high]).long(), num_nodes), place
