r"""Similarity of both ends of each edge."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd import checks
from pyg_stkd.functional.sparse.manhattan import chunks, difference, manhattan
from pyg_stkd.functional.sparse.primitives import sddmm
from pyg_stkd.functional.sparse.sparse_ops import SegmentSum, SpMM, graph_index, weighted_sum
from pyg_stkd.graph import Graph
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.kernels import Kernel

__all__ = ["graph_of", "Normalize", "similarity"]

Normalize = Literal["l2", "layer"] | None


def similarity(z: Tensor, graph: Any, kernel: Kernel, normalize: Normalize = None) -> Tensor:
    r"""Similarity of both ends of each edge, :math:`\mathrm{SIM}(\mathbf{z}_i, \mathbf{z}_j)`.

    Distances come from norms and one :func:`sddmm` of the centred features, those that are small
    against the norms from differences (except under :func:`torch.compile`).

    Args:
        z (Tensor): Node features.
        graph (Graph, Tensor, EdgeIndex or SparseTensor): The edges, not of a bipartite graph.
        kernel (Kernel): The similarity.
        normalize (str, optional): :obj:`"l2"` for unit vectors, :obj:`"layer"` for features of
            mean 0 and variance 1 at each node. (default: :obj:`None`)

    Shapes:
        - **z:** :math:`(N, F)`
        - **output:** :math:`(|\mathcal{E}|)`, in the graph's order

    Example:
        >>> from pyg_stkd import kernels
        >>> z = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> similarity(z, Graph(torch.tensor([[0], [1]])), kernels.SquaredEuclidean())
        tensor([25.])
    """
    checks.instance("kernel", kernel, Kernel)
    checks.features("z", z)
    graph = graph_of(z, graph)
    if normalize == "l2":
        z = F.normalize(z, dim=-1)
    elif normalize == "layer":
        z = F.layer_norm(z, z.shape[-1:])
    elif normalize is not None:
        raise ValueError(f"'normalize' must be None, 'l2' or 'layer' (got {normalize!r})")
    if z.dtype in (torch.float16, torch.bfloat16):
        z = z.float()
    if kernel.measure == "squared_distance":
        return kernel(_squared_distance(graph, z))
    if kernel.measure == "manhattan":
        return kernel(manhattan(graph, z))
    if kernel.measure == "cosine":
        z = F.normalize(z, dim=-1)
    elif kernel.measure != "inner":
        raise ValueError(
            "'kernel.measure' must be 'inner', 'cosine', 'squared_distance' or 'manhattan' "
            f"(got {kernel.measure!r})"
        )
    return kernel(sddmm(graph, z, z))


def _squared_distance(graph: Graph, z: Tensor) -> Tensor:
    # A compiler traces tensors only; it does the sums of the backward pass by itself.
    reused = None if torch.compiler.is_compiling() else graph
    return _SquaredDistance.apply(_centre(z), reused, *graph_index(graph, z)).clamp(min=0)


def _centre(z: Tensor) -> Tensor:
    """Move all nodes, which changes no distance, to where float32 keeps more digits of them."""
    mean = z.detach().mean(dim=0)
    if z.device.type == "cpu" and not torch.compiler.is_compiling():
        # The copy is a large part of the whole time, and spares no digit of features that already
        # are about the origin: then the mean is a small part of their length.
        length = torch.linalg.vector_norm(z.detach())
        if 2 * z.size(0) * mean.square().sum() < length.square():
            return z
    return z - mean


class _SquaredDistance(torch.autograd.Function):
    r"""The distance from norms and products, in place on few arrays."""

    @staticmethod
    def forward(ctx, z, graph, *index):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z, *index)
        ctx.graph = graph
        _, col, row = index[:3]
        # Norms by the kernel of the products, so that equal nodes are at distance 0 exactly.
        pointer = torch.arange(z.size(0) + 1, dtype=col.dtype, device=z.device)
        norm = torch.ops.pyg_stkd.sddmm([pointer, pointer[:-1], pointer[:-1]], z, z)
        out = torch.ops.pyg_stkd.sddmm(list(index), z, z).mul_(-2)
        norms = norm.index_select(0, row).add_(norm.index_select(0, col))
        out.add_(norms)
        # A compiler allows no look at the values: there the lost digits stay lost.
        return out if torch.compiler.is_compiling() else _refine(out, norms, z, col, row)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, *index = ctx.saved_tensors
        grad = -2 * grad
        if ctx.graph is not None and not torch.is_grad_enabled():
            return _pull(ctx.graph, grad, z), *[None] * (1 + len(index))
        out = SpMM.apply(grad, z, False, *index).add_(SpMM.apply(grad, z, True, *index))
        of_node = SegmentSum.apply(grad, *index[:3:2]).index_add(0, index[1], grad)
        out = out.addcmul_(of_node[:, None], z, value=-1)
        return out, *[None] * (1 + len(index))


def _refine(out: Tensor, norms: Tensor, z: Tensor, col: Tensor, row: Tensor) -> Tensor:
    """Measure again, by differences, the distances that norms and products have lost digits of."""
    edge = (out < norms.mul_(1e4 * torch.finfo(z.dtype).eps)).nonzero().view(-1)
    edge = edge[row.index_select(0, edge) != col.index_select(0, edge)]  # loops are exact
    if edge.numel() > 0:
        row, col = row.index_select(0, edge), col.index_select(0, edge)
        exact = [difference(z, *ends).square_().sum(-1) for _, *ends in chunks(z, col, row)]
        out.index_copy_(0, edge, torch.cat(exact))
    return out


def _pull(graph: Graph, weight: Tensor, z: Tensor) -> Tensor:
    """Return sum_e w_e (z_j - z_i) over the edges at each node, in and out, in one sweep."""
    if z.numel() == 0 or weight.numel() == 0:
        return torch.zeros_like(z)
    pointer, node, place = both_ways(graph)
    col = graph.csr()[1]
    total = torch.ops.pyg_stkd.segment_sum(graph.csr()[0], weight).index_add_(0, col, weight)
    weight = torch.cat([weight, total.neg_()]).index_select(0, place)
    return weighted_sum(pointer, node, weight, z.contiguous())


def graph_of(z: Tensor, edge_index: Any) -> Graph:
    """Return the graph on the rows of features, which must be on its device."""
    graph = Graph.of(edge_index, z.size(0))
    if graph.device != z.device:
        raise ValueError(
            f"The features must be on the graph's device {graph.device} (got {z.device})"
        )
    return graph
