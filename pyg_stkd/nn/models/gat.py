"""The graph attention networks that the local-structure paper distils."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import SparseTensor

from pyg_stkd import checks
from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv.gat_conv import GATConv
from pyg_stkd.nn.scripting import refuse_script

__all__ = ["GAT"]


class GAT(torch.nn.Module):
    r"""A stack of :class:`~pyg_stkd.nn.GATConv` layers with linear residuals, as in the
    experiments on PPI of `"Distilling Knowledge from Graph Convolutional Networks"
    <https://arxiv.org/abs/2003.10477>`_ (Table 1).

    .. math::
        \mathbf{H}^{(l+1)} = \sigma \left( \mathrm{GATConv}(\mathbf{H}^{(l)}) +
        \mathbf{W}^{(l)} \mathbf{H}^{(l)} \right), \qquad
        \mathbf{Y} = \frac{1}{K} \sum_{k=1}^{K} \left( \mathrm{GATConv}_k(\mathbf{H}^{(L-1)}) +
        \mathbf{W}^{(L-1)}_k \mathbf{H}^{(L-1)} \right)

    Every layer but the first has a linear residual. Heads are concatenated; those of the last
    layer are averaged after their residuals, so that its own output is
    :obj:`heads * out_channels` wide. The layers are :obj:`convs.0`, :obj:`convs.1`, and so on.

    This is not :class:`torch_geometric.nn.GAT`: the number of classes comes before that of the
    layers here, after it there (:obj:`in_channels, hidden_channels, num_layers, out_channels`),
    and :obj:`hidden_channels` is the width of one head, there of all. Name the arguments where
    both are used.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive it from the first.
        hidden_channels (int): Size of each head of the hidden layers.
        out_channels (int): Size of each output sample.
        num_layers (int): Number of layers.
        heads (int): Number of heads of the hidden layers. (default: :obj:`4`)
        out_heads (int, optional): Number of heads of the last layer. (default: :obj:`heads`)
        dropout (float): Probability to drop a hidden feature, and an attention weight.
            (default: :obj:`0.0`)
        act (str or Callable): The activation between layers. (default: :obj:`"elu"`)
        residual (bool): Whether all layers but the first have a linear residual.
            (default: :obj:`True`)
        **kwargs (optional): Further arguments of :class:`~pyg_stkd.nn.GATConv`.

    Shapes:
        - **input:** node features :math:`(*, |\mathcal{V}|, F_{in})`, edge indices
          :math:`(2, |\mathcal{E}|)`, edge features :math:`(|\mathcal{E}|, D)` *(optional)*
        - **output:** node features :math:`(*, |\mathcal{V}|, F_{out})`

    Raises:
        ValueError: If a number of layers, channels or heads is not positive.

    Example:
        >>> model = GAT(5, hidden_channels=8, out_channels=3, num_layers=2, heads=4, out_heads=6)
        >>> model
        GAT(5, 3, num_layers=2)
        >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> model(torch.randn(3, 5), edge_index).shape, model.convs[-1].out_channels
        (torch.Size([3, 3]), 3)
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        heads: int = 4,
        out_heads: int | None = None,
        dropout: float = 0.0,
        act: str | Callable[[Tensor], Tensor] = "elu",
        residual: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        out_heads = heads if out_heads is None else out_heads
        numbers = {
            "hidden_channels": hidden_channels,
            "out_channels": out_channels,
            "num_layers": num_layers,
            "heads": heads,
            "out_heads": out_heads,
        }
        for name, number in numbers.items():
            checks.count(name, number)
        if "concat" in kwargs:
            raise ValueError(
                "'concat' is fixed: hidden heads are concatenated, output heads averaged "
                f"(got {kwargs['concat']})"
            )
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.num_layers = num_layers
        self.heads = heads
        self.out_heads = out_heads
        self.dropout = dropout
        self.residual = residual
        self.act = activation_resolver(act)
        self.convs = torch.nn.ModuleList()
        for i in range(num_layers):
            last = i == num_layers - 1
            self.convs.append(
                GATConv(
                    in_channels if i == 0 else heads * hidden_channels,
                    out_channels if last else hidden_channels,
                    heads=out_heads if last else heads,
                    dropout=dropout,
                    residual=residual and i > 0,
                    **kwargs,
                )
            )

    @classmethod
    def teacher(cls, in_channels: int = 50, out_channels: int = 121, **kwargs: Any) -> GAT:
        """Build the paper's teacher: 3 layers, 4 heads of 256 channels, 6 output heads."""
        return cls(in_channels, 256, out_channels, 3, heads=4, out_heads=6, **kwargs)

    @classmethod
    def student(cls, in_channels: int = 50, out_channels: int = 121, **kwargs: Any) -> GAT:
        """Build the paper's student: 5 layers, 2 heads of 68 channels."""
        return cls(in_channels, 68, out_channels, 5, heads=2, out_heads=2, **kwargs)

    def reset_parameters(self) -> None:
        """Reset all learnable parameters."""
        for conv in self.convs:
            assert isinstance(conv, GATConv)
            conv.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | SparseTensor | Graph,
        edge_attr: Tensor | None = None,
    ) -> Tensor:
        """Run the model.

        Args:
            x (Tensor): Node features.
            edge_index (Tensor, EdgeIndex, SparseTensor or Graph): The edges, sorted once for all
                layers.
            edge_attr (Tensor, optional): Edge features, in the order of the given edges.
        """
        checks.instance("x", x, Tensor)
        if x.dim() < 2:
            raise ValueError(f"'x' must have shape [N, F] (got {list(x.shape)})")
        graph = Graph.of(edge_index, x.size(-2))
        for conv in self.convs[:-1]:
            x = self.act(conv(x, graph, edge_attr))
            x = F.dropout(x, p=self.dropout, training=self.training)
        x = self.convs[-1](x, graph, edge_attr)
        return x.unflatten(-1, (self.out_heads, self.out_channels)).mean(dim=-2)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"num_layers={self.num_layers})"
        )
