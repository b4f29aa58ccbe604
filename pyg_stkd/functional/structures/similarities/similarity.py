r"""Similarity of both ends of each edge."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.sparse.manhattan import manhattan
from pyg_stkd.functional.sparse.primitives import sddmm
from pyg_stkd.functional.sparse.sparse_ops import compute_dtype
from pyg_stkd.functional.structures.similarities.prepared import Normalize, mapped, prepared
from pyg_stkd.functional.structures.similarities.square_distance import square_distance
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import Kernel

__all__ = ["Normalize", "checked_similarity", "graph_of", "similarity"]


def similarity(z: Tensor, graph: Any, kernel: Kernel, normalize: Normalize = None) -> Tensor:
    r"""Similarity of both ends of each edge, :math:`\mathrm{SIM}(\mathbf{z}_i, \mathbf{z}_j)`.

    Distances come from norms and one :func:`sddmm` of the centred features, those that are small
    against the norms from differences.

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
        >>> import torch
        >>> from pyg_stkd import kernels
        >>> z = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> similarity(z, Graph(torch.tensor([[0], [1]])), kernels.SquaredEuclidean())
        tensor([25.])
    """
    checks.instance("kernel", kernel, Kernel)
    checks.features("z", z)
    out = checked_similarity(z, graph_of(z, graph), kernel, normalize)
    return out.to(compute_dtype(z.dtype))


def checked_similarity(z: Tensor, graph: Graph, kernel: Kernel, normalize: Normalize) -> Tensor:
    """Return the :func:`similarity` of features that are known to fit the graph.

    It has the precision in which it was computed.
    """
    z = prepared(z, kernel, normalize)
    if kernel.measure == "squared_distance":
        return mapped(kernel, square_distance(graph, z))
    if kernel.measure == "manhattan":
        return mapped(kernel, manhattan(graph, z))
    return mapped(kernel, sddmm(graph, z, z))


def graph_of(z: Tensor, edge_index: Any) -> Graph:
    """Return the graph on the rows of features, which must be on its device."""
    graph = Graph.of(edge_index, z.size(0))
    if graph.device != z.device:
        raise ValueError(
            f"The features must be on the graph's device {graph.device} (got {z.device})"
        )
    return graph
