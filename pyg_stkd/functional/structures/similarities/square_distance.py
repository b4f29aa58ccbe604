"""Squared distance of both ends of each edge: without doctests, for its operator.

pytest imports a file with doctests anew where that file alone is given, and an operator can be
defined only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.functional.sparse.manhattan import chunks, difference
from pyg_stkd.functional.sparse.sparse_ops import SegmentSum, SpMM, graph_index, weighted_sum
from pyg_stkd.functional.structures.similarities.prepared import lost_digits
from pyg_stkd.graph import Graph, is_transforming
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.graph.order import places
from pyg_stkd.graph.unordered import kept_pairs, unordered

__all__ = ["pulled", "square_distance", "squares"]

# Up to so many numbers in them, differences are quicker than norms and products, and exact.
_FEW = 1 << 14


def square_distance(graph: Graph, z: Tensor) -> Tensor:
    """Return the squared distances of both ends of the edges, from nodes of single precision."""
    # Asked last: a compiler would compile once more for the sizes on the other side.
    few = not torch.compiler.is_compiling() and graph.num_edges * z.size(-1) <= _FEW
    if few or is_transforming():
        col, row = graph.edge_index if is_transforming() else graph.csr()[1:]
        return (z.index_select(0, row) - z.index_select(0, col)).square().sum(dim=-1)
    if torch.compiler.is_compiling():
        return _compiled(graph, z)
    pairs, place = unordered(graph) if graph.lasting else (None, None)
    if pairs is None:
        return _SquareDistance.apply(z, graph, None)
    return _SquareDistance.apply(z, pairs, place)


def _compiled(graph: Graph, z: Tensor) -> Tensor:
    """Return the same of arrays alone, which is all that a compiler traces.

    How many pairs there are it cannot tell: they are those that an eager call has left.
    """
    pairs, place = kept_pairs(graph)
    graph = graph if pairs is None else pairs
    index = graph_index(graph, z)
    # Without a backward pass there is no transpose.
    ways = both_ways(graph) if graph.lasting and len(index) > 3 else ()
    out = _OfArrays.apply(z, len(ways), *ways, *index)
    return out if pairs is None else out.index_select(0, place)


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("square_distance(Tensor[] index, Tensor z) -> (Tensor, Tensor, Tensor)")
_library.define(
    "square_distance_backward("
    "Tensor[] index, Tensor[] ways, Tensor grad, Tensor z, Tensor shift, Tensor lost) -> Tensor"
)


@torch.library.impl(_library, "square_distance", "CompositeExplicitAutograd")
def _square_distance(index: list[Tensor], z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shift = _shift(z)
    moved = z if shift is None else z - shift
    out, lost = _measure(index, z, moved, _norms(index, moved))
    shift = z.new_zeros(z.size(1)) if shift is None else shift
    return out.clamp_(min=0), shift, torch.tensor(lost)


@torch.library.register_fake("pyg_stkd::square_distance", lib=_library)
def _(index: list[Tensor], z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shift, lost = z.new_empty(z.size(1)), torch.empty((), dtype=torch.bool)
    return z.new_empty(index[1].size(0)), shift, lost


@torch.library.impl(_library, "square_distance_backward", "CompositeExplicitAutograd")
def _square_distance_backward(
    index: list[Tensor], ways: list[Tensor], grad: Tensor, z: Tensor, shift: Tensor, lost: Tensor
) -> Tensor:
    if bool(lost):
        return _wide_pull(index, ways, grad, z)
    moved = z - shift if bool(shift.any()) else z
    return _pull(index, ways, -2 * grad, moved)


@torch.library.register_fake("pyg_stkd::square_distance_backward", lib=_library)
def _(
    index: list[Tensor], ways: list[Tensor], grad: Tensor, z: Tensor, shift: Tensor, lost: Tensor
) -> Tensor:
    return z.new_empty(z.shape)


def _shift(z: Tensor) -> Tensor | None:
    """Return by how much less of all nodes, which changes no distance, float32 has more digits."""
    mean = z.detach().mean(dim=0)
    if z.device.type == "cpu":
        # The copy is a large part of the whole time, and spares no digit of features that already
        # are about the origin: then the mean is a small part of their length.
        length = torch.linalg.vector_norm(z.detach())
        if 2 * z.size(0) * mean.square().sum() < length.square():
            return None
    return mean


def _norms(index: Any, moved: Tensor) -> Tensor:
    """Return squared norms by the kernel of the products: equal nodes are at distance 0 exactly."""
    pointer = torch.arange(moved.size(0) + 1, dtype=index[1].dtype, device=moved.device)
    out: Tensor = torch.ops.pyg_stkd.sddmm([pointer, pointer[:-1], pointer[:-1]], moved, moved)
    return out


def _measure(index: Any, z: Tensor, moved: Tensor, norm: Tensor) -> tuple[Tensor, bool]:
    """Return distances from norms and products, and whether differences lose digits of some.

    Of which distances norms and products have lost digits, those are measured by differences.
    """
    _, col, row = index[:3]
    out = torch.ops.pyg_stkd.sddmm(list(index), moved, moved).mul_(-2)
    norms = norm.index_select(0, row).add_(norm.index_select(0, col))
    out.add_(norms)
    edge = places(lost_digits(out, norms))
    edge = edge[row.index_select(0, edge) != col.index_select(0, edge)]  # loops are exact
    if edge.numel() == 0:
        return out, False
    row, col = row.index_select(0, edge), col.index_select(0, edge)
    exact = torch.cat([difference(z, *ends).square_().sum(-1) for _, *ends in chunks(z, col, row)])
    out.index_copy_(0, edge, exact)
    return out, bool(_loses_gradient(exact, norms.index_select(0, edge)).any())


def _loses_gradient(exact: Tensor, norms: Tensor) -> Tensor:
    """Tell which differences of nodes have lost the digits that their squares had lost before.

    As a part of the nodes these are the root of the squares. Of equal nodes they are 0 but for
    the last digits of the nodes, and nothing is pulled anywhere by them.
    """
    return lost_digits(exact.sqrt(), norms.sqrt()) & (exact > 0)


def squares(graphs: Sequence[Graph], z: Tensor) -> tuple[list[Tensor], Tensor, list[bool]]:
    """Return squared distances on some graphs on the same nodes, without derivatives, and of what
    :func:`pulled` makes these: the nodes about the origin, and of which graphs digits are lost.
    """
    shift = _shift(z)
    moved = z if shift is None else z - shift
    norm = _norms(graphs[0].csr(), moved)
    found = [_measure(graph.csr(), z, moved, norm) for graph in graphs]
    return [out.clamp_(min=0) for out, _ in found], moved, [lost for _, lost in found]


def pulled(graph: Graph, z: Tensor, moved: Tensor, grad: Tensor, lost: bool) -> Tensor:
    """Return the gradient of nodes, given that of squared distances on one of the graphs."""
    ways = both_ways(graph) if graph.lasting else ()
    # What makes one sweep of both ways needs no transpose.
    index = graph.csr() if ways else (*graph.csr(), *graph.csc())
    if lost:
        return _wide_pull(index, ways, grad, z)
    return _pull(index, ways, -2 * grad, moved)


class _SquareDistance(torch.autograd.Function):
    """The distance from norms and products, in place on few arrays.

    With :obj:`place`, the graph is one of pairs of nodes, and the distances those at these places.
    """

    @staticmethod
    def forward(ctx, z, graph, place):  # type: ignore[no-untyped-def]
        ctx.graph, ctx.place = graph, place
        (out,), moved, (ctx.lost,) = squares((graph,), z)
        ctx.save_for_backward(z, moved)
        return out if place is None else out.index_select(0, place)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, other = ctx.saved_tensors
        if ctx.place is not None:
            of_pair = grad.new_zeros(ctx.graph.num_edges)
            grad = of_pair.index_add(0, ctx.place, grad)
        if torch.is_grad_enabled():
            index = *ctx.graph.csr(), *ctx.graph.csc()
            out = _gradient(index, grad, z, ctx.lost)  # which can be derived again
        else:
            out = pulled(ctx.graph, z, other, grad, ctx.lost)
        return out, None, None


def _wide(z: Tensor) -> Tensor:
    return z if z.device.type == "mps" else z.double()


def _gradient(index: Any, grad: Tensor, z: Tensor, lost: bool) -> Tensor:
    """Return sum_e 2 w_e (z_i - z_j) at each node, in float64 if digits are lost."""
    dtype = z.dtype
    z = _wide(z) if lost else z
    z, grad = z - z.detach().mean(dim=0), -2 * grad.to(z.dtype)
    out = SpMM.apply(grad, z, False, *index).add_(SpMM.apply(grad, z, True, *index))
    of_node = SegmentSum.apply(grad, *index[:3:2]).index_add(0, index[1], grad)
    return out.addcmul_(of_node[:, None], z, value=-1).to(dtype)


def _wide_pull(index: Any, ways: Any, grad: Tensor, z: Tensor) -> Tensor:
    """Return the gradient of distances in float64."""
    wide = _wide(z)
    return _pull(index, ways, -2 * grad.to(wide.dtype), wide - wide.mean(dim=0)).to(z.dtype)


def _pull(index: Any, ways: Any, weight: Tensor, z: Tensor) -> Tensor:
    """Return sum_e w_e (z_j - z_i) over the edges at each node, in and out, in one sweep."""
    if z.numel() == 0 or weight.numel() == 0:
        return z.new_zeros(z.shape)  # as the operator promises, also of transposed nodes
    if not ways:
        return _pull_once(index, weight, z.contiguous())
    pointer, node, place = ways
    total = torch.ops.pyg_stkd.segment_sum(index[0], weight).index_add_(0, index[1], weight)
    weight = torch.cat([weight, total.neg_()]).index_select(0, place)
    return weighted_sum(pointer, node, weight, z.contiguous())


def _pull_once(index: Any, weight: Tensor, z: Tensor) -> Tensor:
    """Do the same in two sweeps, for which less is made of the graph."""
    pointer, col, _, pointer_t, row, perm = index
    back = weight.index_select(0, perm)
    total = torch.ops.pyg_stkd.segment_sum(pointer, weight)
    total += torch.ops.pyg_stkd.segment_sum(pointer_t, back)
    out = weighted_sum(pointer, col, weight, z).add_(weighted_sum(pointer_t, row, back, z))
    return out.addcmul_(total[:, None], z, value=-1)


class _OfArrays(torch.autograd.Function):
    """The same for compilers: of how many arrays of both ways, these, and those of the graph."""

    @staticmethod
    def forward(ctx, z, ways, *arrays):  # type: ignore[no-untyped-def]
        out, shift, lost = torch.ops.pyg_stkd.square_distance(list(arrays[ways:]), z)
        ctx.save_for_backward(z, shift, lost, *arrays)
        ctx.ways = ways
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, shift, lost, *arrays = ctx.saved_tensors
        ways, index = arrays[: ctx.ways], arrays[ctx.ways :]
        out = torch.ops.pyg_stkd.square_distance_backward(index, ways, grad, z, shift, lost)
        return out, *[None] * (1 + len(arrays))
