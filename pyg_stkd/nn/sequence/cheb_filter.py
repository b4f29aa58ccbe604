"""Chebyshev polynomials of a graph operator, applied to whole sequences at once."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.nn.sequence.nodes_last import filter_rows, from_rows, has_short_rows, pays, to_rows
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, propagate

__all__ = ["cheb_filter"]


def cheb_filter(
    operator: GraphOperator, x: Tensor, weight: Tensor, bias: Tensor | None = None, first: int = 0
) -> Tensor:
    r"""Filter each time step with Chebyshev polynomials of an operator.

    .. math::
        \mathbf{y} = \sum_k T_k(\hat{\mathbf{L}}) \, \mathbf{x} \, \mathbf{W}_k + \mathbf{b}

    The adjoint of such a filter is the same filter of :math:`\hat{\mathbf{L}}^{\top}`, so the
    backward pass keeps :obj:`x` alone and propagates the gradient once for both derivatives.

    Args:
        operator (GraphOperator): The matrix :math:`\hat{\mathbf{L}}`.
        x (Tensor): Signals of the nodes.
        weight (Tensor): A matrix for each order.
        bias (Tensor, optional): Added to the result. (default: :obj:`None`)
        first (int, optional): The order that the first matrix belongs to. (default: :obj:`0`)

    Shapes:
        - **x:** :math:`(B, T, N, C)`
        - **weight:** :math:`(K, C, C')`
        - **output:** :math:`(B, T, N, C')`

    Example:
        >>> from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
        >>> operator = cheb_operator(torch.tensor([[0, 1], [1, 0]]))
        >>> x = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
        >>> cheb_filter(operator, x, torch.ones(2, 1, 1)).flatten().tolist()
        [-1.0, 1.0]
    """
    if pays(x, *weight.shape[1:], weight, bias) and has_short_rows(operator):
        rows = filter_rows(operator, to_rows(x), x.size(0), weight, bias, first)
        return from_rows(rows, x.size(0))
    num_batch, num_steps, num_nodes = x.shape[:3]
    columns = x.permute(2, 0, 1, 3).reshape(num_nodes, -1).contiguous()  # [N, B * T * C]
    tensors = operator.tensors
    if operator.requires_grad:
        # Gradients of the entries: through the dense matrix, term by term.
        tensors = (operator.to_dense(),)
        out = _filter(columns, weight, bias, first, tensors, constant=False)
    else:
        out = _ChebFilter.apply(columns, weight, bias, first, *tensors)
    out = out.view(num_nodes, num_batch, num_steps, weight.size(2))
    return out.permute(1, 2, 0, 3).contiguous()  # [B, T, N, C']


def _basis(
    x: Tensor,
    last: int,
    tensors: tuple[Tensor, ...],
    transpose: bool = False,
    constant: bool = True,
) -> list[Tensor]:
    """Return T_0 x, ..., T_last x for columns x [N, F]."""
    terms = [x]
    for k in range(1, last + 1):
        term = propagate(terms[-1], tensors, transpose) if constant else tensors[0] @ terms[-1]
        terms.append(term if k == 1 else term.mul_(2.0).sub_(terms[-2]))
    return terms


def _filter(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    first: int,
    tensors: tuple[Tensor, ...],
    transpose: bool = False,
    constant: bool = True,
) -> Tensor:
    """Return sum_k T_k x W_k + b as rows [N * S, C'] for columns x [N, S * C]."""
    terms = _basis(x, first + weight.size(0) - 1, tensors, transpose, constant)[first:]
    rows = [term.view(-1, weight.size(1)) for term in terms]
    out = rows[0] @ weight[0] if bias is None else torch.addmm(bias, rows[0], weight[0])
    for k in range(1, len(rows)):
        out = out.addmm_(rows[k], weight[k])
    return out


class _ChebFilter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, first, *tensors):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight, *tensors)
        ctx.first = first
        return _filter(x, weight, bias, first, tensors)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, *tensors = ctx.saved_tensors
        last, width = ctx.first + weight.size(0) - 1, weight.size(2)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        columns = grad.reshape(x.size(0), -1)  # [N, S * C']
        terms = _basis(columns, last, tuple(tensors), transpose=True)[ctx.first :]
        rows = [term.view(-1, width) for term in terms]
        if ctx.needs_input_grad[0]:
            grad_x = rows[0] @ weight[0].t()
            for k in range(1, len(rows)):
                grad_x = grad_x.addmm_(rows[k], weight[k].t())
            grad_x = grad_x.view_as(x)
        if ctx.needs_input_grad[1]:
            signal = x.view(-1, weight.size(1)).t()
            grad_weight = torch.stack([signal @ row for row in rows])
        return grad_x, grad_weight, grad_bias, None, *[None] * len(tensors)
