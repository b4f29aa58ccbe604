"""Graph attention, with channels or whole heads as units."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch_geometric.nn

from pyg_stkd.nn import GATConv
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.convolutions import pair
from pyg_stkd.prune.structure.rules.dense import linear
from pyg_stkd.prune.structure.units import Channels

__all__ = ["dna_conv", "gat_conv", "gatv2_conv", "transformer_conv"]


def _heads(ports: Ports, conv: Any) -> tuple[Channels, Channels, Channels, Channels]:
    """Return the channels of the heads, of one head, of all heads, and of the output.

    Column :obj:`h * F + c` belongs to channel c of all heads, or to head h as a whole.
    """
    H, F = conv.heads, conv.out_channels
    heads, channels = ports.fresh(H, "head"), ports.fresh(F)
    if not conv.concat:
        ports.freeze(heads)  # a mean over heads divides by their number
    columns = tuple(unit for unit in heads for _ in range(F)) if ports.heads else channels * H
    return heads, channels, columns, columns if conv.concat else channels


def _rows(ports: Ports, conv: Any, x: Any, names: tuple[str, str]) -> Any:
    """Return the channels of sources and targets as wide as the layers of these names."""
    src, dst = pair(x)
    src = ports.sized(src, getattr(conv, names[0]).weight.size(1))
    if not isinstance(conv.in_channels, (tuple, list)):
        return src, src
    return src, ports.sized(dst, getattr(conv, names[1]).weight.size(1))


@register(torch_geometric.nn.GATConv, GATConv)
def gat_conv(ports: Ports, conv: torch_geometric.nn.GATConv, x: Any) -> Channels:
    """Linear layers to all heads, and vectors that score each head."""
    shared = conv.lin is not None
    src, dst = _rows(ports, conv, x, ("lin", "lin") if shared else ("lin_src", "lin_dst"))
    heads, channels, columns, out = _heads(ports, conv)
    if shared:
        linear(ports, conv.lin, src, columns)
    else:
        linear(ports, conv.lin_src, src, columns)
        linear(ports, conv.lin_dst, dst, columns)
    if conv.lin_edge is not None:
        linear(ports, conv.lin_edge, None, columns)
    for name in ("att_src", "att_dst", "att_edge"):
        ports.own(conv, name, 1, heads)
        ports.own(conv, name, 2, channels)
    _finish(ports, conv, (src, dst), (heads, channels, out))
    return out


@register(torch_geometric.nn.GATv2Conv)
def gatv2_conv(ports: Ports, conv: torch_geometric.nn.GATv2Conv, x: Any) -> Channels:
    """Linear layers to all heads, and one vector that scores each head."""
    src, dst = _rows(ports, conv, x, ("lin_l", "lin_r"))
    heads, channels, columns, out = _heads(ports, conv)
    linear(ports, conv.lin_l, src, columns)
    if conv.lin_r is not conv.lin_l:
        linear(ports, conv.lin_r, dst, columns)
    if conv.lin_edge is not None:
        linear(ports, conv.lin_edge, None, columns)
    ports.own(conv, "att", 1, heads)
    ports.own(conv, "att", 2, channels)
    _finish(ports, conv, (src, dst), (heads, channels, out))
    return out


@register(torch_geometric.nn.TransformerConv)
def transformer_conv(ports: Ports, conv: torch_geometric.nn.TransformerConv, x: Any) -> Channels:
    """Queries, keys and values of all heads; queries grow as the root of the width shrinks."""
    src, dst = _rows(ports, conv, x, ("lin_key", "lin_query"))
    heads, channels, columns, out = _heads(ports, conv)
    linear(ports, conv.lin_key, src, columns)
    linear(ports, conv.lin_query, dst, columns)
    linear(ports, conv.lin_value, src, columns)
    if conv.lin_edge is not None:
        linear(ports, conv.lin_edge, None, columns)
    if conv.root_weight:
        linear(ports, conv.lin_skip, dst, out)
    if conv.lin_beta is not None:
        linear(ports, conv.lin_beta, out * 3, ports.kept(1))
    ports.attribute(conv, "in_channels", [src, dst] if isinstance(conv.in_channels, tuple) else src)
    ports.attribute(conv, "heads", heads)
    ports.attribute(conv, "out_channels", channels)
    ports.rescale(conv, channels, _scale_queries)
    return out


@torch.no_grad()
def _scale_queries(conv: Any, share: float) -> None:
    """Undo the division by the root of the channels, which are fewer now."""
    conv.lin_query.weight.mul_(math.sqrt(share))
    if conv.lin_query.bias is not None:
        conv.lin_query.bias.mul_(math.sqrt(share))


@register(torch_geometric.nn.DNAConv)
def dna_conv(ports: Ports, conv: torch_geometric.nn.DNAConv, x: Any) -> Channels:
    """Queries, keys and values of the layers before: the same channels of each head and group."""
    attention = conv.multi_head
    width, groups = attention.in_channels, attention.groups
    part = width // groups
    x = ports.sized(x, width)
    ports.tie(x, x[:part] * groups)
    one = ports.fresh(width // max(groups, attention.heads))
    out = one * (width // len(one))
    for lin in (attention.lin_q, attention.lin_k, attention.lin_v):
        ports.own(lin, "weight", 1, x[:part])
        ports.own(lin, "weight", 2, out[:part])
        ports.own(lin, "bias", 0, out)
        ports.attribute(lin, "in_channels", x)
        ports.attribute(lin, "out_channels", out)
    ports.attribute(attention, "in_channels", x)
    ports.attribute(attention, "out_channels", out)
    ports.rescale(attention, one, _scale_dna_queries)
    return out


@torch.no_grad()
def _scale_dna_queries(attention: Any, share: float) -> None:
    attention.lin_q.weight.mul_(math.sqrt(share))
    if attention.lin_q.bias is not None:
        attention.lin_q.bias.mul_(math.sqrt(share))


def _finish(ports: Ports, conv: Any, x: Any, y: Any) -> None:
    heads, channels, out = y
    if conv.res is not None:
        linear(ports, conv.res, x[1], out)
    ports.own(conv, "bias", 0, out)
    bipartite = isinstance(conv.in_channels, (tuple, list))
    ports.attribute(conv, "in_channels", list(x) if bipartite else x[0])
    ports.attribute(conv, "heads", heads)
    ports.attribute(conv, "out_channels", channels)
