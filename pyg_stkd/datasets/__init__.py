"""Data sets: real ones from local folders, and generated ones that need no file."""

from pyg_stkd.datasets.ppi import load_ppi
from pyg_stkd.datasets.proteins import Proteins
from pyg_stkd.datasets.synthetic_proteins import SyntheticProteins

__all__ = ["Proteins", "SyntheticProteins", "load_ppi"]
