"""STGCN: blocks along time and graph, and a head for one or many horizons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.sequence.norm import NodeLayerNorm
from pyg_stkd.nn.sequence.on_steps import last_steps
from pyg_stkd.nn.sequence.st_conv import STConv
from pyg_stkd.nn.sequence.thin import run_model, takes_model

__all__ = ["STGCN"]

# Widths of a block: first temporal convolution, graph convolution, output.
Widths = tuple[int, int, int]


class STGCN(nn.Module):
    r"""The model of `"Spatio-Temporal Graph Convolutional Networks: A Deep Learning Framework for
    Traffic Forecasting" <https://arxiv.org/abs/1709.04875>`_.

    Blocks of :class:`~pyg_stkd.nn.STConv`, then a head that closes the remaining
    steps with one more gated convolution, normalises, and maps each node to its forecasts.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int or sequence, optional): Width of the graph convolutions, or the three
            widths :obj:`(temporal, graph, out)` of each block. (default: :obj:`16`)
        out_channels (int, optional): Number of horizons. (default: :obj:`12`)
        temporal_channels (int, optional): Width of the temporal convolutions, where
            :obj:`hidden_channels` is a number. (default: :obj:`64`)
        num_blocks (int, optional): Number of blocks, likewise. (default: :obj:`2`)
        head_channels (int or (int, int), optional): Widths of the head. (default: :obj:`128`)
        num_steps (int, optional): Steps of the input sequence. (default: :obj:`12`)
        kernel_size (int, optional): Steps in a temporal window. (default: :obj:`3`)
        K (int, optional): Number of Chebyshev polynomials. (default: :obj:`3`)
        num_nodes (int, optional): Number of nodes, where norms shall learn a scale and a shift for
            each of them, as published. (default: any graph)
        dropout (float, optional): Dropout probability. (default: :obj:`0.0`)
        **kwargs (optional): Further arguments of the blocks (:obj:`conv`, :obj:`gate`,
            :obj:`padding`, :obj:`norm`, ...).

    Shapes:
        - **input:** sequence :math:`(B, T, N, C)`, edges :math:`(2, |\mathcal{E}|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*; or lists of both, an item a step
        - **output:** :math:`(B, C', N)`, one forecast for each horizon and node

    Raises:
        ValueError: If the blocks leave no time step, or the input has another number of steps.

    Example:
        >>> model = STGCN(1, 16, 12)
        >>> model(torch.randn(2, 12, 3, 1), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
        torch.Size([2, 12, 3])
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int | Sequence[Widths] = 16,
        out_channels: int = 12,
        *,
        temporal_channels: int = 64,
        num_blocks: int = 2,
        head_channels: int | tuple[int, int] = 128,
        num_steps: int = 12,
        kernel_size: int = 3,
        K: int = 3,
        num_nodes: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if isinstance(hidden_channels, int):
            block = (temporal_channels, hidden_channels, temporal_channels)
            hidden_channels = [block] * num_blocks
        if len(hidden_channels) < 1:
            raise ValueError(f"'hidden_channels' must name at least one block (got {num_blocks})")
        if isinstance(head_channels, int):
            head_channels = (head_channels, head_channels)
        shrink = 0 if kwargs.get("padding") == "same" else 2 * (kernel_size - 1)
        left = num_steps - shrink * len(hidden_channels)
        if left < 1:
            raise ValueError(
                f"'num_steps' must be at least {num_steps - left + 1} for {len(hidden_channels)} "
                f"blocks with kernel_size={kernel_size} (got {num_steps})"
            )
        self.in_channels = in_channels
        self.hidden_channels = [tuple(widths) for widths in hidden_channels]
        self.out_channels = out_channels
        self.head_channels = head_channels
        self.num_steps = num_steps
        self.num_nodes = num_nodes
        self.blocks = nn.ModuleList()
        width = in_channels
        for temporal, graph, out in hidden_channels:
            self.blocks.append(
                STConv(
                    width, graph, out, kernel_size, K, temporal_channels=temporal,
                    num_nodes=num_nodes, dropout=dropout, **kwargs,
                )
            )  # fmt: skip
            width = out
        self.head_conv = GatedTemporalConv(width, head_channels[0], left)
        self.head_norm = NodeLayerNorm(head_channels[0], num_nodes)
        self.lin1 = nn.Linear(head_channels[0], head_channels[1])
        self.lin2 = nn.Linear(head_channels[1], out_channels)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def published(cls, num_nodes: int, in_channels: int = 1, out_channels: int = 1) -> STGCN:
        """Build the published model: 64-16-64 twice, a head of 128, norms for each node."""
        return cls(in_channels, 16, out_channels, num_nodes=num_nodes, dropout=0.5)

    @classmethod
    def teacher(cls, in_channels: int, out_channels: int, **kwargs: Any) -> STGCN:
        """Build the model to distill from: 64-16-64 twice and a head of 128, for any graph."""
        return cls(in_channels, 16, out_channels, **kwargs)

    @classmethod
    def student(cls, in_channels: int, out_channels: int, **kwargs: Any) -> STGCN:
        """Build the model to distill into: 12-4-12 twice and a head of 16, for any graph."""
        kwargs = {"temporal_channels": 12, "head_channels": 16} | kwargs
        return cls(in_channels, 4, out_channels, **kwargs)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in (*self.blocks, self.head_conv, self.head_norm, self.lin1, self.lin2):
            module.reset_parameters()

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Forecast all horizons of all nodes."""
        checks.sequence("x", x, channels=self.in_channels)
        if x.size(1) != self.num_steps:
            raise ValueError(
                f"'x' [B, T, N, C] must have T={self.num_steps} time steps (got {x.size(1)})"
            )
        if not isinstance(edge_index, (list, tuple)) and takes_model(self, x):
            return run_model(self, x, edge_index, edge_weight)
        for block in self.blocks:
            graphs = (last_steps(given, x.size(1)) for given in (edge_index, edge_weight))
            x = block(x, *graphs)
        x = self.head_norm(self.head_conv(x))[:, -1]  # [B, N, C]
        x = self.dropout(torch.relu(self.lin1(x)))
        return self.lin2(x).transpose(1, 2).contiguous()  # [B, C', N]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.hidden_channels}, "
            f"{self.out_channels}, num_steps={self.num_steps})"
        )
