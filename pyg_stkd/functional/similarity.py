r"""Similarity of both ends of each edge."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.manhattan import manhattan
from pyg_stkd.functional.sparse import sddmm
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
    # Norms as inner products of the same kernel, so that equal nodes are at distance 0 exactly.
    loop = torch.arange(z.size(0), device=z.device)
    norm = sddmm(_Diagonal(loop), z, z)
    _, col, row = graph.csr()
    total = norm.index_select(0, row) + norm.index_select(0, col)
    return (total - 2 * sddmm(graph, z, z)).clamp(min=0)


class _Diagonal(Graph):
    """The self-loops of all nodes, which need no sorting.

    Arrays that are equal are views: torch.compile wants the inputs of a function to be distinct.
    """

    def __init__(self, loop: Tensor) -> None:
        num_nodes = loop.numel()
        self.size = (num_nodes, num_nodes)
        self.perm = loop
        self.edge_index = loop.expand(2, -1)
        self.value = None
        self._row = loop.to(torch.int32 if num_nodes < 2**31 else torch.int64)
        self._col = self._row.view_as(self._row)
        self.rowptr = torch.arange(num_nodes + 1, device=loop.device)
        self._rowptr = self.rowptr.to(self._row.dtype)
        pointer, row = (index.view_as(index) for index in (self._rowptr, self._row))
        self._transposed = pointer, row, loop


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
