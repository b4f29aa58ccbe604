"""Squared distances on a graph in each of many slices, slices innermost in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.sparse_ops import weighted_sum
from pyg_stkd.graph import Graph, is_transforming
from pyg_stkd.graph.order import pointers, sort
from pyg_stkd.graph.slices import SliceBlocks
from pyg_stkd.graph.unordered import unordered
from pyg_stkd.kernels import Kernel

__all__ = [
    "slices_last",
    "pair_gradient",
    "pair_squares",
    "slice_distances",
    "slices_innermost",
    "sum_by_pair",
]

# From so many slices on, what is done to all slices of an edge at once is done in few, long runs.
_MANY = 16
# Graphs with more differences in so many slices are left to matrix products, which take 0.4 of the
# time for 1,664 edges and 64 channels.
_MOST = 3 << 17
# So many differences of one channel are alive at once, a part of a cache.
_ALIVE = 1 << 18


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
    return _SliceDistances.apply(
        z, graph if pairs is None else pairs, None if pairs is None else place
    )


def slices_last(graph: Graph, z: Tensor) -> list[Tensor]:
    """Return features [S, N, F] as [F, N, S], for so many slices in turn as a cache holds.

    Example:
        >>> graph = Graph(torch.tensor([[0], [1]]))
        >>> [x.shape for x in slices_last(graph, torch.ones(5, 2, 3))]
        [torch.Size([3, 2, 5])]
    """
    parts = -(-z.size(0) * graph.num_edges // _ALIVE)
    parts = max(1, min(parts, z.size(0) // _MANY))
    return [part.permute(2, 1, 0).contiguous() for part in z.tensor_split(parts)]


def pair_squares(graph: Graph, inner: Sequence[Tensor]) -> Tensor:
    """Return the squared distances of edges in slices, [|E|, S], of :func:`slices_last`."""
    out = []
    for part in inner:
        total = part.new_zeros(graph.num_edges, part.size(2))
        for gap in _gaps(graph, part):  # of which one is alive at a time
            total.addcmul_(gap, gap)
        out.append(total)
    return out[0] if len(out) == 1 else torch.cat(out, dim=1)


def pair_gradient(graph: Graph, inner: Sequence[Tensor], grad: Tensor) -> Tensor:
    """Return the gradient of features [S, N, F], given that of :func:`pair_squares`."""
    pointer, edge, sign = _incidence(graph)
    width, num_nodes, _ = inner[0].shape
    sign, sizes = sign.to(grad.dtype), [part.size(2) for part in inner]
    out = grad.new_empty(grad.size(1), num_nodes, width)
    for part, slope, found in zip(inner, grad.split(sizes, dim=1), out.split(sizes), strict=True):
        of_node = torch.empty_like(part)
        for k, gap in enumerate(_gaps(graph, part)):
            of_node[k] = weighted_sum(pointer, edge, sign, gap.mul_(slope))
        found.copy_(of_node.permute(2, 1, 0))
    return out


def sum_by_pair(graph: Graph, place: Tensor | None, value: Tensor) -> Tensor:
    """Return the sums of what belongs to the edges of each pair, [P, S], of [|E|, S]."""
    if place is None:
        return value
    edge, of_pair = _edges_of_pairs(graph, place)
    return F.embedding_bag(edge, value, of_pair, mode="sum", include_last_offset=True)


class _SliceDistances(torch.autograd.Function):
    """The distances of edges, or those of pairs at the places of edges."""

    @staticmethod
    def forward(ctx, z, graph, place):  # type: ignore[no-untyped-def]
        ctx.graph, ctx.place = graph, place
        inner = slices_last(graph, z)
        ctx.save_for_backward(z, *inner)
        out = pair_squares(graph, inner)
        return out if place is None else out.index_select(0, place)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (z, *inner), graph, place = ctx.saved_tensors, ctx.graph, ctx.place
        if torch.is_grad_enabled():  # which can be derived again
            if place is not None:
                grad = grad.new_zeros(graph.num_edges, z.size(0)).index_add(0, place, grad)
            return _gradient(graph, z, grad), None, None
        return pair_gradient(graph, inner, sum_by_pair(graph, place, grad)), None, None


def _gaps(graph: Graph, inner: Tensor) -> Iterator[Tensor]:
    """Yield target minus source of each edge in each slice, [|E|, S], for each channel."""
    pointer, node, sign = graph.derived("ends", lambda: _ends(graph))
    sign = sign.to(inner.dtype)
    for channel in inner:
        yield weighted_sum(pointer, node, sign, channel)


def _ends(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """Return both nodes of each edge, as pointers and places, and 1 or -1 for each."""
    _, col, row = graph.csr()
    node = torch.stack([row, col], dim=1).flatten()
    pointer = torch.arange(0, node.numel() + 1, 2, dtype=node.dtype, device=node.device)
    return pointer, node, torch.tensor([1.0, -1.0], device=node.device).repeat(col.numel())


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
