"""The layers of STGCN and ASTGCN, on sequences [B, T, N, C]."""

from __future__ import annotations

from typing import Any

from pyg_stkd.nn import (
    ChebAttentionConv,
    ChebConv,
    GatedTemporalConv,
    GCNConv,
    SpatialAttention,
    STConv,
    TemporalAttention,
)
from pyg_stkd.nn.models.astgcn import ASTBlock
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.convolutions import cheb_conv, gcn_conv
from pyg_stkd.prune.structure.rules.dense import convolution, linear
from pyg_stkd.prune.structure.units import Channels

__all__ = [
    "astgcn_attention",
    "astgcn_block",
    "cheb_attention_conv",
    "gated_temporal_conv",
    "st_conv",
]


@register(GatedTemporalConv)
def gated_temporal_conv(ports: Ports, conv: Any, x: Channels | None) -> Channels:
    """Maps c, C + c, ... of the gate's parts belong to channel c, and so does its residual."""
    x = ports.sized(x, conv.in_channels)
    out = ports.fresh(conv.out_channels)
    convolution(ports, conv.conv, x, out * (conv.conv.out_channels // len(out)))
    if conv.align is not None:
        linear(ports, conv.align, x, out)
    elif conv.residual:
        ports.tie(x, out[: len(x)])
    ports.attribute(conv, "in_channels", x)
    ports.attribute(conv, "out_channels", out)
    return out


register(ChebConv)(cheb_conv)
register(GCNConv)(gcn_conv)


@register(ChebAttentionConv)
def cheb_attention_conv(ports: Ports, conv: Any, x: Channels | None) -> Channels:
    """A matrix for each order, all from and to the same channels."""
    x = ports.sized(x, conv.in_channels)
    out = ports.fresh(conv.out_channels)
    ports.own(conv, "weight", 1, x)
    ports.own(conv, "weight", 2, out)
    ports.own(conv, "bias", 0, out)
    ports.attribute(conv, "in_channels", x)
    ports.attribute(conv, "out_channels", out)
    return out


@register(STConv)
def st_conv(ports: Ports, block: Any, x: Channels | None) -> Channels | None:
    """Time, graph, time. The channels that widen the graph's residual are zeros of their own."""
    x = ports.sized(x, block.in_channels)
    temporal = ports(block.temporal1, x)
    assert temporal is not None
    h = temporal if block.align is None else linear(ports, block.align, temporal)
    if block.residual and len(h) < block.hidden_channels:
        h = h + ports.fresh(block.hidden_channels - len(h))
    hidden = ports(block.conv, h)
    if block.residual:
        hidden = ports.tie(h, hidden)
    assert hidden is not None
    out = ports(block.temporal2, hidden)
    assert out is not None
    ports.attribute(block, "in_channels", x)
    ports.attribute(block, "temporal_channels", temporal)
    ports.attribute(block, "hidden_channels", hidden)
    ports.attribute(block, "out_channels", out)
    return out if block.norm is None else ports(block.norm, out)


@register(SpatialAttention, TemporalAttention)
def astgcn_attention(ports: Ports, attention: Any, x: Channels | None) -> None:
    """Weights of the input channels; the output is none of channels."""
    x = ports.sized(x, attention.in_channels)
    ports.own(attention, "w2", 0, x)
    ports.own(attention, "w3", 0, x)
    ports.attribute(attention, "in_channels", x)


@register(ASTBlock)
def astgcn_block(ports: Ports, block: Any, x: Channels | None) -> Channels | None:
    """Attentions, filter, time convolution plus residual, norm."""
    ports(block.temporal_attention, x)
    ports(block.spatial_attention, x)
    out = ports(block.time_conv, ports(block.conv, x))
    assert out is not None
    convolution(ports, block.residual, x, out)
    return ports(block.norm, out)
