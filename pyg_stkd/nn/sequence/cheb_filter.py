"""Chebyshev polynomials of a graph operator, applied to whole sequences at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.graph import is_transforming, wants_plain
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, propagate
from pyg_stkd.nn.sequence.thin import filter_rows, from_rows, has_short_rows, pays, to_rows

__all__ = ["cheb_filter", "cheb_terms"]

# From so many channels on, neighbours are added slice by slice, in the order of the input: with
# 64 in a quarter of the time that columns take with their transposes, up to 16 in about the same.
_WIDE = 32


def cheb_filter(
    operator: GraphOperator,
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    r"""Filter each time step with Chebyshev polynomials of an operator.

    .. math::
        \mathbf{y} = \sum_k T_k(\hat{\mathbf{L}}) \, \mathbf{x} \, \mathbf{W}_k^{\top} + \mathbf{b}

    The adjoint of such a filter is the same filter of :math:`\hat{\mathbf{L}}^{\top}`, so the
    backward pass keeps :obj:`x` alone and propagates the gradient once for both derivatives.

    Args:
        operator (GraphOperator): The matrix :math:`\hat{\mathbf{L}}`.
        x (Tensor): Signals of the nodes.
        weights (sequence of Tensor): A matrix for each order, as those of linear layers.
        bias (Tensor, optional): Added to the result. (default: :obj:`None`)
        first (int, optional): The order that the first matrix belongs to. (default: :obj:`0`)

    Shapes:
        - **x:** :math:`(B, T, N, C)`
        - **weights:** :math:`K` times :math:`(C', C)`
        - **output:** :math:`(B, T, N, C')`

    Example:
        >>> from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
        >>> operator = cheb_operator(torch.tensor([[0, 1], [1, 0]]))
        >>> x = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
        >>> cheb_filter(operator, x, [torch.ones(1, 1)] * 2).flatten().tolist()
        [-1.0, 1.0]
    """
    out_channels, in_channels = weights[0].shape
    if pays(x, in_channels, out_channels, *weights, bias) and has_short_rows(operator):
        rows = filter_rows(operator, to_rows(x), x.size(0), weights, bias, first)
        return from_rows(rows, x.size(0))
    if first == 1 and len(weights) == 1 and out_channels < in_channels:
        # One matrix alone: what is narrower is what is propagated.
        out = cheb_terms(operator, F.linear(x, weights[0]), 1)[1]
        return out if bias is None else out + bias
    columns = _signals(x, operator)
    if operator.requires_grad:
        # Gradients of the entries: through the dense matrix, term by term.
        out = _filter(columns, weights, bias, first, (operator.to_dense(),), constant=False)
    elif is_transforming():
        out = _filter(columns, weights, bias, first, operator.tensors)
    else:
        out = _ChebFilter.apply(columns, bias, first, len(weights), *weights, *operator.tensors)
    return _sequence(out, x, out_channels, columns.dim() == 3)


def cheb_terms(operator: GraphOperator, x: Tensor, last: int) -> list[Tensor]:
    """Return what the polynomials up to an order make of signals [B, T, N, C], one by one."""
    constant = not operator.requires_grad
    tensors = operator.tensors if constant else (operator.to_dense(),)
    signals = _signals(x, operator)
    terms = _basis(signals, last, tensors, constant=constant)
    return [x, *(_sequence(term, x, x.size(3), signals.dim() == 3) for term in terms[1:])]


def _signals(x: Tensor, operator: GraphOperator) -> Tensor:
    """Return sequences [B, T, N, C] as what is propagated: slices [B * T, N, C], or columns."""
    wide = x.size(3) >= _WIDE and x.device.type == "cpu"
    if wide and not (operator.is_dense or operator.requires_grad or wants_plain()):
        return x.flatten(0, 1).contiguous()
    return _columns(x)


def _columns(x: Tensor) -> Tensor:
    """Return sequences [B, T, N, C] as [N, B * T * C]."""
    return x.permute(2, 0, 1, 3).flatten(1).contiguous()


def _sequence(signals: Tensor, x: Tensor, width: int, slices: bool) -> Tensor:
    """Return slices or columns as sequences of the shape of x, but for their width."""
    num_batch, num_steps, num_nodes, _ = x.shape
    if slices:
        return signals.view(num_batch, num_steps, num_nodes, width)
    out = signals.view(num_nodes, num_batch, num_steps, width)
    return out.permute(1, 2, 0, 3).contiguous()  # [B, T, N, C]


def _basis(
    x: Tensor,
    last: int,
    tensors: tuple[Tensor, ...],
    transpose: bool = False,
    constant: bool = True,
) -> list[Tensor]:
    """Return T_0 x, ..., T_last x for columns x [N, F] or slices [S, N, C]."""
    terms = [x]
    for k in range(1, last + 1):
        term = propagate(terms[-1], tensors, transpose) if constant else tensors[0] @ terms[-1]
        terms.append(term if k == 1 else term.mul_(2.0).sub_(terms[-2]))
    return terms


def _filter(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    first: int,
    tensors: tuple[Tensor, ...],
    constant: bool = True,
) -> Tensor:
    """Return sum_k T_k x W_k^T + b as rows [N * S, C'] for columns x [N, S * C], or slices."""
    terms = _basis(x, first + len(weights) - 1, tensors, constant=constant)[first:]
    rows = [term.view(-1, weights[0].size(1)) for term in terms]
    out = rows[0] @ weights[0].t() if bias is None else torch.addmm(bias, rows[0], weights[0].t())
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        out = out.addmm_(row, weight.t())
    return out


class _ChebFilter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias, first, count, *others):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, *others)
        ctx.first, ctx.count = first, count
        return _filter(x, others[:count], bias, first, others[count:])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, *others = ctx.saved_tensors
        weights, tensors = others[: ctx.count], tuple(others[ctx.count :])
        width, in_channels = weights[0].shape
        grad_x = grad_bias = None
        grads = [None] * ctx.count
        if ctx.needs_input_grad[1]:
            grad_bias = grad.sum(0)
        shape = x.shape[:-1] + (x.size(-1) // in_channels * width,)  # [N, S * C'] or [S, N, C']
        columns = grad.reshape(shape)
        terms = _basis(columns, ctx.first + ctx.count - 1, tensors, transpose=True)[ctx.first :]
        rows = [term.view(-1, width) for term in terms]
        if ctx.needs_input_grad[0]:
            grad_x = rows[0] @ weights[0]
            for row, weight in zip(rows[1:], weights[1:], strict=True):
                grad_x = grad_x.addmm_(row, weight)
            grad_x = grad_x.view_as(x)
        signal = x.view(-1, in_channels)
        for k, row in enumerate(rows):
            if ctx.needs_input_grad[4 + k]:
                grads[k] = row.t() @ signal
        return grad_x, grad_bias, None, None, *grads, *[None] * len(tensors)
