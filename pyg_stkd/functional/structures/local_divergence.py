r"""The divergence of local structures from scores, values and gradient in few passes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.primitives import segment_log_softmax, segment_sum
from pyg_stkd.functional.sparse.sparse_ops import SegmentLogSoftmax, reduce_segments
from pyg_stkd.functional.structures.divergence import Direction, divergence
from pyg_stkd.graph import Graph, wants_plain

__all__ = ["local_divergence", "structure_of_scores"]


def structure_of_scores(graph: Graph, score: Tensor, bounded: bool = False) -> Tensor:
    r"""Return the logarithm of the softmax of scores over the in-edges of each node.

    Args:
        graph (Graph): The edges.
        score (Tensor): A score for each edge, in the graph's order.
        bounded (bool): Whether all are known to lie in :math:`[0, 1]`: their exponentials are
            added as they are then, without a look for the largest. (default: :obj:`False`)

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> structure_of_scores(graph, torch.tensor([0.5, 0.5]), bounded=True).exp()
        tensor([0.5000, 0.5000])
    """
    if not bounded or wants_plain():
        return segment_log_softmax(graph, score)
    pointer, _, row = graph.csr()
    if torch.compiler.is_compiling() or (score.requires_grad and torch.is_grad_enabled()):
        return SegmentLogSoftmax.apply(score, pointer, row, True)
    return _bounded(score, pointer.long(), row)


def local_divergence(
    graph: Graph,
    score: Tensor,
    teacher: Tensor,
    direction: Direction = "student",
    *,
    bounded: bool = False,
    total: bool = True,
) -> Tensor:
    r"""Return the divergence of a softmax over the in-edges of each node from a structure.

    With :math:`\log \mathbf{p} = \mathrm{log\_softmax}(\mathbf{s})`, the gradient of
    :math:`K_i = \sum_j p_{ij} \, (\log p_{ij} - \log q_{ij})` is :math:`p_{ij} \, (\log p_{ij} -
    \log q_{ij} - K_i)`: what the forward pass has in hand.

    Args:
        graph (Graph): The edges.
        score (Tensor): The student's scores, of which the softmax is taken.
        teacher (Tensor): The teacher's structure, as logarithms, a constant.
        direction (str): As in :func:`~pyg_stkd.functional.lsp`. (default: :obj:`"student"`)
        bounded (bool): As in :func:`structure_of_scores`. (default: :obj:`False`)
        total (bool): Whether to return the sum over the nodes, not each. (default: :obj:`True`)

    Shapes:
        - **score**, **teacher:** :math:`(|\mathcal{E}|)`, in the graph's order, or
          :math:`(|\mathcal{E}|, S)` in as many slices of it
        - **output:** a scalar, or :math:`(N)`, or :math:`(N, S)`

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> s, t = torch.tensor([0.0, 0.0]), torch.tensor([0.25, 0.75]).log()
        >>> round(local_divergence(graph, s, t).item(), 4)
        0.1438
    """
    dtype = torch.promote_types(score.dtype, teacher.dtype)
    score, teacher = score.to(dtype), teacher.detach().to(dtype)
    if _composes():
        return _composed(graph, score, teacher, direction, bounded, total)
    return _LocalDivergence.apply(score, teacher, graph, direction, bounded, total)


def _composes() -> bool:
    """Whether torch's own derivatives are wanted, of an expression that a compiler fuses."""
    return torch.compiler.is_compiling() or wants_plain()


def _composed(
    graph: Graph,
    score: Tensor,
    teacher: Tensor,
    direction: Direction,
    bounded: bool,
    total: bool,
) -> Tensor:
    term = divergence(structure_of_scores(graph, score, bounded), teacher, direction)
    return term.sum() if total else segment_sum(graph, term)


def _bounded(score: Tensor, pointer: Tensor, row: Tensor) -> Tensor:
    """Return the same without derivatives, in the fewest calls."""
    return score - _sums(pointer, score.exp()).log_().index_select(0, row)


class _LocalDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, score, teacher, graph, direction, bounded, total):  # type: ignore[no-untyped-def]
        pointer, _, row = graph.csr()
        pointer = pointer.long()  # once for all sums
        if bounded:
            log_p = _bounded(score, pointer, row)
        else:
            log_p = torch.ops.pyg_stkd.segment_log_softmax(pointer, row, score)
        if direction == "student":
            other = log_p - teacher
            p = log_p.exp_()
            of_node = node = _sums(pointer, other.mul_(p))
        else:
            other = teacher.exp()
            node = _sums(pointer, (teacher - log_p).mul_(other))
            p, of_node = log_p.exp_(), _sums(pointer, other)
        ctx.graph, ctx.direction, ctx.bounded, ctx.total = graph, direction, bounded, total
        ctx.save_for_backward(score, teacher, p, other, of_node)
        return node.sum() if total else node.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        score, teacher, p, other, of_node = ctx.saved_tensors
        if torch.is_grad_enabled():  # which can be derived again
            options = ctx.direction, ctx.bounded, ctx.total
            value = _composed(ctx.graph, score, teacher, *options)
            (slope,) = torch.autograd.grad(value, score, grad, create_graph=True)
        else:
            row = ctx.graph.csr()[2]
            slope = of_node.index_select(0, row).mul_(p)
            if ctx.direction == "student":
                torch.sub(other, slope, out=slope)
            else:
                slope.sub_(other)
            slope.mul_(grad if ctx.total else grad.index_select(0, row))
        return slope, None, None, None, None, None


def _sums(pointer: Tensor, value: Tensor) -> Tensor:
    if value.dim() == 2 and value.numel() > 0 and value.device.type == "cpu":  # whole rows at once
        row = torch.arange(value.size(0))
        return F.embedding_bag(row, value, pointer, mode="sum", include_last_offset=True)
    return reduce_segments(pointer, value, "sum")
