"""Attention of torch, whose heads share the width of inputs and outputs."""

from __future__ import annotations

import math

import torch
from torch import nn

from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.registry import register
from pyg_stkd.prune.structure.rules.dense import linear
from pyg_stkd.prune.structure.units import Channels

__all__ = ["multihead_attention"]


@register(nn.MultiheadAttention)
def multihead_attention(
    ports: Ports, module: nn.MultiheadAttention, x: Channels | None
) -> Channels:
    """Channel c of all heads: column :obj:`h * F + c` of inputs, heads and outputs alike.

    The width of the heads is that of the inputs, so all of them lose the same channels. Queries
    grow as the root of the width shrinks.
    """
    if module.in_proj_weight is None or module.bias_k is not None:
        raise ValueError("attention with other widths of keys, or with a bias of keys, is kept")
    if ports.heads:
        raise ValueError("heads that share the width of the inputs are kept")
    out = ports.fresh(module.head_dim) * module.num_heads
    x = ports.tie(ports.sized(x, module.embed_dim), out)
    ports.own(module, "in_proj_weight", 0, out * 3)
    ports.own(module, "in_proj_weight", 1, out)
    ports.own(module, "in_proj_bias", 0, out * 3)
    linear(ports, module.out_proj, out, out)
    for name in ("embed_dim", "kdim", "vdim"):
        ports.attribute(module, name, out)
    ports.attribute(module, "head_dim", out[: module.head_dim])
    ports.rescale(module, out, _scale_queries)
    return out


@torch.no_grad()
def _scale_queries(module: nn.MultiheadAttention, share: float) -> None:
    """Undo the division by the root of the channels of a head, which are fewer now."""
    width = module.embed_dim
    module.in_proj_weight[:width].mul_(math.sqrt(share))
    if module.in_proj_bias is not None:
        module.in_proj_bias[:width].mul_(math.sqrt(share))
