"""A whole block of thin layers on rows [T, C, B * N], without a copy between its layers.

Small models pay for calls more than for arithmetic. Modules with hooks (masks, captures), those
that took the place of ours and dropout at work are left to the block's own :obj:`forward`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as _hooks

from pyg_stkd.nn.sequence.cheb_conv import ChebConv, GCNConv
from pyg_stkd.nn.sequence.cheb_filter import cheb_filter
from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.sequence.nodes_last import (
    conv_rows,
    filter_rows,
    from_rows,
    has_short_rows,
    linear_rows,
    pays,
    to_rows,
)
from pyg_stkd.nn.sequence.norm import NodeLayerNorm
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator
from pyg_stkd.nn.sequence.time_conv import TimeConv, apply_gate

__all__ = [
    "is_plain",
    "is_thin",
    "is_thin_temporal",
    "run_block",
    "run_temporal",
    "thin_pays",
]


def is_plain(module: nn.Module | None, *classes: type[nn.Module]) -> bool:
    """Whether a module is :obj:`None` or of one of the classes, with nothing hooked to it."""
    if module is None:
        return True
    if type(module) not in classes or "forward" in module.__dict__:
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)


def thin_pays(x: Tensor, in_channels: int, widest: int) -> bool:
    """Whether rows pay for layers up to this width; not with gradients or hooks on all modules."""
    return (
        pays(x, in_channels, widest)
        and not torch.is_grad_enabled()
        and not _hooks._global_forward_hooks
        and not _hooks._global_forward_pre_hooks
    )


def is_thin(block: nn.Module) -> bool:
    """Whether the layers of an STConv may run on rows."""
    parts = block._modules  # direct: attributes of modules are slow
    dropout = parts["dropout"]
    return (
        is_plain(parts["conv"], ChebConv, GCNConv)
        and is_plain(parts.get("align"), nn.Linear)
        and is_plain(parts.get("norm"), NodeLayerNorm)
        and is_plain(dropout, nn.Dropout)
        and dropout is not None
        and not dropout.training
        and is_thin_temporal(parts["temporal1"])
        and is_thin_temporal(parts["temporal2"])
    )


def is_thin_temporal(layer: Any) -> bool:
    """Whether a temporal convolution may run on rows."""
    return (
        is_plain(layer, GatedTemporalConv)
        and is_plain(layer._modules["conv"], TimeConv)
        and layer._modules.get("align") is None
        and layer.padding == "valid"
    )


def run_block(block: Any, rows: Tensor, num_batch: int, operator: GraphOperator) -> Tensor:
    """Run an STConv on rows [T, C, B * N]."""
    h = run_temporal(block.temporal1, rows)
    align, norm = block.align, block.norm
    if align is not None:
        h = linear_rows(h, align.weight, align.bias)
    elif block.residual and h.size(1) < block.hidden_channels:
        h = F.pad(h, (0, 0, 0, block.hidden_channels - h.size(1)))
    conv = block.conv
    if has_short_rows(operator):
        out = filter_rows(operator, h, num_batch, conv.weight, conv.bias, conv.first)
    else:
        h_steps = from_rows(h, num_batch)
        out = to_rows(cheb_filter(operator, h_steps, conv.weight, conv.bias, conv.first))
    if block.residual:
        out = out.add_(h)
    h = run_temporal(block.temporal2, out.relu_())
    return h if norm is None else norm.on_rows(h, num_batch)


def run_temporal(layer: GatedTemporalConv, rows: Tensor) -> Tensor:
    """Run a temporal convolution on rows."""
    residual = layer.out_channels if layer.residual else 0
    conv = layer.conv
    maps = conv_rows(rows, conv.weight, conv.bias, residual)
    return apply_gate(maps, layer.gate, dim=1)
