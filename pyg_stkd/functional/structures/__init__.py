"""Structures of features, local, spatial, temporal and global, and their distances."""

from pyg_stkd.functional.structures.contrast import contrast
from pyg_stkd.functional.structures.global_structure import gsp
from pyg_stkd.functional.structures.local import local_structure, lsp
from pyg_stkd.functional.structures.response import response
from pyg_stkd.functional.structures.similarities import similarity
from pyg_stkd.functional.structures.spatial import spatial_correlation
from pyg_stkd.functional.structures.temporal import temporal_correlation, temporal_structure

__all__ = [
    "contrast",
    "gsp",
    "local_structure",
    "lsp",
    "response",
    "similarity",
    "spatial_correlation",
    "temporal_correlation",
    "temporal_structure",
]
