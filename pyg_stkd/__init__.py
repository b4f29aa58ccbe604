"""Make graph neural networks small and fast without losing what they know."""

__version__ = "0.2.0"

from pyg_stkd.distill import Distiller
from pyg_stkd.prune import Pruner

__all__ = ["Distiller", "Pruner"]
