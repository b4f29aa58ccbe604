"""The spatio-temporal block of STGCN: along time, along the graph, along time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd import checks
from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.cheb_conv import ChebConv
from pyg_stkd.nn.sequence.gated_temporal_conv import Gate, GatedTemporalConv
from pyg_stkd.nn.sequence.gcn_conv import GCNConv
from pyg_stkd.nn.sequence.norm import NodeBatchNorm, NodeLayerNorm
from pyg_stkd.nn.sequence.on_steps import check_each_step, last_steps, on_each_step, on_steps
from pyg_stkd.nn.sequence.operators.graph_operator import Propagation
from pyg_stkd.nn.sequence.thin import (
    Role,
    from_rows,
    pays,
    run_block,
    takes_block,
    thin_pays,
    to_rows,
)
from pyg_stkd.nn.sequence.time_conv import keeps_digits

__all__ = ["STConv"]

# A name, a layer of PyG, or what makes a layer of two widths.
GraphConv = str | nn.Module | Callable[[int, int], nn.Module]
Norm = Literal["layer", "batch"] | None


class STConv(nn.Module):
    r"""The ST-Conv block of `"Spatio-Temporal Graph Convolutional Networks: A Deep Learning
    Framework for Traffic Forecasting" <https://arxiv.org/abs/1709.04875>`_ (Eq. 8).

    .. math::
        \mathbf{h} &= \Gamma_0 *_{\mathcal{T}} \mathbf{x} \mathbf{A}, \qquad
        \mathbf{u} = \mathrm{ReLU}(\Theta *_{\mathcal{G}} \mathbf{h} + \mathbf{h}) \\
        \mathbf{y} &= \mathrm{Norm}(\Gamma_1 *_{\mathcal{T}} \mathbf{u})

    The two :class:`GatedTemporalConv` shorten the sequence by :obj:`2 (kernel_size - 1)` steps;
    :math:`\mathbf{A}` aligns their width with that of the graph convolution. The defaults are
    the published block; :meth:`pyg_temporal` builds that of PyTorch Geometric Temporal.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Width of the graph convolution.
        out_channels (int): Size of each output sample.
        kernel_size (int, optional): Steps in a temporal window. (default: :obj:`3`)
        K (int, optional): Number of Chebyshev polynomials. (default: :obj:`3`)
        conv (str, Module or callable, optional): The graph convolution: :obj:`"cheb"`,
            :obj:`"gcn"`, a layer of PyG from :obj:`hidden_channels` to :obj:`hidden_channels`
            (from :obj:`temporal_channels` without residual), or a callable that makes one from
            both widths. A layer of PyG runs once, on the disjoint union of all time steps.
            (default: :obj:`"cheb"`)
        temporal_channels (int, optional): Width of the first temporal convolution.
            (default: :obj:`out_channels`)
        gate (str or (str, str), optional): Gate of both temporal convolutions, or of each.
            (default: :obj:`"glu"`)
        padding (str, optional): :obj:`"valid"` or :obj:`"same"`. (default: :obj:`"valid"`)
        residual (bool, optional): Whether the graph convolution has the residual (and with it
            the map :math:`\mathbf{A}`). (default: :obj:`True`)
        norm (str, optional): :obj:`"layer"` normalises over :math:`(N, C)` in each time step,
            :obj:`"batch"` each node over the batch (as PyTorch Geometric Temporal), :obj:`None`
            not at all. (default: :obj:`"layer"`)
        num_nodes (int, optional): Number of nodes, where the norm shall learn a scale and a shift
            for each of them, as published; :obj:`norm="batch"` needs it. (default: one a channel)
        dropout (float, optional): Dropout probability of the output. (default: :obj:`0.0`)
        bias (bool, optional): Whether the convolutions learn biases. (default: :obj:`True`)
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"`, or :obj:`"auto"` for the
            faster one at the graph's density. (default: :obj:`"auto"`)

    Shapes:
        - **input:** sequence :math:`(B, T, N, C)`, edges :math:`(2, |\mathcal{E}|)` (anything
          that :class:`~pyg_stkd.graph.Graph` takes, or a prepared
          :class:`~pyg_stkd.nn.GraphOperator`),
          edge weights :math:`(|\mathcal{E}|)` *(optional)*; or lists of both, one item for
          each of the :math:`T` steps: a window is filtered on the graph of its last step
        - **output:** :math:`(B, T - 2 (k - 1), N, C')`

    Raises:
        ValueError: If an option is unknown, the axes are in another order, the sequence is too
            short, or the graph has another number of nodes.

    Example:
        >>> block = STConv(2, 4, 8)
        >>> edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
        >>> block(torch.randn(2, 12, 3, 2), edge_index).shape
        torch.Size([2, 8, 3, 8])
    """

    __prepare_scriptable__ = refuse_script
    thin = Role.BLOCK

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        K: int = 3,
        conv: GraphConv = "cheb",
        *,
        temporal_channels: int | None = None,
        gate: Gate | tuple[Gate, Gate] = "glu",
        padding: Literal["valid", "same"] = "valid",
        residual: bool = True,
        norm: Norm = "layer",
        num_nodes: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        propagation: Propagation = "auto",
    ) -> None:
        super().__init__()
        checks.count("hidden_channels", hidden_channels)
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.K = K
        self.temporal_channels = out_channels if temporal_channels is None else temporal_channels
        self.residual = residual
        gates = (gate, gate) if isinstance(gate, str) else gate
        width = self.temporal_channels
        self.temporal1 = GatedTemporalConv(
            in_channels, width, kernel_size, gates[0], padding, bias=bias
        )
        narrows = residual and width > hidden_channels
        self.align = nn.Linear(width, hidden_channels, bias=bias) if narrows else None
        conv_in = hidden_channels if residual else width
        self.conv = _make_conv(conv, conv_in, hidden_channels, K, bias, propagation)
        self.temporal2 = GatedTemporalConv(
            hidden_channels, out_channels, kernel_size, gates[1], padding, bias=bias
        )
        self.norm = _make_norm(norm, out_channels, num_nodes)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def pyg_temporal(
        cls,
        num_nodes: int,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        K: int = 3,
        **kwargs: Any,
    ) -> STConv:
        """Build the block that PyTorch Geometric Temporal calls :obj:`STConv`, its arguments."""
        options: dict[str, Any] = {
            "temporal_channels": hidden_channels,
            "gate": "pgt",
            "norm": "batch",
        } | kwargs
        return cls(
            in_channels, hidden_channels, out_channels, kernel_size, K,
            residual=False, num_nodes=num_nodes, **options,
        )  # fmt: skip

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in (self.temporal1, self.align, self.conv, self.temporal2, self.norm):
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Any = None) -> Tensor:
        """Run the block on all steps of all sequences at once."""
        checks.sequence("x", x, channels=self.in_channels)
        shortest = 1 if self.temporal1.padding == "same" else 2 * self.kernel_size - 1
        if x.size(1) < shortest:
            raise ValueError(
                f"'x' [B, T, N, C] must have at least {shortest} time steps for two windows of "
                f"kernel_size={self.kernel_size} (got {x.size(1)})"
            )
        each = isinstance(edge_index, (list, tuple))
        if each:
            check_each_step(edge_index, edge_weight, x.size(1))
        widest = max(self.temporal_channels, self.hidden_channels, self.out_channels)
        if not each and thin_pays(x, self.in_channels, widest) and takes_block(self):
            assert isinstance(self.conv, (ChebConv, GCNConv))
            operator = self.conv.operator_for(x, edge_index, edge_weight)
            return from_rows(run_block(self, to_rows(x), x.size(0), operator), x.size(0))
        h = self.temporal1(x)  # [B, T', N, C']
        if self.align is not None:
            h = self.align(h)
        elif self.residual and h.size(-1) < self.hidden_channels:
            h = F.pad(h, (0, self.hidden_channels - h.size(-1)))
        h = torch.relu(self._graph(h, edge_index, edge_weight))
        h = self.temporal2(h)
        if self.norm is not None:
            h = self.norm(h)
        return self.dropout(h)

    def _graph(self, h: Tensor, edge_index: Any, edge_weight: Any) -> Tensor:
        if isinstance(edge_index, (list, tuple)):
            graphs = [last_steps(given, h.size(1)) for given in (edge_index, edge_weight)]
            return on_each_step(self._graph, h, *graphs)
        if not isinstance(self.conv, (ChebConv, GCNConv)):
            out = on_steps(self.conv, h, edge_index, edge_weight)
        elif self.residual and isinstance(self.conv, ChebConv) and _adds_identity(self.conv, h):
            identity = torch.eye(h.size(-1), dtype=h.dtype, device=h.device)
            return self.conv(h, edge_index, edge_weight, residual=identity)
        else:
            out = self.conv(h, edge_index, edge_weight)
        return out + h if self.residual else out

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.hidden_channels}, "
            f"{self.out_channels}, kernel_size={self.kernel_size}, conv={self.conv})"
        )


def _adds_identity(conv: ChebConv, h: Tensor) -> bool:
    """Whether the residual is best made a part of the filter's weights."""
    weights = (lin.weight for lin in conv.lins)
    return keeps_digits(h) and not pays(h, conv.in_channels, conv.out_channels, *weights)


