"""Weights of edges as spectral layers define them: scaled Laplacians, renormalised adjacencies."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd.graph import Graph

__all__ = ["Rule", "normalized_edges"]

# The normalisation of a Laplacian and its largest eigenvalue, None for twice the largest
# degree; or "gcn", and 0.
Rule: TypeAlias = tuple[str | None, float | None]


def normalized_edges(
    edge_index: Any,
    edge_weight: Tensor | None,
    num_nodes: int | None,
    dtype: torch.dtype,
    rule: Rule,
) -> tuple[Graph, Tensor]:
    """Return where the matrix of a rule differs from zero, and its entries there.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> normalized_edges(edge_index, None, None, torch.float32, ("sym", 2.0))[1]
        tensor([-1., -1.])
    """
    has_size = isinstance(edge_index, (Graph, SparseTensor)) or (
        isinstance(edge_index, Tensor) and is_torch_sparse_tensor(edge_index)
    )
    graph = Graph.of(edge_index, None if has_size else num_nodes)
    graph = Graph.of(graph, num_nodes)
    weight = graph.value
    if edge_weight is not None:
        if has_size and edge_index is not graph:
            raise ValueError(
                "'edge_weight' must be None where 'edge_index' is a sparse matrix, which holds "
                f"its own values (got {list(edge_weight.shape)})"
            )
        _check_weight(edge_weight, graph)
        weight = edge_weight if edge_index is graph else graph.sort_edges(edge_weight)
    # Degrees are summed in full precision.
    full = dtype if dtype == torch.float64 else torch.float32
    edges = graph.edge_index.detach()  # not the given object, which must be free to die
    if weight is None:
        weight = torch.ones(graph.num_edges, dtype=full, device=edges.device)
    weight = weight.to(full)
    edges, value = (
        _gcn(edges, weight, graph) if rule[0] == "gcn" else _cheb(edges, weight, graph, *rule)
    )
    graph = Graph(edges, graph.num_nodes)
    return graph, graph.sort_edges(value)


# PyG's get_laplacian and gcn_norm give the same, but slower (building an operator takes 1.2 to 1.9
# times as long, 8 to 200,000 edges on a CPU), and not a number as gradient at degree 0.
def _cheb(
    edges: Tensor, weight: Tensor, graph: Graph, normalization: str | None, lambda_max: float | None
) -> tuple[Tensor, Tensor]:
    source, target = edges
    weight = torch.where(source == target, 0.0, weight)
    degree = weight.new_zeros(graph.num_nodes).index_add(0, source, weight)  # as PyG: of sources
    diagonal = degree if normalization is None else torch.ones_like(degree)
    if normalization == "sym":
        scale = torch.where(degree > 0, degree, torch.inf).pow(-0.5)
        weight = scale[source] * weight * scale[target]
    elif normalization == "rw":
        weight = weight / torch.where(degree > 0, degree, torch.inf)[source]
    if lambda_max is None:  # a matrix of zeros has any largest eigenvalue
        most = 2.0 * torch.cat([diagonal, diagonal.new_zeros(1)]).amax()
        scale_to: Any = 2.0 / torch.where(most > 0, most, 1.0)
    else:
        scale_to = 2.0 / lambda_max
    value = -scale_to * weight
    if normalization is not None and lambda_max == 2.0:
        return edges, value  # the diagonal is zero
    return _with_loops(edges, value, scale_to * diagonal - 1.0)


def _gcn(edges: Tensor, weight: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
    source, target = edges
    loop = source == target
    # The last self-loop of a node gives its weight, as in PyG's add_remaining_self_loops.
    place = torch.where(loop, target, graph.num_nodes)
    diagonal = weight.new_ones(graph.num_nodes + 1).index_put((place,), weight)[:-1]
    weight = torch.where(loop, 0.0, weight)
    degree = diagonal.index_add(0, target, weight)
    scale = torch.where(degree > 0, degree, torch.inf).pow(-0.5)
    return _with_loops(edges, scale[source] * weight * scale[target], scale * diagonal * scale)


def _with_loops(edges: Tensor, value: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    loops = torch.arange(diagonal.numel(), device=edges.device).expand(2, -1)
    return torch.cat([edges, loops], dim=1), torch.cat([value, diagonal])


def _check_weight(weight: Tensor, graph: Graph) -> None:
    if weight.dim() != 1 or weight.numel() != graph.num_edges:
        raise ValueError(
            f"'edge_weight' must have shape [{graph.num_edges}], one weight for each edge "
            f"(got {list(weight.shape)})"
        )
    if weight.device != graph.device:
        raise ValueError(
            f"'edge_weight' must be on the graph's device {graph.device} (got {weight.device})"
        )
    if not torch.compiler.is_compiling() and not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ValueError("'edge_weight' must be finite and not negative (got another value)")
