"""Graph convolutions."""

from pyg_stkd.nn.conv.gat_conv import GATConv

__all__ = ["GATConv"]