def _make_norm(norm: Norm, channels: int, num_nodes: int | None) -> nn.Module | None:
    checks.choice("norm", norm, ("layer", "batch", None))
    if norm == "batch":
        if num_nodes is None:
            raise ValueError("'num_nodes' must be given for norm='batch' (got None)")
        return NodeBatchNorm(num_nodes)
    if norm is None:
        return None
    return NodeLayerNorm(channels, num_nodes)


def _make_conv(
    conv: GraphConv, in_channels: int, out_channels: int, K: int, bias: bool, propagation: Any
) -> nn.Module:
    if conv == "cheb":
        return ChebConv(in_channels, out_channels, K, bias=bias, propagation=propagation)
    if conv == "gcn":
        return GCNConv(in_channels, out_channels, bias=bias, propagation=propagation)
    if isinstance(conv, str) or not callable(conv):
        raise ValueError(
            f"'conv' must be 'cheb', 'gcn', a layer or a callable that makes one (got {conv!r})"
        )
    module = conv if isinstance(conv, nn.Module) else conv(in_channels, out_channels)
    for name, width in (("in_channels", in_channels), ("out_channels", out_channels)):
        given = getattr(module, name, width)
        if isinstance(given, int) and given not in (width, -1):
            raise ValueError(f"'conv' must have {name}={width} here (got {given})")
    return module
