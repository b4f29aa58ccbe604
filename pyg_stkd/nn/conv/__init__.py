"""Graph convolutions, in space, in time and on graphs that they build themselves."""

from pyg_stkd.nn.conv.cheb_conv import ChebConv, GCNConv
from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv, EdgeConv
from pyg_stkd.nn.conv.gat_conv import GATConv
from pyg_stkd.nn.conv.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.conv.graph_operator import GraphOperator
from pyg_stkd.nn.conv.knn_graph import KNNGraph
from pyg_stkd.nn.conv.spectral_operators import cheb_operator, gcn_operator
from pyg_stkd.nn.conv.st_attention import (
    ChebAttentionConv,
    SpatialAttention,
    TemporalAttention,
)
from pyg_stkd.nn.conv.st_conv import STConv

__all__ = [
    "ChebAttentionConv",
    "ChebConv",
    "DynamicEdgeConv",
    "EdgeConv",
    "GATConv",
    "GCNConv",
    "GatedTemporalConv",
    "GraphOperator",
    "KNNGraph",
    "STConv",
    "SpatialAttention",
    "TemporalAttention",
    "cheb_operator",
    "gcn_operator",
]
