"""Norms of sequences [B, T, N, C]."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.thin import Role

__all__ = ["NodeBatchNorm", "NodeLayerNorm"]


class NodeLayerNorm(nn.LayerNorm):
    r"""Layer norm over :math:`(N, C)` in each time step, as STGCN has it.

    Args:
        num_channels (int): Number of channels.
        num_nodes (int, optional): Number of nodes, to learn a scale and a shift for each of them
            as published. (default: they are shared, and graphs may have any size)
        eps (float, optional): Added to the variance; the default is that of the published code.
            (default: :obj:`1e-12`)

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** the same
        - **weight**, **bias:** :math:`(C)`, or :math:`(N, C)` with :obj:`num_nodes`

    Raises:
        ValueError: If the input has not :obj:`num_nodes` nodes, where they are given.

    Example:
        >>> import torch
        >>> NodeLayerNorm(2)(torch.tensor([[[[0.0, 2.0], [0.0, 2.0]]]])).flatten().tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    thin = Role.NORM

    def __init__(self, num_channels: int, num_nodes: int | None = None, eps: float = 1e-12) -> None:
        super().__init__(num_channels if num_nodes is None else [num_nodes, num_channels], eps)
        self.num_nodes = num_nodes

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each time step."""
        self.check_nodes(x)
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        shape = x.shape[-2:]
        return F.layer_norm(x, shape, weight.expand(shape), bias.expand(shape), self.eps)

    def check_nodes(self, x: Tensor) -> None:
        """Raise unless a sequence has the nodes that the norm has scales for."""
        if self.num_nodes is not None:
            _check_nodes(x, self.num_nodes)


class NodeBatchNorm(nn.BatchNorm1d):
    r"""Batch norm of each node over batch, time and channels, as in PyTorch Geometric Temporal.

    Args:
        num_nodes (int): Number of nodes.
        **kwargs (optional): Further arguments of :class:`torch.nn.BatchNorm1d`.

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** the same
        - **weight**, **bias:** :math:`(N)`

    Raises:
        ValueError: If the input has not :obj:`num_nodes` nodes.

    Example:
        >>> import torch
        >>> NodeBatchNorm(1)(torch.tensor([[[[0.0, 2.0]]]])).flatten().detach()
        tensor([-1.0000,  1.0000])
    """

    __prepare_scriptable__ = refuse_script

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each node."""
        _check_nodes(input, self.num_features)
        return super().forward(input.flatten(0, 1)).view(input.shape)  # [B * T, N, C]


def _check_nodes(x: Tensor, num_nodes: int) -> None:
    if x.size(-2) != num_nodes:
        raise ValueError(
            f"'x' [B, T, N, C] must have N={num_nodes} nodes, the norm's num_nodes "
            f"(got {x.size(-2)})"
        )
