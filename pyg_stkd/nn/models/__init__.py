"""Models, with the architectures of the papers as class methods."""

from pyg_stkd.nn.models.gat import GAT

__all__ = ["GAT"]
