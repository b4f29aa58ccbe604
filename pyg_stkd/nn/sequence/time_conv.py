"""The convolution along time below every gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd.graph import wants_plain
from pyg_stkd.nn.sequence.gated_conv import PARTS, GatedConv, convolve, windows
from pyg_stkd.nn.sequence.gates import apply_gate
from pyg_stkd.nn.sequence.thin import Role, conv_rows, from_rows, pays, to_rows

__all__ = ["TimeConv", "keeps_digits"]


class TimeConv(nn.Conv2d):
    r"""A convolution along time alone, with the weights of a :class:`torch.nn.Conv2d`, and a gate.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Number of maps, those of the gate's parts one after the other.
        kernel_size (int): Steps in a window.
        bias (bool, optional): Whether to learn an additive bias. (default: :obj:`True`)

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, T - k + 1, N, C')`, half or a third of the maps if gated

    Example:
        >>> TimeConv(2, 8, 3)(torch.randn(1, 12, 5, 2), gate="glu").shape
        torch.Size([1, 10, 5, 4])
    """

    thin = Role.TIME

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, (kernel_size, 1), bias=bias)

    def forward(self, x: Tensor, gate: str = "linear", residual: int = 0) -> Tensor:
        """Convolve and gate; the input's last step is added to the first :obj:`residual` maps."""
        weight, bias = self.weight, self.bias
        if pays(x, weight.size(1), weight.size(0) // PARTS[gate], weight, bias):
            rows = conv_rows(to_rows(x), weight, bias, residual)
            return from_rows(apply_gate(rows, gate, dim=1), x.size(0))
        if residual:
            # One more tap, an identity: no pass over the output is needed.
            weight = torch.cat([_with_identity(weight[:residual]), weight[residual:]])
        if wants_plain() or not keeps_digits(x):
            return apply_gate(convolve(x, weight, bias), gate)
        if bias is None:
            bias = weight.new_zeros(weight.size(0))
        if not torch.compiler.is_compiling():  # there the operator makes them, see gated_conv.py
            x, weight = windows(x, weight)
        return GatedConv.apply(x, weight, bias, gate)

    def before_gate(self, x: Tensor) -> Tensor:
        """Convolve alone: what the gate is applied to, without a residual."""
        return self.forward(x)


def keeps_digits(x: Tensor) -> bool:
    """Whether a product with 1 is exact (not on tensor cores, not in half precision)."""
    full = x.dtype in (torch.float32, torch.float64)
    return full and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _with_identity(weight: Tensor) -> Tensor:
    identity = torch.eye(*weight.shape[:2], dtype=weight.dtype, device=weight.device)
    return weight + F.pad(identity[..., None, None], (0, 0, weight.size(2) - 1, 0))
