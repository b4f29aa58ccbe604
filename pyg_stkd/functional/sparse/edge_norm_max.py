"""Batch normalisation over edges, then the maximum over each node's edges."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.sparse.neighbour_max import scatter_to_argmax
from pyg_stkd.graph import Graph

__all__ = ["edge_norm_max"]


def edge_norm_max(
    graph: Graph,
    a: Tensor,
    b: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Normalise :math:`y_e = \mathbf{a}_{dst(e)} + \mathbf{b}_{src(e)}` over edges, take maxima.

    .. math::
        \mathbf{z}_i = \max_{e:\, dst(e) = i} \left( \gamma \,
        \frac{\mathbf{y}_e - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta \right), \qquad
        \mu = \frac{1}{|\mathcal{E}|} \sum_e \mathbf{y}_e, \quad
        \sigma^2 = \frac{1}{|\mathcal{E}|} \sum_e (\mathbf{y}_e - \mu)^2

    Exactly batch normalisation in training mode on an :math:`(|\mathcal{E}|, F)` array, without
    that array: with :math:`\mathbf{a}` and :math:`\mathbf{b}` centred over the edges,
    :math:`|\mathcal{E}| \sigma^2 = \sum_i d_i \mathbf{a}_i^2 + \sum_j o_j \mathbf{b}_j^2 +
    2 \sum_i \mathbf{a}_i \sum_{j \to i} \mathbf{b}_j`. Where that sum is far below its first two
    terms, digits are lost; they are returned, for the caller to see. The sign of :math:`\gamma`
    goes into :math:`\mathbf{b}`, so that only a maximum is needed.

    Args:
        graph (Graph): The edges, at least one.
        a (Tensor): Features of the targets.
        b (Tensor): Features of the sources.
        weight (Tensor): The scale :math:`\gamma`.
        bias (Tensor): The shift :math:`\beta`.
        eps (float): Keeps the root away from 0. (default: :obj:`1e-5`)

    Shapes:
        - **a:** :math:`(N_{dst}, F)`
        - **b:** :math:`(N_{src}, F)`
        - **weight**, **bias:** :math:`(F)`
        - **output:** :math:`(N_{dst}, F)` (meaningless where a node has no in-edges); mean and
          biased variance :math:`(F)`, and the latter's first two terms, which carry no gradient

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [0, 0]]), num_nodes=(2, 1))
        >>> a, b = torch.tensor([[1.0]]), torch.tensor([[2.0], [4.0]])
        >>> edge_norm_max(graph, a, b, torch.ones(1), torch.zeros(1), eps=0.0)
        (tensor([[1.]]), tensor([4.]), tensor([1.]), tensor([1.]))
    """
    transposed = graph.csc() if _needs_grad(a, b, weight, bias) else ()
    with _full_precision(a):
        return _EdgeNormMax.apply(a, b, weight, bias, eps, *graph.csr(), *transposed[:2])


def _full_precision(x: Tensor) -> torch.autocast:
    """Keep autocast from summing over all edges in half precision."""
    return torch.autocast(x.device.type, enabled=False)


def _needs_grad(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def _neighbour_sum(pointer: Tensor, col: Tensor, x: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(col, x, pointer, mode="sum", include_last_offset=True)


class _EdgeNormMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, weight, bias, eps, pointer, col, row, *transposed):  # type: ignore[no-untyped-def]
        num_edges = col.numel()
        degree = pointer.diff().to(a.dtype)
        # Out-degrees: pointers of the transpose are at hand in training only.
        count = transposed[0].diff() if transposed else torch.bincount(col, minlength=b.size(0))
        count = count.to(a.dtype)
        mean_a, mean_b = degree @ a / num_edges, count @ b / num_edges
        given_a, given_b = a, b
        a, b = a - mean_a, b - mean_b
        sign = torch.where(weight < 0, -1.0, 1.0).to(a.dtype)
        top, index = torch.ops.pyg_stkd.neighbour_max(b * sign, pointer, col, bool(transposed))
        top.mul_(sign).add_(a)  # y - mean at the maximum
        total = _neighbour_sum(pointer, col, b)
        var = (a * total).sum(0).mul_(2 / num_edges)
        total.addcmul_(a, degree.view(-1, 1))  # sum of y - mean over the edges of each node
        parts = (degree @ a.square() + count @ b.square()).div_(num_edges)
        var = var.add_(parts).clamp_(min=0)
        scale = (var + eps).rsqrt()
        out = torch.addcmul(bias, top, weight * scale)
        mean = mean_a + mean_b
        ctx.mark_non_differentiable(mean, var, parts)
        if transposed:
            ctx.save_for_backward(
                given_a, given_b, weight, bias, top, index, total, scale, degree, count,
                mean_a, mean_b, *transposed,
            )  # fmt: skip
            ctx.num_edges, ctx.eps = num_edges, eps
        return out, mean, var, parts

    @staticmethod
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        with _full_precision(grad):
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                return _EdgeNormMax._differentiable(ctx, grad)
            return _EdgeNormMax._gradients(ctx, grad)

    @staticmethod
    def _differentiable(ctx, grad):  # type: ignore[no-untyped-def]
        """Derive the same function composed of gathers: for derivatives of higher order."""
        a, b, weight, bias, _, index, *_, pointer_t, row_t = ctx.saved_tensors
        count = pointer_t.diff().long()
        source = torch.arange(b.size(0), device=b.device).repeat_interleave(count)
        y = a.index_select(0, row_t) + b.index_select(0, source)
        mean, var = y.mean(0), y.var(0, correction=0)
        top = a + b.gather(0, index.long()) - mean
        out = torch.addcmul(bias, top, weight * (var + ctx.eps).rsqrt())
        inputs, needed = (a, b, weight, bias), ctx.needs_input_grad[:4]
        wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
        grads = [next(found) if need else None for need in needed]
        return *grads, *[None] * (len(ctx.needs_input_grad) - 4)

    @staticmethod
    def _gradients(ctx, grad):  # type: ignore[no-untyped-def]
        a, b, weight, _, top, index, total, scale, degree, count, *rest = ctx.saved_tensors
        mean_a, mean_b, *source = rest
        a, b = a - mean_a, b - mean_b
        grad = grad.contiguous()
        grad_bias = grad.sum(0)
        grad_weight = (grad * top).sum(0) * scale
        # Each edge gets scale * weight * (grad_e - mean(grad) - y_e * mean(grad * y)).
        factor = weight * scale
        shift = factor * grad_bias / -ctx.num_edges
        slope = factor * grad_weight * scale / -ctx.num_edges
        grad_a = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_a = torch.addcmul(torch.outer(degree, shift), total, slope).addcmul_(grad, factor)
        if ctx.needs_input_grad[1]:
            grad_b = (
                _neighbour_sum(source[0], source[1], a).addcmul_(b, count.view(-1, 1)).mul_(slope)
            )
            grad_b.addr_(count, shift)
            grad_b.addcmul_(scatter_to_argmax(grad, index, b.size(0)), factor)
        return grad_a, grad_b, grad_weight, grad_bias, *[None] * (4 + len(source))
