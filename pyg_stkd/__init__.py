"""Make graph neural networks small and fast without losing what they know."""

__version__ = "0.1.0"

from pyg_stkd.distill import Distiller

__all__ = ["Distiller"]
