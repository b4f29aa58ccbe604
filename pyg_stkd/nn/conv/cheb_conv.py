"""Polynomial graph filters on whole sequences: one propagation serves every batch and step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.nn.conv.graph_operator import (
    GraphOperator,
    Propagation,
    cheb_operator,
    gcn_operator,
    propagate,
)
from pyg_stkd.nn.conv.nodes_last import filter_nodes_last, has_short_rows, pays

__all__ = ["ChebConv", "GCNConv", "cheb_filter"]


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
        >>> from pyg_stkd.nn.conv.graph_operator import cheb_operator
        >>> operator = cheb_operator(torch.tensor([[0, 1], [1, 0]]))
        >>> x = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
        >>> cheb_filter(operator, x, torch.ones(2, 1, 1)).flatten().tolist()
        [-1.0, 1.0]
    """
    if pays(x, *weight.shape[1:], weight, bias) and has_short_rows(operator):
        return filter_nodes_last(operator, x, weight, bias, first)
    num_batch, num_steps, num_nodes = x.shape[:3]
    columns = x.permute(2, 0, 1, 3).reshape(num_nodes, -1).contiguous()  # [N, B * T * C]
    tensors = operator.tensors
    if operator.requires_grad:
        # Gradients of the entries: through the dense matrix, term by term.
        tensors = (operator.to_dense(),)
        out = _filter(columns, weight, bias, first, tensors, constant=False)
    else:
        out = _ChebFilter.apply(columns, weight, bias, first, *tensors)
    out = out.view(num_nodes, num_batch, num_steps, -1)
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


class ChebConv(nn.Module):
    r"""The Chebyshev convolution of `"Convolutional Neural Networks on Graphs with Fast Localized
    Spectral Filtering" <https://arxiv.org/abs/1606.09375>`_ on sequences.

    .. math::
        \mathbf{y}_{bt} = \sum_{k=0}^{K-1} T_k(\hat{\mathbf{L}}) \, \mathbf{x}_{bt} \,
        \mathbf{W}_k + \mathbf{b}

    With the same weights the output of each step is that of PyG's
    :class:`~torch_geometric.nn.conv.ChebConv` (:obj:`weight[k]` is the transpose of its
    :obj:`lins[k].weight`).

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample.
        K (int): Number of polynomials. (default: :obj:`3`)
        bias (bool, optional): Whether to learn an additive bias. (default: :obj:`True`)
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"` or :obj:`"auto"`.
            (default: :obj:`"auto"`)

    Shapes:
        - **input:** signals :math:`(B, T, N, C)`, edges and optional weights as in
          :func:`~pyg_stkd.nn.conv.graph_operator.cheb_operator`
        - **output:** :math:`(B, T, N, C')`

    Example:
        >>> conv = ChebConv(2, 4, K=3)
        >>> conv(torch.randn(1, 5, 3, 2), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([1, 5, 3, 4])
    """

    first = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 3,
        bias: bool = True,
        propagation: Propagation = "auto",
    ) -> None:
        super().__init__()
        if K < 1:
            raise ValueError(f"'K' must be at least 1 (got {K})")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = K
        self.propagation = propagation
        self.weight = nn.Parameter(torch.empty(K, in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew (Glorot, as PyG) and set the bias to zero."""
        bound = (6.0 / (self.in_channels + self.out_channels)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def operator(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> GraphOperator:
        """Return the matrix to propagate with (:obj:`edge_index` itself if it is one)."""
        return cheb_operator(
            edge_index, edge_weight, x.size(2), dtype=x.dtype, propagation=self.propagation
        )

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Filter every step; :obj:`residual` [C, C'] is one more matrix applied to the input."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if isinstance(edge_index, GraphOperator):
            operator = edge_index.to(x.dtype)
        else:
            operator = self.operator(x, edge_index, edge_weight)
        if operator.num_nodes != x.size(2):
            raise ValueError(
                f"'edge_index' must have the {x.size(2)} nodes of 'x' [B, T, N, C] "
                f"(got {operator.num_nodes})"
            )
        weight: Tensor = self.weight
        if residual is not None:
            weight = torch.cat([weight[:1] + residual, weight[1:]])
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return cheb_filter(operator, x, weight.to(x.dtype), bias, self.first)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={self.K})"


class GCNConv(ChebConv):
    r"""The graph convolution of `"Semi-Supervised Classification with Graph Convolutional
    Networks" <https://arxiv.org/abs/1609.02907>`_ on sequences, equal to PyG's
    :class:`~torch_geometric.nn.conv.GCNConv` in each step (:obj:`weight[0]` is the transpose of
    its :obj:`lin.weight`).

    .. math::
        \mathbf{y}_{bt} = \tilde{\mathbf{D}}^{-1/2} \tilde{\mathbf{A}} \tilde{\mathbf{D}}^{-1/2}
        \mathbf{x}_{bt} \mathbf{W} + \mathbf{b}

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample.
        bias (bool, optional): Whether to learn an additive bias. (default: :obj:`True`)
        propagation (str, optional): As in :class:`ChebConv`. (default: :obj:`"auto"`)

    Example:
        >>> conv = GCNConv(2, 4)
        >>> conv(torch.randn(1, 5, 3, 2), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([1, 5, 3, 4])
    """

    first = 1  # the only term is that of order 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        propagation: Propagation = "auto",
    ) -> None:
        super().__init__(in_channels, out_channels, 1, bias, propagation)

    def operator(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> GraphOperator:
        return gcn_operator(
            edge_index, edge_weight, x.size(2), dtype=x.dtype, propagation=self.propagation
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels})"
