"""Functions that hold the math: primitives, structures in space and time, nearest neighbours."""

from pyg_stkd.functional.neighbours import knn_graph
from pyg_stkd.functional.sparse import (
    sddmm,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
    spmm,
)
from pyg_stkd.functional.structures import (
    contrast,
    gsp,
    local_structure,
    lsp,
    response,
    similarity,
    spatial_correlation,
    temporal_correlation,
    temporal_structure,
)

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
