"""Models, with the architectures of the papers as class methods."""

from pyg_stkd.nn.models.astgcn import ASTGCN
from pyg_stkd.nn.models.dgcnn import DGCNN
from pyg_stkd.nn.models.gat import GAT
from pyg_stkd.nn.models.stgcn import STGCN

__all__ = ["ASTGCN", "DGCNN", "GAT", "STGCN"]
