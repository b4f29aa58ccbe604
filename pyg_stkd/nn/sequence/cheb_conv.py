"""Polynomial graph filters on whole sequences: one propagation serves every batch and step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.cheb_filter import cheb_filter
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, Propagation
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator, gcn_operator

__all__ = ["ChebConv", "GCNConv"]


class ChebConv(nn.Module):
    r"""The Chebyshev convolution of `"Convolutional Neural Networks on Graphs with Fast Localized
    Spectral Filtering" <https://arxiv.org/abs/1606.09375>`_ on sequences.

    .. math::
        \mathbf{y}_{bt} = \sum_{k=0}^{K-1} T_k(\hat{\mathbf{L}}) \, \mathbf{x}_{bt} \,
        \mathbf{W}_k + \mathbf{b}

    With the same weights the output of each step is that of PyG's
    :class:`~torch_geometric.nn.conv.ChebConv` (:obj:`weight[k]` is the transpose of its
    :obj:`lins[k].weight`). Features of one step, :math:`(N, C)`, are the sequence
    :obj:`x[None, None]`.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample.
        K (int): Number of polynomials. (default: :obj:`3`)
        bias (bool, optional): Whether to learn an additive bias. (default: :obj:`True`)
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"` or :obj:`"auto"`.
            (default: :obj:`"auto"`)

    Shapes:
        - **input:** signals :math:`(B, T, N, C)`, edges and optional weights as in
          :func:`~pyg_stkd.nn.cheb_operator`
        - **output:** :math:`(B, T, N, C')`

    Raises:
        TypeError: If the signals are not of a real floating point type.
        ValueError: If :obj:`K` is below 1, the signals are not :math:`(B, T, N, C)` with
            :obj:`in_channels` last, the graph has another number of nodes, or weights do not fit
            the edges, are negative or not finite.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> conv = ChebConv(2, 4, K=3)
        >>> conv(torch.randn(1, 5, 3, 2), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([1, 5, 3, 4])
    """

    __prepare_scriptable__ = refuse_script
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
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = checks.count("K", K)
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

    def checked_operator(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None
    ) -> GraphOperator:
        """Return the matrix in the type of the input, for its number of nodes."""
        if isinstance(edge_index, GraphOperator):
            operator = edge_index.to(x.dtype)
        else:
            operator = self.operator(x, edge_index, edge_weight)
        if operator.num_nodes != x.size(2):
            raise ValueError(
                f"'edge_index' must have the {x.size(2)} nodes of 'x' [B, T, N, C] "
                f"(got {operator.num_nodes})"
            )
        return operator

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Filter every step; :obj:`residual` [C, C'] is one more matrix applied to the input."""
        checks.sequence("x", x, channels=self.in_channels)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        operator = self.checked_operator(x, edge_index, edge_weight)
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

    Shapes:
        - **input:** signals :math:`(B, T, N, C)`, edges and optional weights as in
          :func:`~pyg_stkd.nn.gcn_operator`
        - **output:** :math:`(B, T, N, C')`

    Raises:
        TypeError: If the signals are not of a real floating point type.
        ValueError: As in :class:`ChebConv`.
        IndexError: If an edge names a node that is not there.

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
