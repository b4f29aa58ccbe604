"""PyG's GCNConv, one propagation for every batch and step."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, ClassVar

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from pyg_stkd.nn.sequence.cheb_filter import cheb_terms
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, Propagation
from pyg_stkd.nn.sequence.operators.spectral_operators import gcn_operator
from pyg_stkd.nn.sequence.spectral_conv import SpectralConv, autocast, edges_for_pyg
from pyg_stkd.nn.sequence.thin import Role

__all__ = ["GCNConv"]


class GCNConv(SpectralConv, torch_geometric.nn.GCNConv):
    r"""The graph convolution of `"Semi-Supervised Classification with Graph Convolutional
    Networks" <https://arxiv.org/abs/1609.02907>`_.

    .. math::
        \mathbf{y} = \tilde{\mathbf{D}}^{-1/2} \tilde{\mathbf{A}} \tilde{\mathbf{D}}^{-1/2}
        \mathbf{x} \mathbf{W}^{\top} + \mathbf{b}

    A :class:`torch_geometric.nn.GCNConv` with the same arguments, parameters and results, whose
    matrix is built once for a graph and applied to all features :math:`(*, |\mathcal{V}|, F)` at
    once, as in :class:`~pyg_stkd.nn.ChebConv`, which also says what else it takes. PyG's own
    message passing runs instead where it could differ, as there, and with :obj:`improved`,
    :obj:`cached`, without :obj:`add_self_loops` or :obj:`normalize`, and for sparse features. It
    cannot be compiled by :func:`torch.jit.script` (use :func:`torch.compile`).

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive it from the first
            input.
        out_channels (int): Size of each output sample.
        *args (optional): :obj:`improved`, :obj:`cached`, :obj:`add_self_loops`,
            :obj:`normalize` and :obj:`bias` as in :class:`torch_geometric.nn.GCNConv`.
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"` or :obj:`"auto"`.
            (default: :obj:`"auto"`)
        **kwargs (optional): The same by name, and further arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(*, |\mathcal{V}|, F_{in})`, edges and optional weights
          as in :func:`~pyg_stkd.nn.gcn_operator`
        - **output:** node features :math:`(*, |\mathcal{V}|, F_{out})`

    Raises:
        TypeError: If the features are not of a real floating point type.
        ValueError: As in :class:`~pyg_stkd.nn.ChebConv`.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> conv = GCNConv(2, 4)
        >>> edge_index = torch.tensor([[0, 1], [1, 2]])
        >>> conv(torch.randn(3, 2), edge_index).shape
        torch.Size([3, 4])
        >>> conv(torch.randn(1, 5, 3, 2), edge_index).shape
        torch.Size([1, 5, 3, 4])
    """

    first: ClassVar[int] = 1  # the only term is that of order 1
    thin = Role.GRAPH

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *args: Any,
        propagation: Propagation = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, *args, **kwargs)
        self.propagation = propagation

    def maps(self) -> Iterable[nn.Module]:
        return (self._modules["lin"],)

    def rule(self) -> Hashable:
        return GCNConv, self.propagation

    def is_own(self) -> bool:
        usual = self.normalize and self.add_self_loops and not (self.improved or self.cached)
        return bool(usual) and super().is_own()

    def operator(
        self, x: Tensor, edge_index: Any, edge_weight: Tensor | None, lambda_max: float | None
    ) -> GraphOperator:
        return gcn_operator(
            edge_index, edge_weight, x.size(-2), dtype=x.dtype, propagation=self.propagation
        )

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Run the layer.

        Args:
            x (Tensor): Node features.
            edge_index (Tensor, EdgeIndex, SparseTensor, Graph or GraphOperator): The edges.
            edge_weight (Tensor, optional): Their weights.
        """
        if isinstance(x, (tuple, list)) or (isinstance(x, Tensor) and x.layout != torch.strided):
            return super().forward(x, edge_index, edge_weight)  # which says what it takes
        self._check(x, edge_weight)
        if self._fuses(x, edge_index, edge_weight):
            x = autocast(x)
            return self.filter(x, self.operator_for(x, edge_index, edge_weight))
        # PyG looks for this in the source of the class.
        # propagate_type: (x: Tensor, edge_weight: OptTensor)
        return super().forward(x, *edges_for_pyg(x, edge_index, edge_weight))

    def _call_maps(self, x: Tensor, operator: GraphOperator) -> Tensor:
        return cheb_terms(operator, self.lin(x), 1)[1]

    def _names(self) -> Iterable[str]:
        return ("lin",)


GCNConv.propagate = MessagePassing.propagate  # in the class, it would be an override
