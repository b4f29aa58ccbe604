"""Layers and models."""

from pyg_stkd.nn.conv import (
    ChebAttentionConv,
    ChebConv,
    DynamicEdgeConv,
    EdgeConv,
    GATConv,
    GatedTemporalConv,
    GCNConv,
    GraphOperator,
    KNNGraph,
    SpatialAttention,
    STConv,
    TemporalAttention,
    cheb_operator,
    gcn_operator,
)
from pyg_stkd.nn.models import ASTGCN, DGCNN, GAT, STGCN
from pyg_stkd.nn.norm import NodeBatchNorm, NodeLayerNorm

__all__ = [
    "ASTGCN",
    "ChebAttentionConv",
    "ChebConv",
    "DGCNN",
    "DynamicEdgeConv",
    "EdgeConv",
    "GAT",
    "GATConv",
    "GCNConv",
    "GatedTemporalConv",
    "GraphOperator",
    "KNNGraph",
    "NodeBatchNorm",
    "NodeLayerNorm",
    "STConv",
    "STGCN",
    "SpatialAttention",
    "TemporalAttention",
    "cheb_operator",
    "gcn_operator",
]
