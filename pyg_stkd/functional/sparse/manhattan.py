"""Manhattan distance of both ends of each edge."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyg_stkd.graph import Graph, is_transforming

__all__ = ["chunks", "difference", "manhattan"]

# Elements of the two gathered blocks that are alive at once; 2**16 floats stay in the L2 cache.
_CHUNK = 1 << 16


def manhattan(graph: Graph, z: Tensor) -> Tensor:
    r"""Compute :math:`d_e = \lVert \mathbf{z}_{dst(e)} - \mathbf{z}_{src(e)} \rVert_1`.

    No matrix product gives this distance, so edges are gathered in chunks, forward and backward.

    Args:
        graph (Graph): The edges, of a graph that is not bipartite.
        z (Tensor): Node features.

    Shapes:
        - **z:** :math:`(N, F)`
        - **output:** :math:`(|\mathcal{E}|)`, in the graph's order
    """
    if is_transforming():
        source, target = graph.edge_index
        return (z.index_select(0, target) - z.index_select(0, source)).abs().sum(-1)
    return _Manhattan.apply(z, *graph.csr()[1:])


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("manhattan(Tensor z, Tensor v, Tensor col, Tensor row) -> Tensor")
_library.define("manhattan_backward(Tensor grad, Tensor z, Tensor col, Tensor row) -> Tensor")


def chunks(z: Tensor, col: Tensor, row: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Cut edges into parts that a cache holds the features of: which, their targets and sources."""
    step = max(1, _CHUNK // max(1, z.size(1)))
    for i in range(0, col.numel(), step):
        yield slice(i, i + step), row[i : i + step], col[i : i + step]


def difference(z: Tensor, dst: Tensor, src: Tensor) -> Tensor:
    """Return target minus source of each edge."""
    return z.index_select(0, dst).sub_(z.index_select(0, src))


@torch.library.impl(_library, "manhattan", "CompositeExplicitAutograd")
def _manhattan(z: Tensor, v: Tensor, col: Tensor, row: Tensor) -> Tensor:
    """Return sum_f sign(z_i - z_j) (v_i - v_j), which is the distance for v = z."""
    out = v.new_empty(col.numel())
    for part, dst, src in chunks(z, col, row):
        if v is z:
            out[part] = difference(z, dst, src).abs_().sum(-1)
        else:
            out[part] = difference(z, dst, src).sign_().mul_(difference(v, dst, src)).sum(-1)
    return out


@torch.library.register_fake("pyg_stkd::manhattan", lib=_library)
def _(z: Tensor, v: Tensor, col: Tensor, row: Tensor) -> Tensor:
    return v.new_empty(col.size(0))


@torch.library.impl(_library, "manhattan_backward", "CompositeExplicitAutograd")
def _manhattan_backward(grad: Tensor, z: Tensor, col: Tensor, row: Tensor) -> Tensor:
    out = torch.zeros_like(z)
    for part, dst, src in chunks(z, col, row):
        slope = difference(z, dst, src).sign_().mul_(grad[part, None])
        out.index_add_(0, dst, slope)
        out.index_add_(0, src, slope, alpha=-1)
    return out


@torch.library.register_fake("pyg_stkd::manhattan_backward", lib=_library)
def _(grad: Tensor, z: Tensor, col: Tensor, row: Tensor) -> Tensor:
    return torch.empty_like(z)


class _Manhattan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, col, row):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z, col, row)
        return torch.ops.pyg_stkd.manhattan(z, z, col, row)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return _ManhattanBackward.apply(grad, *ctx.saved_tensors), None, None


class _ManhattanBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad, z, col, row):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z, col, row)
        return torch.ops.pyg_stkd.manhattan_backward(grad, z, col, row)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, col, row = ctx.saved_tensors
        # The sign has slope 0 wherever it has one: only the edges' gradient is left.
        return torch.ops.pyg_stkd.manhattan(z, grad, col, row), None, None, None
