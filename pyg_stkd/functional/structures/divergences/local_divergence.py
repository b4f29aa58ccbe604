r"""The divergence of local structures from scores, values and gradient in few passes."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.primitives import segment_log_softmax, segment_sum
from pyg_stkd.functional.sparse.sparse_ops import SegmentLogSoftmax, reduce_segments
from pyg_stkd.functional.structures.divergences.divergence import Direction, divergence
from pyg_stkd.graph import Graph, wants_plain

__all__ = ["Edges", "composes", "divergence_and_slope", "local_divergence", "structure_of_scores"]

# A graph, or several on the same nodes: their edges are those of one after another.
Edges: TypeAlias = Graph | tuple[Graph, ...]


def structure_of_scores(graph: Edges, score: Tensor, bounded: bool = False) -> Tensor:
    r"""Return the logarithm of the softmax of scores over the in-edges of each node.

    Args:
        graph (Graph or tuple of Graph): The edges; with several graphs on the same nodes, those of
            all, one after another.
        score (Tensor): A score for each edge, in this order.
        bounded (bool): Whether all are known to lie in :math:`[0, 1]`: their exponentials are
            added as they are then, without a look for the largest. (default: :obj:`False`)

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> structure_of_scores(graph, torch.tensor([0.5, 0.5]), bounded=True).exp()
        tensor([0.5000, 0.5000])
    """
    derives = score.requires_grad and torch.is_grad_enabled()
    if isinstance(graph, tuple) and (not bounded or derives or composes()):
        graph, perm = _joined(graph)
        out = structure_of_scores(graph, score.index_select(0, perm), bounded)
        return torch.empty_like(out).index_copy(0, perm, out)
    if isinstance(graph, tuple):
        return _bounded(score, *_index(graph))
    if not bounded or wants_plain():
        return segment_log_softmax(graph, score)
    if torch.compiler.is_compiling() or derives:
        pointer, _, row = graph.csr()
        return SegmentLogSoftmax.apply(score, pointer, row, True)
    return _bounded(score, *_index(graph))


def local_divergence(
    graph: Edges,
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
        graph (Graph or tuple of Graph): As in :func:`structure_of_scores`.
        score (Tensor): The student's scores, of which the softmax is taken.
        teacher (Tensor): The teacher's structure, as logarithms, a constant.
        direction (str): As in :func:`~pyg_stkd.functional.lsp`. (default: :obj:`"student"`)
        bounded (bool): As in :func:`structure_of_scores`. (default: :obj:`False`)
        total (bool): Whether to return the sum over the nodes, not each. (default: :obj:`True`)

    Shapes:
        - **score**, **teacher:** :math:`(|\mathcal{E}|)`, in the order of the edges, or
          :math:`(|\mathcal{E}|, S)` in as many slices of them
        - **output:** a scalar, or :math:`(N)`, or :math:`(N, S)`

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> s, t = torch.tensor([0.0, 0.0]), torch.tensor([0.25, 0.75]).log()
        >>> round(local_divergence(graph, s, t).item(), 4)
        0.1438
    """
    dtype = torch.promote_types(score.dtype, teacher.dtype)
    score, teacher = score.to(dtype), teacher.detach().to(dtype)
    if isinstance(graph, tuple) and not bounded:
        graph, perm = _joined(graph)
        score, teacher = score.index_select(0, perm), teacher.index_select(0, perm)
    if composes():
        return _composed(graph, score, teacher, direction, bounded, total)
    return _LocalDivergence.apply(score, teacher, graph, direction, bounded, total)


def divergence_and_slope(
    graph: Edges, score: Tensor, teacher: Tensor, direction: Direction
) -> tuple[Tensor, Tensor]:
    """Return the same of bounded scores, the sum over the nodes, and its slope at each score.

    Neither has derivatives.

    Example:
        >>> graph = Graph(torch.tensor([[1, 2], [0, 0]]))
        >>> s, t = torch.tensor([0.0, 0.0]), torch.tensor([0.25, 0.75]).log()
        >>> value, slope = divergence_and_slope(graph, s, t, "teacher")
        >>> round(value.item(), 4), slope
        (0.1308, tensor([ 0.2500, -0.2500]))
    """
    node, *kept = _of_nodes(graph, score, teacher, direction, bounded=True)
    return node.sum(), _slope(direction, *kept)


def composes() -> bool:
    """Whether torch's own derivatives are wanted, of an expression that a compiler fuses."""
    return torch.compiler.is_compiling() or wants_plain()


