r"""Local structures of unit vectors on a graph of which most edges were measured before."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.sparse.manhattan import chunks
from pyg_stkd.functional.structures.divergences.local_divergence import structure_of_scores
from pyg_stkd.functional.structures.similarities.prepared import (
    has_bound,
    lost_digits,
    mapped,
    prepared,
)
from pyg_stkd.functional.structures.similarities.square_distance import square_distance
from pyg_stkd.graph import Graph
from pyg_stkd.graph.extended import ExtendedGraph
from pyg_stkd.graph.order import places
from pyg_stkd.kernels import Kernel, SquaredEuclidean

__all__ = ["can_extend", "extended_scores", "extended_structure", "measured", "scores_of_units"]

# Squares of lengths from here to its reciprocal are far from the ends of the range.
_SMALL = 1e-15


def can_extend(z: Tensor, kernel: Kernel, normalize: str | None) -> bool:
    """Tell whether structures can be extended: those of unit vectors at squared distances."""
    squares = has_bound(kernel) and kernel.measure == "squared_distance"
    return squares and normalize == "l2" and z.dtype in (torch.float32, torch.float64)


def measured(z: Tensor, graph: Graph) -> Tensor:
    r"""Return the squared distances of unit vectors over the edges, then the lengths of all nodes.

    Shapes:
        - **z:** :math:`(N, F)`
        - **output:** :math:`(|\mathcal{E}| + N)`

    Example:
        >>> z = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> measured(z, Graph(torch.tensor([[1], [0]])))
        tensor([2., 2., 3.])
    """
    unit = prepared(z, SquaredEuclidean(), "l2")
    length = torch.linalg.vector_norm(z, dim=-1)
    return torch.cat([square_distance(graph, unit).to(z.dtype), length])


def extended_structure(z: Tensor, made: Tensor, graph: ExtendedGraph, kernel: Kernel) -> Tensor:
    """Return the :func:`~pyg_stkd.functional.local_structure` of unit vectors on a union.

    The edges that are known come first, then the others: nothing need be merged.

    Args:
        z (Tensor): Node features, not yet normalised.
        made (Tensor): What :func:`measured` says of them on :obj:`graph.known`.
        graph (ExtendedGraph): The union.
        kernel (Kernel): A kernel of the squared distance that :func:`can_extend` takes.

    Example:
        >>> from pyg_stkd.graph.extended import simple
        >>> from pyg_stkd.kernels import RBF
        >>> z = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
        >>> known = simple(Graph(torch.tensor([[1], [0]]), 3))
        >>> graph = ExtendedGraph(known, Graph(torch.tensor([[2], [0]]), 3))
        >>> extended_structure(z, measured(z, known), graph, RBF()).exp()
        tensor([0.3470, 0.6530])
    """
    distance, length = made.split([graph.known.num_edges, z.size(0)])
    distance = torch.cat([distance, _distances(z, length, graph.more)])
    return structure_of_scores((graph.known, graph.more), mapped(kernel, distance), bounded=True)


def extended_scores(z: Tensor, graph: ExtendedGraph, kernel: Kernel) -> Tensor:
    """Return the similarities of both ends of the edges of a union, of unit vectors of features.

    In the order of :func:`extended_structure`, and measured where the graph is kept: what was made
    of the known edges is of use again.

    Example:
        >>> from pyg_stkd.graph.extended import simple
        >>> from pyg_stkd.kernels import RBF
        >>> z = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
        >>> known = simple(Graph(torch.tensor([[2], [0]]), 3))
        >>> graph = ExtendedGraph(known, Graph(torch.tensor([[1], [0]]), 3))
        >>> extended_scores(z, graph, RBF())  # of vectors on one line in float64
        tensor([1.0000, 0.3679], dtype=torch.float64)
    """
    return scores_of_units(prepared(z, kernel, "l2"), graph, kernel)


def scores_of_units(unit: Tensor, graph: ExtendedGraph, kernel: Kernel) -> Tensor:
    """Return the same of unit vectors."""
    return mapped(kernel, torch.cat([square_distance(x, unit) for x in (graph.known, graph.more)]))


def _distances(z: Tensor, length: Tensor, graph: Graph) -> Tensor:
    """Return squared distances of unit vectors from products of those that are none."""
    pointer, col, row = graph.csr()
    low, high = (length.min(), length.max()) if length.numel() > 0 else (length, length)
    if not bool(((low > _SMALL) & (high < 1 / _SMALL)).all()):
        return square_distance(graph, prepared(z, SquaredEuclidean(), "l2")).to(z.dtype)
    scale = length.reciprocal()
    dot = torch.ops.pyg_stkd.sddmm([pointer, col, row], z, z)
    dot.mul_(scale.index_select(0, row)).mul_(scale.index_select(0, col))
    out = torch.full_like(dot, 2.0).sub_(dot, alpha=2)
    edge = places(lost_digits(out, torch.full_like(dot[:1], 2.0)))
    if edge.numel() > 0:
        row, col = row.index_select(0, edge), col.index_select(0, edge)
        exact = []
        for _, *ends in chunks(z, col, row):
            units = (z.index_select(0, end) * scale.index_select(0, end)[:, None] for end in ends)
            exact.append(torch.sub(*units).square_().sum(dim=-1))
        out.index_copy_(0, edge, torch.cat(exact))
    return out
