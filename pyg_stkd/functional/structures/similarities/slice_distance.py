"""Squared distances on a graph in each of many slices, slices innermost in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.sparse_ops import weighted_sum
from pyg_stkd.graph import Graph, is_transforming
from pyg_stkd.graph.order import pointers, sort
from pyg_stkd.graph.slices import SliceBlocks
from pyg_stkd.graph.unordered import unordered
from pyg_stkd.kernels import Kernel

__all__ = ["slice_distances", "slices_innermost"]

# From so many slices on, what is done to all slices of an edge at once is done in few, long runs.
_MANY = 16
# So many differences are alive at once, a cache's worth; wider graphs than this are left to
# matrix products, which take 0.4 of the time for 1,664 edges and 64 channels.
_ALIVE, _MOST = 1 << 18, 3 << 17


def slices_innermost(graph: Graph, z: Tensor, kernel: Kernel) -> bool:
    """Tell whether the slices of a graph are best measured by :func:`slice_distances`."""
    if torch.compiler.is_compiling() or is_transforming() or not isinstance(graph, SliceBlocks):
        return False
    return (
        z.device.type == "cpu"
        and graph.num_slices >= _MANY
        and getattr(kernel, "measure", None) == "squared_distance"
        and 0 < graph.base.num_edges * z.size(-1) * _MANY <= _MOST
    )


def slice_distances(graph: Graph, z: Tensor) -> Tensor:
    r"""Return squared distances of both ends of each edge in each slice.

    .. math::
        d_{es} = \lVert \mathbf{z}_{si} - \mathbf{z}_{sj} \rVert^2, \qquad e = (j, i)

    By differences, each pair of nodes once: nothing cancels, as it does in norms and products. No
    array of all edges, slices and channels is built.

    Args:
        graph (Graph): The graph of one slice, not bipartite.
        z (Tensor): Features of the nodes in each slice.

    Shapes:
        - **z:** :math:`(S, N, F)`
        - **output:** :math:`(|\mathcal{E}|, S)`, edges in the graph's order

    Example:
        >>> z = torch.tensor([[[0.0], [1.0]], [[0.0], [3.0]]])
        >>> slice_distances(Graph(torch.tensor([[0], [1]])), z)
        tensor([[1., 9.]])
    """
    pairs, place = unordered(graph)
    if pairs is None:
        return _SliceDistances.apply(z, graph, None)
    return _SliceDistances.apply(z, pairs, place)


class _SliceDistances(torch.autograd.Function):
    """The distances of edges, or those of pairs at the places of edges."""

    @staticmethod
    def forward(ctx, z, graph, place):  # type: ignore[no-untyped-def]
        ctx.graph, ctx.place = graph, place
        ctx.save_for_backward(z)
        out = z.new_empty(graph.num_edges, z.size(0))
        for part, gap in _gaps(graph, z):
            out[:, part] = gap.square_().view(graph.num_edges, z.size(2), -1).sum(dim=1)
        return out if place is None else out.index_select(0, place)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (z,), graph, place = ctx.saved_tensors, ctx.graph, ctx.place
        if torch.is_grad_enabled():  # which can be derived again
            if place is not None:
                grad = grad.new_zeros(graph.num_edges, z.size(0)).index_add(0, place, grad)
            return _gradient(graph, z, grad), None, None
        if place is not None:
            edge, of_pair = _edges_of_pairs(graph, place)
            grad = F.embedding_bag(edge, grad, of_pair, mode="sum", include_last_offset=True)
        pointer, edge, sign = _incidence(graph)
        sign, out = sign.to(z.dtype), torch.empty_like(z, memory_format=torch.contiguous_format)
        for part, slope in _gaps(graph, z):
            shape = graph.num_edges, z.size(2), -1
            slope.view(shape).mul_(grad[:, part].unsqueeze(1))
            of_node = weighted_sum(pointer, edge, sign, slope)  # [N, F * S]
            out[part] = of_node.view(graph.num_nodes * z.size(2), -1).t().view(-1, *z.shape[1:])
        return out, None, None


def _gaps(graph: Graph, z: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield target minus source of each edge, [|E|, F * S], for so many slices as a cache holds.

    They are lost in the next turn: memory that is asked for anew costs more than what is done.
    """
    _, col, row = graph.csr()
    width = graph.num_edges * z.size(2)
    step = max(_MANY, _ALIVE // max(1, width) // _MANY * _MANY)
    ends = [z.new_empty(width * min(step, z.size(0))) for _ in range(2)]
    for start in range(0, z.size(0), step):
        part = slice(start, start + step)
        inner = z[part].flatten(1).t().reshape(graph.num_nodes, -1)  # [N, F * S]
        dst, src = (x[: graph.num_edges * inner.size(1)].view(-1, inner.size(1)) for x in ends)
        torch.index_select(inner, 0, row, out=dst)
        torch.index_select(inner, 0, col, out=src)
        yield part, dst.sub_(src)


def _edges_of_pairs(graph: Graph, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edges of each pair, and pointers to those of each."""

    def build() -> tuple[Tensor, Tensor]:
        pair, edge = sort(place)
        return edge, pointers(pair, graph.num_edges)

    return graph.derived("edges of pairs", build)


def _incidence(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Return the edges at each node, in and out, as pointers and places, and 2 or -2 for each."""
    return graph.derived("incidence", lambda: _incident(graph))


def _incident(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    _, col, row = graph.csr()
    node, perm = sort(torch.cat([row, col]))
    edge = torch.arange(col.numel(), dtype=perm.dtype, device=perm.device).repeat(2)
    sign = torch.full(perm.shape, 2.0, device=perm.device)
    sign[col.numel() :] = -2.0
    pointer = pointers(node, graph.num_nodes).to(perm.dtype)
    return pointer, edge.index_select(0, perm), sign.index_select(0, perm)


def _gradient(graph: Graph, z: Tensor, grad: Tensor) -> Tensor:
    _, col, row = graph.csr()
    inner = z.permute(1, 2, 0)  # [N, F, S]
    slope = 2 * (inner.index_select(0, row) - inner.index_select(0, col)) * grad.unsqueeze(1)
    out = torch.zeros_like(inner).index_add(0, row, slope).index_add(0, col, slope, alpha=-1)
    return out.permute(2, 0, 1)
