r"""The divergence of local structures in many slices, from features, with its gradient at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.structures.divergences.divergence import Direction
from pyg_stkd.functional.structures.divergences.local_divergence import local_divergence
from pyg_stkd.functional.structures.similarities.prepared import mapped
from pyg_stkd.functional.structures.similarities.slice_distance import (
    pair_gradient,
    pair_squares,
    slice_distances,
    slices_last,
    sum_by_pair,
)
from pyg_stkd.graph import Graph
from pyg_stkd.graph.unordered import pairs_or_edges
from pyg_stkd.kernels import RBF

__all__ = ["slice_divergence"]

# So many similarities of edges are alive at once, a part of a cache.
_ALIVE = 1 << 18


def slice_divergence(
    graph: Graph, z: Tensor, teacher: Tensor, kernel: RBF, direction: Direction = "student"
) -> Tensor:
    r"""Return the divergences of structures from those of a teacher, the sum over nodes and slices.

    It is the
    :func:`~pyg_stkd.functional.structures.divergences.local_divergence.local_divergence` of
    similarities of :func:`slice_distances`. What both nodes of a pair share is computed once, and
    nothing but a slope for each pair is kept for the gradient.

    Args:
        graph (Graph): The graph of one slice, not bipartite.
        z (Tensor): Features of the nodes in each slice, as the kernel compares them.
        teacher (Tensor): The teacher's structures, as logarithms, a constant.
        kernel (RBF): The kernel.
        direction (str): As in :func:`~pyg_stkd.functional.lsp`. (default: :obj:`"student"`)

    Shapes:
        - **z:** :math:`(S, N, F)`, of which none is 0
        - **teacher:** :math:`(|\mathcal{E}|, S)`, in the graph's order
        - **output:** a scalar

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> z, t = torch.tensor([[[0.0], [1.0], [1.0]]]), torch.tensor([[0.25], [0.75]]).log()
        >>> round(slice_divergence(graph, z, t, RBF()).item(), 4)
        0.1438
    """
    dtype = torch.promote_types(z.dtype, teacher.dtype)
    z, teacher = z.to(dtype), teacher.detach().to(dtype)
    out: Tensor = _SliceDivergence.apply(z, teacher, graph, kernel, direction)
    return out


class _SliceDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, teacher, graph, kernel, direction):  # type: ignore[no-untyped-def]
        ctx.graph, ctx.kernel, ctx.direction = graph, kernel, direction
        pairs, place = pairs_or_edges(graph)
        inner = slices_last(pairs, z)
        square = pair_squares(pairs, inner)  # [P, S]
        rate = kernel.rate(square if place is None else square.index_select(0, place))
        each = -(-graph.num_edges * square.size(1) // _ALIVE)
        found = [
            _of_pairs(pairs, place, graph, *parts, rate, direction, ctx.needs_input_grad[0])
            for parts in zip(
                square.tensor_split(each, dim=1), teacher.tensor_split(each, dim=1), strict=True
            )
        ]
        values, slopes = zip(*found, strict=True)
        if ctx.needs_input_grad[0]:
            slope = slopes[0] if each == 1 else torch.cat(slopes, dim=1)
            ctx.save_for_backward(z, teacher, slope, *inner)
        return values[0] if each == 1 else torch.stack(values).sum()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, teacher, slope, *inner = ctx.saved_tensors
        if torch.is_grad_enabled():  # which can be derived again
            score = mapped(ctx.kernel, slice_distances(ctx.graph, z))
            value = local_divergence(ctx.graph, score, teacher, ctx.direction, bounded=True)
            (out,) = torch.autograd.grad(value, z, grad, create_graph=True)
        else:
            out = pair_gradient(pairs_or_edges(ctx.graph)[0], inner, slope * grad)
        return out, None, None, None, None


def _of_pairs(
    pairs: Graph,
    place: Tensor | None,
    graph: Graph,
    square: Tensor,
    teacher: Tensor,
    rate: Tensor | float,
    direction: Direction,
    derive: bool,
) -> tuple[Tensor, Tensor]:
    """Return the divergence in some slices, and its slope at each squared distance of a pair."""
    pointer, _, row = graph.csr()
    score = (square * rate).exp_()  # [P, S]
    weight = score.exp()
    total = _sums(pointer, place, weight)  # [N, S]
    p = _at(weight, place).mul_(total.reciprocal().index_select(0, row))  # [|E|, S]
    log_p = _at(score, place).sub_(total.log().index_select(0, row))
    if direction == "student":
        slope = log_p.sub_(teacher).mul_(p)
        of_node = _sums(pointer, None, slope)
        value = of_node.sum()
        slope.sub_(p.mul_(of_node.index_select(0, row)))
    else:
        other = teacher.exp()
        of_node = _sums(pointer, None, other)
        value = torch.sub(teacher, log_p, out=log_p).mul_(other).sum()
        slope = p.mul_(of_node.index_select(0, row)).sub_(other)
    if not derive:
        return value, value
    return value, sum_by_pair(pairs, place, slope) * score.mul_(rate)


def _at(value: Tensor, place: Tensor | None) -> Tensor:
    """Return the values of edges, of those of their pairs, in memory of their own."""
    return value.clone() if place is None else value.index_select(0, place)


def _sums(pointer: Tensor, place: Tensor | None, value: Tensor) -> Tensor:
    """Return sums over the edges of each node, of values of edges or of their pairs."""
    if place is None:
        place = torch.arange(value.size(0), dtype=pointer.dtype)
    pointer = pointer.to(place.dtype)
    return F.embedding_bag(place, value, pointer, mode="sum", include_last_offset=True)
