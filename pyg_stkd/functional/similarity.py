r"""Similarity of both ends of each edge."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.manhattan import manhattan
from pyg_stkd.functional.sparse import sddmm
from pyg_stkd.functional.sparse_ops import SegmentSum, SpMM, graph_index
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import Kernel

__all__ = ["similarity"]

Normalize = Literal["l2", "layer"] | None


def similarity(z: Tensor, graph: Any, kernel: Kernel, normalize: Normalize = None) -> Tensor:
    r"""Similarity of both ends of each edge, :math:`\mathrm{SIM}(\mathbf{z}_i, \mathbf{z}_j)`.

    Distances come from norms and one :func:`sddmm` of the centred features.

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
    check_kernel(kernel)
    check_features("z", z)
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
    # Distances do not change when all nodes move, but float32 keeps more digits near the origin.
    z = z - z.detach().mean(dim=0)
    return _SquaredDistance.apply(z, *graph_index(graph, z)).clamp(min=0)


class _SquaredDistance(torch.autograd.Function):
    r"""The distance from norms and products, in place on few arrays."""

    @staticmethod
    def forward(ctx, z, *index):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z, *index)
        _, col, row = index[:3]
        # Norms by the kernel of the products, so that equal nodes are at distance 0 exactly.
        pointer = torch.arange(z.size(0) + 1, dtype=col.dtype, device=z.device)
        norm = torch.ops.pyg_stkd.sddmm([pointer, pointer[:-1], pointer[:-1]], z, z)
        out = torch.ops.pyg_stkd.sddmm(list(index), z, z).mul_(-2)
        return out.add_(norm.index_select(0, row)).add_(norm.index_select(0, col))

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, *index = ctx.saved_tensors
        grad = -2 * grad
        out = SpMM.apply(grad, z, False, *index).add_(SpMM.apply(grad, z, True, *index))
        of_node = SegmentSum.apply(grad, *index[:3:2]).index_add(0, index[1], grad)
        out = out.addcmul_(of_node[:, None], z, value=-1)
        return out, *[None] * len(index)


def check_kernel(kernel: Kernel) -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"'kernel' must be a kernel such as kernels.RBF() (got {kernel!r})")


def check_features(name: str, z: Tensor) -> None:
    if not isinstance(z, Tensor) or not z.is_floating_point():
        kind = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"'{name}' must be a tensor of real floating point numbers (got {kind})")
    if z.dim() != 2:
        raise ValueError(f"'{name}' must have shape [N, F] (got {list(z.shape)})")


def graph_of(z: Tensor, edge_index: Any) -> Graph:
    graph = Graph.of(edge_index, z.size(0))
    if graph.device != z.device:
        raise ValueError(
            f"The features must be on the graph's device {graph.device} (got {z.device})"
        )
    return graph
