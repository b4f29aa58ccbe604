"""Layers and models."""

from pyg_stkd.nn.conv import DynamicEdgeConv, EdgeConv, GATConv, KNNGraph
from pyg_stkd.nn.models import ASTGCN, DGCNN, GAT, STGCN
from pyg_stkd.nn.sequence import (
    ChebAttentionConv,
    ChebConv,
    GatedTemporalConv,
    GCNConv,
    NodeBatchNorm,
    NodeLayerNorm,
    SpatialAttention,
    STConv,
    TemporalAttention,
)
from pyg_stkd.nn.sequence.operators import GraphOperator, cheb_operator, gcn_operator

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
