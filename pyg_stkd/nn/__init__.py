"""Layers and models."""

from pyg_stkd.nn.conv import DynamicEdgeConv, EdgeConv, GATConv, KNNGraph
from pyg_stkd.nn.models import DGCNN, GAT

__all__ = ["DGCNN", "DynamicEdgeConv", "EdgeConv", "GAT", "GATConv", "KNNGraph"]
