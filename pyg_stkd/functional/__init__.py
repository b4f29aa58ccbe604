"""Functions that hold the math: sparse primitives, local structures and nearest neighbours."""

from pyg_stkd.functional.knn import knn_graph
from pyg_stkd.functional.similarity import similarity
from pyg_stkd.functional.sparse import (
    sddmm,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
    spmm,
)
from pyg_stkd.functional.structure import local_structure, lsp

__all__ = [
    "knn_graph",
    "local_structure",
    "lsp",
    "sddmm",
    "segment_log_softmax",
    "segment_softmax",
    "segment_sum",
    "similarity",
    "spmm",
]
