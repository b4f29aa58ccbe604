"""The gated convolution along time of STGCN, on sequences [B, T, N, C]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd import checks
from pyg_stkd.nn.scripting import refuse_script
from pyg_stkd.nn.sequence.gates import apply_gate
from pyg_stkd.nn.sequence.thin import Role
from pyg_stkd.nn.sequence.time_conv import TimeConv, keeps_digits

__all__ = ["Gate", "GatedTemporalConv"]

Gate = Literal["glu", "gtu", "pgt", "relu", "sigmoid", "linear"]

# Maps the convolution makes for each output channel, and whether the input is added to the first.
_GATES: dict[str, tuple[int, bool]] = {
    "glu": (2, True),
    "gtu": (2, True),
    "pgt": (3, False),
    "relu": (1, True),
    "sigmoid": (1, False),
    "linear": (1, False),
}


class GatedTemporalConv(nn.Module):
    r"""The gated temporal convolution of `"Spatio-Temporal Graph Convolutional Networks: A Deep
    Learning Framework for Traffic Forecasting" <https://arxiv.org/abs/1709.04875>`_.

    A causal convolution along time gives :math:`\mathbf{P}` and :math:`\mathbf{Q}`; with the
    residual :math:`\mathbf{r}`, the input of the last step of each window at the new width (a
    learned map where it narrows, zeros appended where it widens), the gates are

    .. math::
        \text{glu:}\quad & (\mathbf{P} + \mathbf{r}) \odot \sigma(\mathbf{Q}) \\
        \text{gtu:}\quad & \tanh(\mathbf{P} + \mathbf{r}) \odot \sigma(\mathbf{Q}) \\
        \text{relu:}\quad & \max(\mathbf{P} + \mathbf{r}, 0) \\
        \text{pgt:}\quad & \max(\mathbf{P} \odot \sigma(\mathbf{Q}) + \mathbf{R}, 0)

    and :obj:`"sigmoid"` or :obj:`"linear"` of :math:`\mathbf{P}` alone. :obj:`"glu"` is the
    published gate, :obj:`"pgt"` that of PyTorch Geometric Temporal, whose :math:`\mathbf{R}` is
    a third convolution.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample.
        kernel_size (int, optional): Steps in a window. (default: :obj:`3`)
        gate (str, optional): The gate, see above. (default: :obj:`"glu"`)
        padding (str, optional): :obj:`"valid"` shortens the sequence by
            :obj:`kernel_size - 1` steps; :obj:`"same"` puts as many zeros before it. Neither
            looks ahead. (default: :obj:`"valid"`)
        residual (bool, optional): Whether to add :math:`\mathbf{r}`; not for :obj:`"pgt"`,
            :obj:`"sigmoid"` and :obj:`"linear"`, which have none as published.
            (default: :obj:`True` where the gate has one)
        bias (bool, optional): Whether to learn additive biases. (default: :obj:`True`)

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, T - k + 1, N, C')`, or :math:`(B, T, N, C')` if padded

    Raises:
        ValueError: If an option is unknown, the axes are in another order or the sequence is
            shorter than a window.

    Example:
        >>> conv = GatedTemporalConv(2, 8, kernel_size=3)
        >>> conv(torch.randn(4, 12, 5, 2)).shape
        torch.Size([4, 10, 5, 8])
    """

    __prepare_scriptable__ = refuse_script
    thin = Role.GATED

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        gate: Gate = "glu",
        padding: Literal["valid", "same"] = "valid",
        residual: bool | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        checks.choice("gate", gate, _GATES)
        checks.choice("padding", padding, ("valid", "same"))
        checks.count("in_channels", in_channels)
        checks.count("out_channels", out_channels)
        checks.count("kernel_size", kernel_size)
        maps, has_residual = _GATES[gate]
        if residual and not has_residual:
            raise ValueError(f"'residual' must not be set for the gate {gate!r} (got True)")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.gate = gate
        self.padding = padding
        self.residual = has_residual if residual is None else residual
        self.conv = TimeConv(in_channels, maps * out_channels, kernel_size, bias)
        narrows = self.residual and in_channels > out_channels
        self.align = nn.Linear(in_channels, out_channels, bias=bias) if narrows else None

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.conv.reset_parameters()
        if self.align is not None:
            self.align.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve every node's sequence and gate it."""
        checks.sequence("x", x, channels=self.in_channels)
        if self.padding == "same":
            x = F.pad(x, (0, 0, 0, 0, self.kernel_size - 1, 0))
        if x.size(1) < self.kernel_size:
            raise ValueError(
                f"'x' [B, T, N, C] must have at least kernel_size={self.kernel_size} time steps "
                f"(got {x.size(1)})"
            )
        # The convolution applies some gates itself.
        fused, rest = self.gate, "linear"
        if self.gate not in ("glu", "pgt"):
            fused, rest = "linear", self.gate
        if not self.residual:
            return apply_gate(self.conv(x, fused), rest)
        if self.align is None and keeps_digits(x):
            return apply_gate(self.conv(x, fused, residual=self.out_channels), rest)
        r = x[:, self.kernel_size - 1 :]  # [B, T', N, C]
        if self.align is not None:
            r = self.align(r)
        elif self.in_channels < self.out_channels:
            r = F.pad(r, (0, self.out_channels - self.in_channels))
        p, *q = self.conv(x).split(self.out_channels, dim=-1)
        if self.gate == "glu":
            return (p + r) * q[0].sigmoid()
        return apply_gate(torch.cat([p + r, *q], dim=-1), self.gate)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"kernel_size={self.kernel_size}, gate={self.gate!r}, padding={self.padding!r})"
        )
