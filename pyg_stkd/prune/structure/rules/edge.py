"""Edge convolutions, on given and on dynamic graphs."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn

from pyg_stkd.nn import DynamicEdgeConv, EdgeConv
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.convolutions import aggregate, pair
from pyg_stkd.prune.structure.units import Channels

__all__ = ["edge_conv"]


@register(
    torch_geometric.nn.EdgeConv,
    torch_geometric.nn.DynamicEdgeConv,
    EdgeConv,
    DynamicEdgeConv,
)
def edge_conv(ports: Ports, conv: torch_geometric.nn.EdgeConv, x: Any) -> Channels | None:
    """The network of [x_i, x_j - x_i]: columns c and C + c belong to channel c.

    The nearest neighbours of a dynamic graph do not change: masked channels are the same for all
    nodes.
    """
    src, dst = pair(x)
    own = ports.tie(src, dst)
    out = ports(conv.nn, None if own is None else own + own)
    return None if out is None else aggregate(ports, conv.aggr_module, out)
