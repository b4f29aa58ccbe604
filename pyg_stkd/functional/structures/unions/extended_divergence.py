r"""The divergence of local structures on a union of graphs, from features, with its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.structures.divergences.divergence import Direction
from pyg_stkd.functional.structures.divergences.local_divergence import (
    composes,
    divergence_and_slope,
    local_divergence,
)
from pyg_stkd.functional.structures.similarities.prepared import prepared
from pyg_stkd.functional.structures.similarities.square_distance import pulled, squares
from pyg_stkd.functional.structures.unions.extended_structure import (
    extended_scores,
    scores_of_units,
)
from pyg_stkd.graph import Graph
from pyg_stkd.graph.extended import ExtendedGraph
from pyg_stkd.graph.unordered import pairs_or_edges
from pyg_stkd.kernels import RBF

__all__ = ["extended_divergence"]


def extended_divergence(
    z: Tensor,
    teacher: Tensor,
    graph: ExtendedGraph,
    kernel: RBF,
    direction: Direction = "student",
) -> Tensor:
    r"""Return the divergence of structures of unit vectors from a teacher's, the sum over nodes.

    It is the
    :func:`~pyg_stkd.functional.structures.divergences.local_divergence.local_divergence` of
    :func:`~pyg_stkd.functional.structures.unions.extended_structure.extended_scores`. What both
    nodes of a pair share is computed once, and nothing but a slope for each pair is kept for the
    gradient.

    Args:
        z (Tensor): Node features, not yet normalised.
        teacher (Tensor): The teacher's structure, of
            :func:`~pyg_stkd.functional.structures.unions.extended_structure.extended_structure`.
        graph (ExtendedGraph): The union.
        kernel (RBF): The kernel.
        direction (str): As in :func:`~pyg_stkd.functional.lsp`. (default: :obj:`"student"`)

    Example:
        >>> from pyg_stkd.graph.extended import simple
        >>> z = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
        >>> known = simple(Graph(torch.tensor([[1], [0]]), 3))
        >>> graph = ExtendedGraph(known, Graph(torch.tensor([[2], [0]]), 3))
        >>> t = torch.tensor([0.25, 0.75]).log()
        >>> round(extended_divergence(z, t, graph, RBF()).item(), 4)
        0.0233
    """
    if composes():
        score = extended_scores(z, graph, kernel)
        return local_divergence(_parts(graph), score, teacher, direction, bounded=True)
    unit = prepared(z, kernel, "l2")
    dtype = torch.promote_types(unit.dtype, teacher.dtype)
    teacher = teacher.detach().to(dtype)
    out: Tensor = _ExtendedDivergence.apply(unit.to(dtype), teacher, graph, kernel, direction)
    return out


class _ExtendedDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, unit, teacher, graph, kernel, direction):  # type: ignore[no-untyped-def]
        ctx.graph, ctx.kernel, ctx.direction = graph, kernel, direction
        pairs, place = pairs_or_edges(graph.known)
        (square, more), moved, ctx.lost = squares((pairs, graph.more), unit)
        if square.numel() + more.numel() == 0:
            ctx.save_for_backward(unit, teacher, moved, square, more)
            return unit.new_zeros(())
        rate = kernel.rate(torch.cat([_at(square, place), more]))
        square, more = square.mul_(rate).exp_(), more.mul_(rate).exp_()
        score = torch.cat([_at(square, place), more])
        value, slope = divergence_and_slope(_parts(graph), score, teacher, direction)
        if ctx.needs_input_grad[0]:
            of_known, of_more = slope.split([graph.known.num_edges, more.numel()])
            if place is not None:
                of_known = torch.zeros_like(square).index_add_(0, place, of_known)
            slopes = square.mul_(of_known).mul_(rate), more.mul_(of_more).mul_(rate)
            ctx.save_for_backward(unit, teacher, moved, *slopes)
        return value

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (unit, teacher, moved, *slopes), graph = ctx.saved_tensors, ctx.graph
        if torch.is_grad_enabled():  # which can be derived again
            score = scores_of_units(unit, graph, ctx.kernel)
            value = local_divergence(_parts(graph), score, teacher, ctx.direction, bounded=True)
            (out,) = torch.autograd.grad(value, unit, grad, create_graph=True)
        else:
            parts = pairs_or_edges(graph.known)[0], graph.more
            out, more = (
                pulled(part, unit, moved, slope * grad, lost)
                for part, slope, lost in zip(parts, slopes, ctx.lost, strict=True)
            )
            out.add_(more)
        return out, None, None, None, None


def _parts(graph: ExtendedGraph) -> tuple[Graph, Graph]:
    return graph.known, graph.more


def _at(value: Tensor, place: Tensor | None) -> Tensor:
    """Return the values of edges, given those of their pairs."""
    return value if place is None else value.index_select(0, place)
