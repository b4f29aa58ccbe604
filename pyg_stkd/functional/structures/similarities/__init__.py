"""How alike two nodes or time steps are: features made ready, products and distances of them."""

from pyg_stkd.functional.structures.similarities.similarity import similarity

__all__ = ["similarity"]
