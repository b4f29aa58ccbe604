"""Graph convolutions of PyG."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn
from torch_geometric.nn import aggr

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.dense import linear
from pyg_stkd.prune.structure.units import Channels

__all__ = [
    "aggregate",
    "cheb_conv",
    "gcn2_conv",
    "gcn_conv",
    "gin_conv",
    "graph_conv",
    "pair",
    "sage_conv",
]

_OF_EACH_CHANNEL = (
    aggr.SumAggregation,
    aggr.MeanAggregation,
    aggr.MaxAggregation,
    aggr.MinAggregation,
    aggr.MulAggregation,
    aggr.VarAggregation,
    aggr.StdAggregation,
    aggr.MedianAggregation,
)


def pair(x: Any) -> tuple[Channels | None, Channels | None]:
    """Return the channels of sources and targets, which need not differ."""
    if x is None or (x and isinstance(x[0], int)):
        return x, x
    return x[0], x[1]


def aggregate(ports: Ports, module: Any, x: Channels) -> Channels:
    """Return the channels of aggregated messages, several times if there are several ways."""
    if type(module) is aggr.MultiAggregation and module.mode == "cat":
        return tuple(unit for way in module.aggrs for unit in aggregate(ports, way, x))
    if type(module) not in _OF_EACH_CHANNEL or any(True for _ in module.parameters()):
        raise ValueError(
            f"No rule says what becomes of channels in {type(module).__name__} of "
            f"{ports.name_of(module)!r}: register one for its layer, or give ignore=[layer]"
        )
    return x


def _of_layer(ports: Ports, conv: Any, x: Any, out: Channels) -> None:
    shape = list(x) if isinstance(conv.in_channels, (tuple, list)) else x[0]
    ports.attribute(conv, "in_channels", shape)
    ports.attribute(conv, "out_channels", out)


@register(torch_geometric.nn.GCNConv)
def gcn_conv(ports: Ports, conv: torch_geometric.nn.GCNConv, x: Channels | None) -> Channels:
    """A linear layer; propagation treats each channel by itself."""
    x = ports.sized(x, conv.lin.weight.size(1))
    out = linear(ports, conv.lin, x)
    ports.own(conv, "bias", 0, out)
    _of_layer(ports, conv, (x, x), out)
    return out


@register(torch_geometric.nn.ChebConv)
def cheb_conv(ports: Ports, conv: torch_geometric.nn.ChebConv, x: Channels | None) -> Channels:
    """A linear layer for each order, all from and to the same channels."""
    x = ports.sized(x, conv.lins[0].weight.size(1))
    out = linear(ports, conv.lins[0], x)
    for lin in conv.lins[1:]:
        linear(ports, lin, x, out)
    ports.own(conv, "bias", 0, out)
    _of_layer(ports, conv, (x, x), out)
    return out


@register(torch_geometric.nn.GCN2Conv)
def gcn2_conv(ports: Ports, conv: torch_geometric.nn.GCN2Conv, x: Channels | None) -> Channels:
    """Square matrices from the channels to the same ones, added to what they are multiplied with.

    The first features, the second input, have the same channels.
    """
    x = ports.sized(x, conv.channels)
    for name in ("weight1", "weight2"):
        ports.own(conv, name, 0, x)
        ports.own(conv, name, 1, x)
    ports.attribute(conv, "channels", x)
    return x


@register(torch_geometric.nn.SAGEConv)
def sage_conv(ports: Ports, conv: torch_geometric.nn.SAGEConv, x: Any) -> Channels:
    """A linear layer of the neighbours and one of the node itself, added."""
    src, dst = pair(x)
    ways = len(getattr(conv.aggr_module, "aggrs", [0]))
    first = conv.lin.weight.size(1) if conv.project else conv.lin_l.weight.size(1) // ways
    src = ports.sized(src, first)
    if not isinstance(conv.in_channels, (tuple, list)):
        dst = src
    elif conv.root_weight:
        dst = ports.sized(dst, conv.lin_r.weight.size(1))
    sent = linear(ports, conv.lin, src) if conv.project else src
    out = linear(ports, conv.lin_l, aggregate(ports, conv.aggr_module, sent))
    if conv.root_weight:
        linear(ports, conv.lin_r, dst, out)
    _of_layer(ports, conv, (src, dst or src), out)
    return out


@register(torch_geometric.nn.GraphConv)
def graph_conv(ports: Ports, conv: torch_geometric.nn.GraphConv, x: Any) -> Channels:
    """A linear layer of the neighbours and one of the node itself, added."""
    src, dst = pair(x)
    src = ports.sized(src, conv.lin_rel.weight.size(1))
    same = not isinstance(conv.in_channels, (tuple, list))
    dst = ports.sized(src if same else dst, conv.lin_root.weight.size(1))
    out = linear(ports, conv.lin_rel, aggregate(ports, conv.aggr_module, src))
    linear(ports, conv.lin_root, dst, out)
    _of_layer(ports, conv, (src, dst), out)
    return out


@register(torch_geometric.nn.GINConv)
def gin_conv(ports: Ports, conv: torch_geometric.nn.GINConv, x: Any) -> Channels | None:
    """The network of the sum of a node and its neighbours."""
    src, dst = pair(x)
    src = ports.tie(src, dst)
    if src is not None:
        src = aggregate(ports, conv.aggr_module, src)
    return ports(conv.nn, src)
