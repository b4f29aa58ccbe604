"""The sparse primitives on a graph, and what is fused from them."""

from pyg_stkd.functional.sparse.primitives import (
    sddmm,
    segment_log_softmax,
    segment_softmax,
    segment_sum,
    spmm,
)

__all__ = ["sddmm", "segment_log_softmax", "segment_softmax", "segment_sum", "spmm"]
