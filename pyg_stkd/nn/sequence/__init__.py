"""Layers on sequences [B, T, N, C]: convolutions in time and on a graph, attention, norms."""

from pyg_stkd.nn.sequence.cheb_conv import ChebConv
from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.sequence.gcn_conv import GCNConv
from pyg_stkd.nn.sequence.norm import NodeBatchNorm, NodeLayerNorm
from pyg_stkd.nn.sequence.st_attention import ChebAttentionConv, SpatialAttention, TemporalAttention
from pyg_stkd.nn.sequence.st_conv import STConv

__all__ = [
    "ChebAttentionConv",
    "ChebConv",
    "GCNConv",
    "GatedTemporalConv",
    "NodeBatchNorm",
    "NodeLayerNorm",
    "STConv",
    "SpatialAttention",
    "TemporalAttention",
]
