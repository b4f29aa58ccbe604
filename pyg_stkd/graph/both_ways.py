"""The edges of a graph in both directions, as one sparse matrix without values."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.graph.graph import Graph

__all__ = ["both_ways"]


def both_ways(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Return CSR arrays of in-edges, out-edges and a loop of each node, and where weights are.

    The last array is the place of each one's weight among those of the edges, then the nodes. All
    are kept with the graph.

    Example:
        >>> pointer, node, place = both_ways(Graph(torch.tensor([[1], [0]])))
        >>> pointer.tolist(), node.tolist(), place.tolist()
        ([0, 2, 4], [1, 0, 0, 1], [0, 1, 0, 2])
    """
    return graph.derived("both ways", lambda: _build(graph))


def _build(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    pointer, col, row = graph.csr()
    pointer_t, row_t, perm = graph.csc()
    num_edges, num_nodes = col.numel(), graph.num_nodes
    if 2 * num_edges + num_nodes >= 2**31:
        pointer, col, pointer_t, row_t = (x.long() for x in (pointer, col, pointer_t, row_t))
    count = torch.arange(num_nodes + 1, dtype=col.dtype, device=col.device)
    edge = torch.arange(num_edges, dtype=col.dtype, device=col.device)
    start = pointer_t[:-1] + count[:-1]  # how much of the other kinds lies before each row
    into = edge + start.index_select(0, row)
    start = pointer[1:] + count[:-1]
    out_of = edge + start.index_select(0, col.index_select(0, perm))
    loop = pointer[1:] + pointer_t[1:] + count[:-1]
    node, place = (col.new_empty(2 * num_edges + num_nodes) for _ in range(2))
    for at, end, weight in (
        (into, col, edge),
        (out_of, row_t, perm.to(col.dtype)),
        (loop, count[:-1], count[:-1] + num_edges),
    ):
        node[at], place[at] = end, weight
    return pointer + pointer_t + count, node, place
