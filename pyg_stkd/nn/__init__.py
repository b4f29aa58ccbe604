"""Layers and models."""

from pyg_stkd.nn.conv import GATConv
from pyg_stkd.nn.models import GAT

__all__ = ["GAT", "GATConv"]
