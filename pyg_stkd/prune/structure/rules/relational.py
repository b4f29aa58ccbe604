"""Convolutions over edges of several types."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.convolutions import aggregate, pair
from pyg_stkd.prune.structure.units import Channels

__all__ = ["rgcn_conv"]


@register(torch_geometric.nn.RGCNConv, torch_geometric.nn.FastRGCNConv)
def rgcn_conv(ports: Ports, conv: torch_geometric.nn.RGCNConv, x: Any) -> Channels:
    """A matrix for each type of edges, or for each basis of them, and one of the node itself."""
    if conv.num_blocks is not None:
        raise ValueError(f"No rule says which blocks channels are in: {ports.name_of(conv)!r}")
    src, dst = pair(x)
    src = aggregate(ports, conv.aggr_module, ports.sized(src, conv.weight.size(1)))
    bipartite = isinstance(conv.in_channels, (tuple, list))
    if bipartite and conv.root is not None:
        dst = ports.sized(dst, conv.root.size(0))
    elif not bipartite:
        dst = src
    out = ports.fresh(conv.weight.size(2))
    ports.own(conv, "weight", 1, src)
    ports.own(conv, "weight", 2, out)
    if conv.root is not None and dst is not None:
        ports.own(conv, "root", 0, dst)
        ports.own(conv, "root", 1, out)
    ports.own(conv, "bias", 0, out)
    ports.attribute(conv, "in_channels", [src, dst or src] if bipartite else src)
    ports.attribute(conv, "in_channels_l", src)
    ports.attribute(conv, "out_channels", out)
    return out
