"""Models, with the architectures of the papers as class methods."""

from pyg_stkd.nn.models.dgcnn import DGCNN
from pyg_stkd.nn.models.gat import GAT

__all__ = ["DGCNN", "GAT"]
