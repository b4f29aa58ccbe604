"""Functions that hold the math: primitives, structures in space and time, nearest neighbours."""

from pyg_stkd.functional.contrast import contrast
from pyg_stkd.functional.global_structure import gsp
from pyg_stkd.functional.knn import knn_graph
from pyg_stkd.functional.response import response
from pyg_stkd.functional.similarity import similarity
from pyg_stkd.functional.sparse import (
    sddmm,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
    spmm,
)
from pyg_stkd.functional.spatial import spatial_correlation
from pyg_stkd.functional.structure import local_structure, lsp
from pyg_stkd.functional.temporal import temporal_correlation, temporal_structure

__all__ = [
    "contrast",
    "gsp",
    "knn_graph",
    "local_structure",
    "lsp",
    "response",
    "sddmm",
    "segment_log_softmax",
    "segment_softmax",
    "segment_sum",
    "similarity",
    "spatial_correlation",
    "spmm",
    "temporal_correlation",
    "temporal_structure",
]
