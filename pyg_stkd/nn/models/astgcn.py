"""ASTGCN: attention over nodes and time, Chebyshev filters, recent, daily and weekly inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.nn.models.astgcn_states import read_public
from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.nn.sequence.st_attention import (
    ChebAttentionConv,
    Recursion,
    SpatialAttention,
    TemporalAttention,
)

__all__ = ["ASTBlock", "ASTGCN", "ASTStack"]

_PARTS = ("recent", "daily", "weekly")


class ASTGCN(nn.Module):
    r"""The model of `"Attention Based Spatial-Temporal Graph Convolutional Networks for Traffic
    Flow Forecasting" <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_.

    One stack of blocks for the recent steps, and one each for the same hours of the days and of
    the weeks before, where given; their forecasts are added with a learned weight for every
    horizon and node,

    .. math::
        \hat{\mathbf{Y}} = \sum_{p \in \{\text{recent, daily, weekly}\}}
        \mathbf{W}_p \odot \hat{\mathbf{Y}}_p ,

    and the recent forecast alone is returned as it is. The graph convolution is the paper's; two
    public codes compute another one from the third polynomial on, see
    :class:`~pyg_stkd.nn.ChebAttentionConv` and :meth:`from_public`.

    Args:
        in_channels (int): Size of each input sample.
        hidden_channels (int): Number of Chebyshev and of time filters.
        out_channels (int): Number of horizons.
        num_nodes (int): Number of nodes (the attention has weights for each).
        num_steps (int, optional): Steps of the recent input. (default: :obj:`12`)
        daily_steps (int, optional): Steps of the daily input, or :obj:`0`. (default: :obj:`0`)
        weekly_steps (int, optional): Steps of the weekly input, or :obj:`0`. (default: :obj:`0`)
        num_blocks (int, optional): Number of blocks in a stack. (default: :obj:`2`)
        K (int, optional): Number of Chebyshev polynomials. (default: :obj:`3`)
        time_stride (int, optional): Stride of the first block's time convolution, which divides
            all numbers of steps. (default: :obj:`1`)
        recursion (str, optional): How the polynomials follow each other, see
            :class:`~pyg_stkd.nn.ChebAttentionConv`. (default: :obj:`"matrix"`, as in the paper)
        bias (bool, optional): Whether the graph convolutions learn biases.
            (default: :obj:`False`)

    Shapes:
        - **input:** sequence :math:`(B, T, N, C)`, edges :math:`(2, |\mathcal{E}|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*, daily and weekly sequences
          :math:`(B, T_d, N, C)` and :math:`(B, T_w, N, C)` *(optional)*
        - **output:** :math:`(B, C', N)`

    Raises:
        ValueError: If the axes are in another order, sizes differ, or a part is missing.

    Example:
        >>> model = ASTGCN(1, 8, 12, num_nodes=3)
        >>> model(torch.randn(2, 12, 3, 1), torch.tensor([[0, 1, 2], [1, 2, 0]])).shape
        torch.Size([2, 12, 3])
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_nodes: int,
        num_steps: int = 12,
        daily_steps: int = 0,
        weekly_steps: int = 0,
        num_blocks: int = 2,
        K: int = 3,
        time_stride: int = 1,
        recursion: Recursion = "matrix",
        bias: bool = False,
    ) -> None:
        super().__init__()
        checks.count("num_blocks", num_blocks)
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.num_nodes = num_nodes
        self.num_steps = num_steps
        self.K = K
        self.steps = dict(zip(_PARTS, (num_steps, daily_steps, weekly_steps), strict=True))
        self.steps = {name: steps for name, steps in self.steps.items() if steps != 0}
        self.parts = nn.ModuleDict()
        for name, steps in self.steps.items():
            if steps < 1 or steps % time_stride:
                raise ValueError(
                    f"the number of {name} steps must be a positive multiple of "
                    f"time_stride={time_stride} (got {steps})"
                )
            self.parts[name] = ASTStack(
                in_channels, hidden_channels, out_channels, num_nodes, steps, num_blocks, K,
                time_stride, recursion, bias,
            )  # fmt: skip
        if "recent" not in self.parts:
            raise ValueError(f"'num_steps' must be at least 1 (got {num_steps})")
        shape = (len(self.parts), out_channels, num_nodes)
        self.fusion: nn.Parameter | None = None
        if shape[0] > 1:
            self.fusion = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    @classmethod
    def published(cls, num_nodes: int, in_channels: int = 1, out_channels: int = 12) -> ASTGCN:
        """Build the published recent model: 2 blocks of 64 filters, K = 3, 12 steps."""
        return cls(in_channels, 64, out_channels, num_nodes)

    @classmethod
    def from_public(cls, state: Mapping[str, Tensor]) -> ASTGCN:
        r"""Build the model whose weights a public code has saved, with its recursion.

        Read are the state of :obj:`ASTGCN_submodule` of the authors' PyTorch code and of
        :obj:`ASTGCN` of PyTorch Geometric Temporal. Both filter with the Laplacian
        :math:`\mathbf{D} - \mathbf{A}` of an undirected graph, scaled by its largest eigenvalue
        :math:`\lambda`: give :meth:`forward` the operator :obj:`cheb_operator(edge_index,
        edge_weight, num_nodes, normalization=None, lambda_max=...)` for its :obj:`edge_index`.
        Their forecasts :math:`(B, N, C')` are the transpose of those here.

        Args:
            state (mapping): The :obj:`state_dict()` that was saved.

        Raises:
            ValueError: If it is of another model.
        """
        options, own = read_public(state)
        model = cls(**options)
        model.load_state_dict(own)
        return model

    def reset_parameters(self) -> None:
        """Draw all weights anew; parts start as an even mixture."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if module is not self and reset is not None:
                reset()
        if self.fusion is not None:
            nn.init.constant_(self.fusion, 1.0 / len(self.parts))

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Tensor | None = None,
        daily: Tensor | None = None,
        weekly: Tensor | None = None,
    ) -> Tensor:
        """Forecast all horizons of all nodes."""
        inputs = dict(zip(_PARTS, (x, daily, weekly), strict=True))
        for name, given in inputs.items():
            if (given is not None) != (name in self.parts):
                wanted = "given" if name in self.parts else "None, the model has no such part"
                raise ValueError(f"'{name}' must be {wanted} (got {type(given).__name__})")
        checks.sequence("x", x, channels=self.in_channels)
        if x.size(2) != self.num_nodes:
            raise ValueError(
                f"'x' [B, T, N, C] must have N={self.num_nodes} nodes (got {x.size(2)})"
            )
        operator = edge_index
        if not isinstance(operator, GraphOperator):
            operator = cheb_operator(
                edge_index, edge_weight, self.num_nodes, dtype=x.dtype, propagation="dense"
            )
        laplacian = operator.to(x.dtype).to_dense()
        outs = [part(inputs[name], laplacian) for name, part in self.parts.items()]
        if self.fusion is None:
            return outs[0]
        return (self.fusion * torch.stack(outs, dim=1)).sum(1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.hidden_channels}, "
            f"{self.out_channels}, num_nodes={self.num_nodes}, steps={self.steps})"
        )


class ASTStack(nn.Module):
    """Blocks and the final convolution of one part."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_nodes: int,
        num_steps: int,
        num_blocks: int,
        K: int,
        time_stride: int,
        recursion: Recursion,
        bias: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for i in range(num_blocks):
            width, stride = (hidden_channels, 1) if i else (in_channels, time_stride)
            conv = ChebAttentionConv(width, hidden_channels, K, recursion, bias)
            self.blocks.append(ASTBlock(width, hidden_channels, num_nodes, num_steps, conv, stride))
            num_steps //= stride
        self.final = nn.Conv2d(num_steps, out_channels, (1, hidden_channels))

    def forward(self, x: Tensor, laplacian: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, laplacian)
        return self.final(x)[..., -1]  # [B, T, N, C] -> [B, C', N]


class ASTBlock(nn.Module):
    """Temporal attention, spatial attention, filter, time convolution, residual, layer norm."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        num_nodes: int,
        num_steps: int,
        conv: ChebAttentionConv,
        stride: int,
    ) -> None:
        super().__init__()
        self.temporal_attention = TemporalAttention(in_channels, num_nodes, num_steps)
        self.spatial_attention = SpatialAttention(in_channels, num_nodes, num_steps)
        self.conv = conv
        self.time_conv = nn.Conv2d(width, width, (3, 1), (stride, 1), (1, 0))
        self.residual = nn.Conv2d(in_channels, width, 1, (stride, 1))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, laplacian: Tensor) -> Tensor:
        attended = torch.einsum("bsnc,bst->btnc", x, self.temporal_attention(x).to(x.dtype))
        h = torch.relu(self.conv(x, self.spatial_attention(attended), laplacian))
        # [B, T, N, C] is the channels-last layout of [B, C, T, N].
        h = self.time_conv(h.permute(0, 3, 1, 2)) + self.residual(x.permute(0, 3, 1, 2))
        return self.norm(torch.relu(h).permute(0, 2, 3, 1))
