"""Linear layers, convolutions on grids, and what treats each channel by itself."""

from __future__ import annotations

import torch_geometric.nn
from torch import nn

from pyg_stkd.nn.sequence.time_conv import TimeConv
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.units import Channels

__all__ = ["convolution", "elementwise", "hetero_linear", "linear", "prelu"]


@register(nn.Linear, torch_geometric.nn.Linear)
def linear(
    ports: Ports, lin: nn.Linear, x: Channels | None, out: Channels | None = None
) -> Channels:
    """A row for each output channel, a column for each input channel.

    :obj:`out` makes the rows belong to given channels in place of new ones.
    """
    num_rows, num_columns = lin.weight.shape
    x = ports.sized(x, num_columns)
    out = ports.fresh(num_rows) if out is None else out
    ports.own(lin, "weight", 0, out)
    ports.own(lin, "weight", 1, x)
    ports.own(lin, "bias", 0, out)
    for name, channels in (
        ("in_features", x),
        ("in_channels", x),
        ("out_features", out),
        ("out_channels", out),
    ):
        ports.attribute(lin, name, channels)
    ports.outputs[ports.name_of(lin)] = out
    return out


@register(torch_geometric.nn.HeteroLinear)
def hetero_linear(
    ports: Ports, lin: torch_geometric.nn.HeteroLinear, x: Channels | None
) -> Channels:
    """A matrix for each type, all from and to the same channels."""
    x = ports.sized(x, lin.in_channels)
    out = ports.fresh(lin.out_channels)
    ports.own(lin, "weight", 1, x)
    ports.own(lin, "weight", 2, out)
    ports.own(lin, "bias", 1, out)
    ports.attribute(lin, "in_channels", x)
    ports.attribute(lin, "out_channels", out)
    return out


@register(nn.Conv1d, nn.Conv2d, nn.Conv3d, TimeConv)
def convolution(
    ports: Ports, conv: nn.Conv2d, x: Channels | None, out: Channels | None = None
) -> Channels:
    """As a linear layer, for each place in the kernel. Groups of channels are kept."""
    x = ports.sized(x, conv.in_channels)
    out = ports.fresh(conv.out_channels) if out is None else out
    if conv.groups != 1:
        ports.freeze(x)
        ports.freeze(out)
        return out
    ports.own(conv, "weight", 0, out)
    ports.own(conv, "weight", 1, x)
    ports.own(conv, "bias", 0, out)
    ports.attribute(conv, "in_channels", x)
    ports.attribute(conv, "out_channels", out)
    return out


@register(
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.RReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
    nn.Softshrink,
    nn.Hardshrink,
    nn.Tanhshrink,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Threshold,
)
def elementwise(ports: Ports, module: nn.Module, x: Channels | None) -> Channels | None:
    """Each channel stays itself, whatever becomes of a masked one: its consumers are masked."""
    return x


@register(nn.PReLU)
def prelu(ports: Ports, module: nn.PReLU, x: Channels | None) -> Channels | None:
    """One slope, or one for each channel."""
    if module.num_parameters > 1:
        x = ports.sized(x, module.num_parameters)
        ports.own(module, "weight", 0, x)
        ports.attribute(module, "num_parameters", x)
    return x
