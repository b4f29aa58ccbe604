"""Proteins: graphs of interactions with several labels a node."""

from pyg_stkd.datasets.proteins.ppi import load_ppi
from pyg_stkd.datasets.proteins.proteins import Proteins
from pyg_stkd.datasets.proteins.synthetic_proteins import SyntheticProteins

__all__ = ["Proteins", "SyntheticProteins", "load_ppi"]