def _joined(graphs: tuple[Graph, ...]) -> tuple[Graph, Tensor]:
    """Return one graph of the edges of several, and where each of them is among these."""
    graph = Graph(torch.cat([each.edge_index for each in graphs], dim=1), graphs[0].size)
    return graph, graph.perm


def _composed(
    graph: Edges,
    score: Tensor,
    teacher: Tensor,
    direction: Direction,
    bounded: bool,
    total: bool,
) -> Tensor:
    if isinstance(graph, tuple):
        graph, perm = _joined(graph)
        score, teacher = score.index_select(0, perm), teacher.index_select(0, perm)
    term = divergence(structure_of_scores(graph, score, bounded), teacher, direction)
    return term.sum() if total else segment_sum(graph, term)


def _index(graph: Edges) -> tuple[list[Tensor], Tensor]:
    """Return the pointers of each graph, 64 bits once for all sums, and the targets of all."""
    arrays = [each.csr() for each in (graph if isinstance(graph, tuple) else (graph,))]
    rows = [row for _, _, row in arrays]
    row = rows[0] if len(rows) == 1 else torch.cat(rows)
    return [pointer.long() for pointer, *_ in arrays], row


def _bounded(score: Tensor, pointers: list[Tensor], row: Tensor) -> Tensor:
    """Return the same without derivatives, in the fewest calls."""
    return score - _sums(pointers, score.exp()).log_().index_select(0, row)


class _LocalDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, score, teacher, graph, direction, bounded, total):  # type: ignore[no-untyped-def]
        node, *kept = _of_nodes(graph, score, teacher, direction, bounded)
        ctx.graph, ctx.direction, ctx.bounded, ctx.total = graph, direction, bounded, total
        ctx.save_for_backward(score, teacher, *kept)
        return node.sum() if total else node.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        score, teacher, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # which can be derived again
            options = ctx.direction, ctx.bounded, ctx.total
            value = _composed(ctx.graph, score, teacher, *options)
            (slope,) = torch.autograd.grad(value, score, grad, create_graph=True)
        else:
            slope = _slope(ctx.direction, *kept)
            slope.mul_(grad if ctx.total else grad.index_select(0, kept[-1]))
        return slope, None, None, None, None, None


def _of_nodes(
    graph: Edges, score: Tensor, teacher: Tensor, direction: Direction, bounded: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the divergence of each node, and of what :func:`_slope` makes its slopes."""
    pointers, row = _index(graph)
    if bounded:
        log_p = _bounded(score, pointers, row)
    else:
        log_p = torch.ops.pyg_stkd.segment_log_softmax(pointers[0], row, score)
    if direction == "student":
        other = log_p - teacher
        p = log_p.exp_()
        of_node = node = _sums(pointers, other.mul_(p))
    else:
        other = teacher.exp()
        node = _sums(pointers, (teacher - log_p).mul_(other))
        p, of_node = log_p.exp_(), _sums(pointers, other)
    return node, p, other, of_node, row


def _slope(direction: Direction, p: Tensor, other: Tensor, of_node: Tensor, row: Tensor) -> Tensor:
    """Return the slope of the sum of divergences at each score."""
    slope = of_node.index_select(0, row).mul_(p)
    return torch.sub(other, slope, out=slope) if direction == "student" else slope.sub_(other)


def _sums(pointers: list[Tensor], value: Tensor) -> Tensor:
    """Return the sums over the edges of each node, of those of several graphs in turn."""
    if len(pointers) == 1:
        return _sums_of_one(pointers[0], value)
    sizes = [int(pointer[-1]) for pointer in pointers]
    parts = zip(pointers, value.split(sizes), strict=True)
    return torch.stack([_sums_of_one(*part) for part in parts]).sum(dim=0)


def _sums_of_one(pointer: Tensor, value: Tensor) -> Tensor:
    each = value.size(0) // max(1, pointer.numel() - 1)
    if value.dim() == 1 and value.device.type == "cpu" and each > 0:
        # As many at each node, as among nearest neighbours: in a third of the time.
        places = torch.arange(0, value.size(0) + 1, each, dtype=pointer.dtype)
        if torch.equal(pointer, places):
            return value.view(-1, each).sum(dim=1)
    if value.dim() == 2 and value.numel() > 0 and value.device.type == "cpu":  # whole rows at once
        row = torch.arange(value.size(0))
        return F.embedding_bag(row, value, pointer, mode="sum", include_last_offset=True)
    return reduce_segments(pointer, value, "sum")
