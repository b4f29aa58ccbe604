"""PyG's ChebConv, one propagation for every batch and step."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from pyg_stkd import checks
from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv.inputs import is_sparse
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, Propagation
from pyg_stkd.nn.sequence.operators.spectral_operators import Normalization, cheb_operator
from pyg_stkd.nn.sequence.spectral_conv import SpectralConv, autocast, edges_for_pyg
from pyg_stkd.nn.sequence.thin import Role

__all__ = ["ChebConv"]


class ChebConv(SpectralConv, torch_geometric.nn.ChebConv):
    r"""The Chebyshev convolution of `"Convolutional Neural Networks on Graphs with Fast Localized
    Spectral Filtering" <https://arxiv.org/abs/1606.09375>`_.

    .. math::
        \mathbf{y} = \sum_{k=0}^{K-1} T_k(\hat{\mathbf{L}}) \, \mathbf{x} \,
        \mathbf{W}_k^{\top} + \mathbf{b}

    A :class:`torch_geometric.nn.ChebConv` with the same arguments, parameters and results, whose
    matrix is built once for a graph and applied to all features :math:`(*, |\mathcal{V}|, F)` at
    once: sequences :math:`(B, T, N, C)` for example. In addition it takes a
    :class:`~pyg_stkd.graph.Graph`, whose weights are in its own order, a sparse matrix, or a
    prepared :class:`~pyg_stkd.nn.GraphOperator` as :obj:`edge_index`.

    PyG's own message passing runs instead where it could differ: in a sub-class that overrides a
    step of it, with hooks on its steps, when explained or traced, with a :obj:`lambda_max` for
    each graph, and for gradients of the weights of more than 1,024 nodes. It cannot be compiled by
    :func:`torch.jit.script` (use :func:`torch.compile`).

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive it from the first
            input.
        out_channels (int): Size of each output sample.
        K (int): Number of polynomials. (default: :obj:`3`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"rw"` or :obj:`None`, as in
            :func:`~pyg_stkd.nn.cheb_operator`. (default: :obj:`"sym"`)
        bias (bool, optional): Whether to learn an additive bias. (default: :obj:`True`)
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"` or :obj:`"auto"`.
            (default: :obj:`"auto"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(*, |\mathcal{V}|, F_{in})`, edges and optional weights
          as in :func:`~pyg_stkd.nn.cheb_operator`, batch vector :math:`(|\mathcal{V}|)`
          *(optional)*, largest eigenvalue :math:`(|\mathcal{G}|)` *(optional)*
        - **output:** node features :math:`(*, |\mathcal{V}|, F_{out})`

    Raises:
        TypeError: If the features are not of a real floating point type.
        ValueError: If :obj:`K` is below 1, :obj:`normalization` is unknown, the features are not
            :math:`(*, |\mathcal{V}|, F_{in})`, the graph has another number of nodes, or weights
            do not fit the edges, are negative or not finite.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> conv = ChebConv(2, 4, K=3)
        >>> edge_index = torch.tensor([[0, 1], [1, 2]])
        >>> conv(torch.randn(3, 2), edge_index).shape
        torch.Size([3, 4])
        >>> conv(torch.randn(1, 5, 3, 2), edge_index).shape
        torch.Size([1, 5, 3, 4])
    """

    thin = Role.GRAPH

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 3,
        normalization: Normalization = "sym",
        bias: bool = True,
        *,
        propagation: Propagation = "auto",
        **kwargs: Any,
    ) -> None:
        K = checks.count("K", K)
        checks.choice("normalization", normalization, ("sym", "rw", None))
        super().__init__(in_channels, out_channels, K, normalization, bias, **kwargs)
        self.K = K
        self.propagation = propagation

    def maps(self) -> Iterable[nn.Module]:
        return self._modules["lins"]._modules.values()

    def rule(self) -> Hashable:
        return ChebConv, self.normalization, self.propagation

    def operator(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None, lambda_max: float | None
    ) -> GraphOperator:
        return cheb_operator(
            edge_index, edge_weight, x.size(-2), dtype=x.dtype, normalization=self.normalization,
            lambda_max=lambda_max, propagation=self.propagation,
        )  # fmt: skip

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        lambda_max: Tensor | float | None = None,
        *,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            x (Tensor): Node features.
            edge_index (Tensor, EdgeIndex, SparseTensor, Graph or GraphOperator): The edges.
            edge_weight (Tensor, optional): Their weights.
            batch (Tensor, optional): The graph of each node, read with a :obj:`lambda_max` for
                each.
            lambda_max (Tensor or float, optional): Largest eigenvalue of the Laplacian.
                (default: twice its largest entry, as in PyG)
            residual (Tensor, optional): One more matrix [C, C'] that is applied to the input.
        """
        self._check(x, edge_weight)
        largest = lambda_max
        each = isinstance(largest, Tensor) and (
            largest.numel() > 1 or torch.compiler.is_compiling()
        )
        if not each and self._fuses(x, edge_index, edge_weight):
            x = autocast(x)
            largest = None if largest is None else float(largest)
            return self.filter(x, self.operator_for(x, edge_index, edge_weight, largest), residual)
        if is_sparse(edge_index):  # which PyG's layer does not take
            edge_index = Graph.of(edge_index)
        edge_index, edge_weight = edges_for_pyg(x, edge_index, edge_weight)
        # PyG looks for this in the source of the class.
        # propagate_type: (x: Tensor, norm: Tensor)
        out = super().forward(x, edge_index, edge_weight, batch, lambda_max)
        return out if residual is None else out + x @ residual

    def _names(self) -> Iterable[str]:
        return (f"lins.{k}" for k in range(len(self.lins)))


ChebConv.propagate = MessagePassing.propagate  # in the class, it would be an override
