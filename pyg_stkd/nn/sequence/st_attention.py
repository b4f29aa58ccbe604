"""Attention over nodes and over time steps, and the graph convolution it scales (ASTGCN)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.nn.scripting import refuse_script

__all__ = ["ChebAttentionConv", "Recursion", "SpatialAttention", "TemporalAttention"]

Recursion = Literal["matrix", "elementwise", "propagated"]


class _Attention(nn.Module):
    """softmax(V sigma(((x w1) W2) (w3 x) + B)) between the rows of one axis of x."""

    __prepare_scriptable__ = refuse_script

    def __init__(self, in_channels: int, num_rows: int, num_others: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_rows = num_rows
        self.num_others = num_others
        self.w1 = nn.Parameter(torch.empty(num_others))
        self.w2 = nn.Parameter(torch.empty(in_channels, num_others))
        self.w3 = nn.Parameter(torch.empty(in_channels))
        self.bias = nn.Parameter(torch.empty(num_rows, num_rows))
        self.scale = nn.Parameter(torch.empty(num_rows, num_rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew (matrices by Glorot's rule, vectors uniformly)."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.uniform_(parameter)

    def _check(self, x: Tensor, num_steps: int, num_nodes: int) -> None:
        checks.sequence("x", x, channels=self.in_channels)
        if x.size(1) != num_steps or x.size(2) != num_nodes:
            raise ValueError(
                f"'x' [B, T, N, C] must have T={num_steps} time steps and N={num_nodes} nodes "
                f"(got T={x.size(1)} and N={x.size(2)})"
            )

    def _attend(self, x: Tensor) -> Tensor:
        """Attend between the rows of x [B, others, rows, C]."""
        left = torch.einsum("borc,o->brc", x, self.w1) @ self.w2  # [B, rows, others]
        right = (x @ self.w3).to(left.dtype)  # [B, others, rows]
        score = self.scale @ torch.sigmoid(left @ right + self.bias)
        return score.softmax(dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.num_rows}, {self.num_others})"


class SpatialAttention(_Attention):
    r"""The spatial attention of `"Attention Based Spatial-Temporal Graph Convolutional Networks
    for Traffic Flow Forecasting" <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_.

    .. math::
        \mathbf{S} = \mathrm{softmax}\left( \mathbf{V}_s \, \sigma\left( (\mathbf{x} \mathbf{w}_1)
        \mathbf{W}_2 (\mathbf{w}_3 \mathbf{x})^{\top} + \mathbf{B}_s \right) \right)

    The softmax runs over the first node axis, as in the published code.

    Args:
        in_channels (int): Size of each input sample.
        num_nodes (int): Number of nodes.
        num_steps (int): Number of time steps.

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, N, N)`

    Example:
        >>> p = SpatialAttention(2, num_nodes=3, num_steps=4)(torch.randn(1, 4, 3, 2))
        >>> p.shape, torch.allclose(p.sum(1), torch.ones(1, 3))
        (torch.Size([1, 3, 3]), True)
    """

    def __init__(self, in_channels: int, num_nodes: int, num_steps: int) -> None:
        _check_sizes(in_channels, num_nodes, num_steps)
        super().__init__(in_channels, num_nodes, num_steps)

    def forward(self, x: Tensor) -> Tensor:
        """Return how much each node attends to each other."""
        self._check(x, self.num_others, self.num_rows)
        return self._attend(x)


class TemporalAttention(_Attention):
    r"""The temporal attention of `"Attention Based Spatial-Temporal Graph Convolutional Networks
    for Traffic Flow Forecasting" <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_:
    :class:`SpatialAttention` with the axes of time and nodes exchanged.

    Args:
        in_channels (int): Size of each input sample.
        num_nodes (int): Number of nodes.
        num_steps (int): Number of time steps.

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, T, T)`

    Example:
        >>> TemporalAttention(2, num_nodes=3, num_steps=4)(torch.randn(1, 4, 3, 2)).shape
        torch.Size([1, 4, 4])
    """

    def __init__(self, in_channels: int, num_nodes: int, num_steps: int) -> None:
        _check_sizes(in_channels, num_nodes, num_steps)
        super().__init__(in_channels, num_steps, num_nodes)

    def forward(self, x: Tensor) -> Tensor:
        """Return how much each time step attends to each other."""
        self._check(x, self.num_rows, self.num_others)
        return self._attend(x.transpose(1, 2))


def _check_sizes(in_channels: int, num_nodes: int, num_steps: int) -> None:
    checks.count("in_channels", in_channels)
    checks.count("num_nodes", num_nodes)
    checks.count("num_steps", num_steps)


class ChebAttentionConv(nn.Module):
    r"""The Chebyshev convolution of `"Attention Based Spatial-Temporal Graph Convolutional
    Networks for Traffic Flow Forecasting"
    <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_, each polynomial scaled by attention.

    .. math::
        \mathbf{y}_t = \sum_k \left( T_k(\hat{\mathbf{L}}) \odot \mathbf{S} \right)^{\top}
        \mathbf{x}_t \mathbf{W}_k

    That is the paper's formula. Two public codes compute something else from :math:`K = 3` (one
    of them from :math:`K = 2`) on, and weights trained by one of them want its :obj:`recursion`:
    that of the authors' PyTorch code multiplies the Laplacian into the last polynomial *element
    by element*, :math:`T_k = 2 \hat{\mathbf{L}} \odot T_{k-1} - T_{k-2}`; that of PyTorch Geometric
    Temporal applies one polynomial after the other to what the first has made of the signals,
    attention and all, and scales none beyond the second,

    .. math::
        \mathbf{z}_0 = (\mathbf{I} \odot \mathbf{S})^{\top} \mathbf{x}, \quad
        \mathbf{z}_1 = (\hat{\mathbf{L}} \odot \mathbf{S}) \mathbf{z}_0, \quad
        \mathbf{z}_k = 2 \hat{\mathbf{L}} \mathbf{z}_{k-1} - \mathbf{z}_{k-2}, \quad
        \mathbf{y} = \sum_k \mathbf{z}_k \mathbf{W}_k .

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample.
        K (int): Number of polynomials.
        recursion (str, optional): :obj:`"matrix"` for the paper, :obj:`"elementwise"` for the
            authors' PyTorch code, :obj:`"propagated"` for PyTorch Geometric Temporal.
            (default: :obj:`"matrix"`)
        bias (bool, optional): Whether to learn an additive bias, which only PyTorch Geometric
            Temporal has. (default: :obj:`False`)

    Shapes:
        - **input:** signals :math:`(B, T, N, C)`, attention :math:`(B, N, N)`,
          scaled Laplacian :math:`(N, N)`
        - **output:** :math:`(B, T, N, C')`

    Raises:
        TypeError: If the signals are not of a real floating point type.
        ValueError: If :obj:`K` is below 1, :obj:`recursion` is unknown, the signals are not
            :math:`(B, T, N, C)` with :obj:`in_channels` last,
            or the Laplacian is not :math:`(N, N)`.

    Example:
        >>> conv = ChebAttentionConv(2, 4, K=3)
        >>> conv(torch.randn(1, 5, 3, 2), torch.ones(1, 3, 3), torch.zeros(3, 3)).shape
        torch.Size([1, 5, 3, 4])
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int,
        recursion: Recursion = "matrix",
        bias: bool = False,
    ) -> None:
        super().__init__()
        checks.choice("recursion", recursion, get_args(Recursion))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = checks.count("K", K)
        self.recursion = recursion
        self.weight = nn.Parameter(torch.empty(K, in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew and set the bias to zero."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, attention: Tensor, laplacian: Tensor) -> Tensor:
        """Filter every step; :obj:`laplacian` has targets as rows."""
        checks.sequence("x", x, channels=self.in_channels)
        num_batch, num_steps, num_nodes, width = x.shape
        if laplacian.shape != (num_nodes, num_nodes):
            raise ValueError(
                f"'laplacian' must have shape [{num_nodes}, {num_nodes}], the nodes of 'x' "
                f"[B, T, N, C] (got {list(laplacian.shape)})"
            )
        nodes = x.transpose(1, 2).reshape(num_batch, num_nodes, -1)  # [B, N, T * C]
        out: Tensor | None = None
        for k, z in enumerate(self._filtered(nodes, attention, laplacian)):
            y = z.view(num_batch, num_nodes, num_steps, width)
            y = y @ self.weight[k].to(y.dtype)  # [B, N, T, C']
            out = y if out is None else out + y
        assert out is not None
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.transpose(1, 2)  # [B, T, N, C']

    def _filtered(self, nodes: Tensor, attention: Tensor, laplacian: Tensor) -> Iterator[Tensor]:
        """Yield what the polynomials make of signals [B, N, F], order after order."""
        eye = torch.eye(laplacian.size(0), dtype=nodes.dtype, device=nodes.device)
        if self.recursion == "propagated":
            last, z = nodes, (eye * attention.mT) @ nodes
            yield z
            for k in range(1, self.K):
                matrix = laplacian * attention if k == 1 else laplacian
                last, z = z, matrix @ z if k == 1 else 2.0 * matrix @ z - last
                yield z
            return
        # With targets as rows, (T_k . S)^T of the paper's symmetric T_k is T_k . S^T.
        attention, last, term = attention.mT, eye, eye
        for k in range(self.K):
            if k == 1:
                last, term = term, laplacian
            elif k > 1:
                product = laplacian @ term if self.recursion == "matrix" else laplacian * term
                last, term = term, 2.0 * product - last
            yield (term * attention) @ nodes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, K={self.K})"
