"""Weighted sums over neighbours in many slices of one graph at once: without doctests.

pytest imports a file with doctests anew where that file alone is given, and an operator can be
defined only once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.sparse.sparse_ops import compute_dtype, weighted_sum
from pyg_stkd.graph.order import fits_int32

__all__ = ["spmm_slices"]

# Edges of the slices that are summed in one call: their arrays stay in the cache, and are made
# once. A call for each slice takes 1.4 times as long; one for all up to twice, of many edges.
_EDGES = 1 << 17


def spmm_slices(index: list[Tensor], weight: Tensor, x: Tensor, transpose: bool = False) -> Tensor:
    r"""Return the sums of weighted in-neighbours, or out-neighbours, without a derivative.

    Args:
        index (list of Tensor): The arrays of :func:`~.sparse_ops.graph_index`, with the transpose.
        weight (Tensor): The weight of each edge, the same in all slices.
        x (Tensor): Features.
        transpose (bool): Whether to sum along edges the other way. (default: :obj:`False`)

    Shapes:
        - **weight:** :math:`(|\mathcal{E}|)`
        - **x:** :math:`(S, N_{src}, F)`
        - **output:** :math:`(S, N_{dst}, F)`
    """
    out: Tensor = torch.ops.pyg_stkd.spmm_slices(index, weight, x, transpose)
    return out


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("spmm_slices(Tensor[] index, Tensor weight, Tensor x, bool transpose) -> Tensor")


@torch.library.impl(_library, "spmm_slices", "CompositeExplicitAutograd")
def _spmm_slices(index: list[Tensor], weight: Tensor, x: Tensor, transpose: bool) -> Tensor:
    pointer, col, perm = index[3:] if transpose else index[:3]
    dtype = compute_dtype(x.dtype)
    weight = (weight.index_select(0, perm) if transpose else weight).to(dtype)
    (num_slices, num_src, width), num_dst = x.shape, pointer.numel() - 1
    if num_slices == 1:
        return weighted_sum(pointer, col, weight, x[0].to(dtype).contiguous()).to(x.dtype)[None]
    out = x.new_empty(num_slices, num_dst, width)
    if out.numel() == 0:
        return out
    num_edges = col.numel()
    count = max(1, min(num_slices, _EDGES // max(1, num_edges)))
    if not fits_int32(count * num_src, count * num_edges):
        pointer, col = pointer.long(), col.long()
    step = torch.arange(count, dtype=col.dtype, device=col.device).unsqueeze(1)
    end = pointer.new_tensor([count * num_edges])
    pointer = torch.cat([(pointer[:-1] + step * num_edges).flatten(), end])
    col, weight = (col + step * num_src).flatten(), weight.repeat(count)
    x = x.to(dtype).contiguous()
    for start in range(0, num_slices, count):
        part = x[start : start + count]
        size = part.size(0)  # of the last call, perhaps a smaller one
        arrays = pointer[: size * num_dst + 1], col[: size * num_edges], weight[: size * num_edges]
        total = weighted_sum(*arrays, part.flatten(0, 1))
        out[start : start + size] = total.view(size, num_dst, width)
    return out


@torch.library.register_fake("pyg_stkd::spmm_slices", lib=_library)
def _(index: list[Tensor], weight: Tensor, x: Tensor, transpose: bool) -> Tensor:
    return x.new_empty(x.size(0), index[3 if transpose else 0].size(0) - 1, x.size(2))
