"""Norms: of each channel by itself, or over channels, where masked ones must not count."""

from __future__ import annotations

from typing import Any

import torch_geometric.nn
from torch import nn

from pyg_stkd.nn import NodeBatchNorm, NodeLayerNorm
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.dense import linear
from pyg_stkd.prune.structure.units import Channels

__all__ = [
    "batch_norm",
    "diff_group_norm",
    "group_norm",
    "layer_norm",
    "node_batch_norm",
    "pyg_batch_norm",
    "pyg_layer_norm",
]


@register(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    torch_geometric.nn.InstanceNorm,
    torch_geometric.nn.GraphNorm,
)
def batch_norm(ports: Ports, norm: Any, x: Channels | None) -> Channels | None:
    """A scale, a shift and statistics for each channel."""
    width = getattr(norm, "num_features", None) or norm.in_channels
    x = ports.sized(x, int(width))
    for name in ("weight", "bias", "mean_scale", "running_mean", "running_var"):
        ports.own(norm, name, 0, x)
    ports.attribute(norm, "num_features", x)
    ports.attribute(norm, "in_channels", x)
    return x


@register(torch_geometric.nn.BatchNorm)
def pyg_batch_norm(
    ports: Ports, norm: torch_geometric.nn.BatchNorm, x: Channels | None
) -> Channels | None:
    """A batch norm in a wrapper."""
    x = ports.sized(x, norm.module.num_features)
    ports.attribute(norm, "in_channels", x)
    return ports(norm.module, x)


@register(nn.LayerNorm, nn.RMSNorm, NodeLayerNorm)
def layer_norm(ports: Ports, norm: nn.LayerNorm, x: Channels | None) -> Channels | None:
    """A scale and a shift for each channel, the last dimension, with statistics over all."""
    x = ports.sized(x, norm.normalized_shape[-1])
    ports.own(norm, "weight", -1, x)
    ports.own(norm, "bias", -1, x)
    rest = [ports.sized(None, size) for size in norm.normalized_shape[:-1]]
    ports.attribute(norm, "normalized_shape", [*rest, x])
    ports.skip(norm, x)
    return x


@register(torch_geometric.nn.LayerNorm, torch_geometric.nn.HeteroLayerNorm)
def pyg_layer_norm(
    ports: Ports, norm: torch_geometric.nn.LayerNorm, x: Channels | None
) -> Channels | None:
    """The same, over the channels of a node or of a whole graph; a row for each type of nodes."""
    x = ports.sized(x, norm.in_channels)
    ports.own(norm, "weight", -1, x)
    ports.own(norm, "bias", -1, x)
    ports.attribute(norm, "in_channels", x)
    ports.skip(norm, x)
    return x


@register(nn.GroupNorm)
def group_norm(ports: Ports, norm: nn.GroupNorm, x: Channels | None) -> Channels:
    """Groups, each with statistics of its own, which go as a whole; of one group its channels."""
    x = ports.sized(x, norm.num_channels)
    if norm.num_groups == 1:
        ports.skip(norm, x)
    else:
        size = norm.num_channels // norm.num_groups
        firsts = x[::size]
        ports.tie(x, tuple(unit for unit in firsts for _ in range(size)))
        ports.attribute(norm, "num_groups", firsts)
    ports.own(norm, "weight", 0, x)
    ports.own(norm, "bias", 0, x)
    ports.attribute(norm, "num_channels", x)
    return x


@register(torch_geometric.nn.DiffGroupNorm)
def diff_group_norm(
    ports: Ports, norm: torch_geometric.nn.DiffGroupNorm, x: Channels | None
) -> Channels:
    """A linear layer to soft groups, which are kept, and a batch norm of each group's channels."""
    x = ports.sized(x, norm.in_channels)
    linear(ports, norm.lin, x, ports.sized(None, norm.groups))
    batch_norm(ports, norm.norm, x * norm.groups)
    ports.attribute(norm, "in_channels", x)
    return x


@register(NodeBatchNorm)
def node_batch_norm(ports: Ports, norm: nn.Module, x: Channels | None) -> Channels | None:
    """A scale and a shift for each node, with statistics over its channels."""
    if x is not None:
        ports.skip(norm, x)
    return x
