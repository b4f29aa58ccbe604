"""What PyG's layers take as nodes and edges: checks, and the order of the edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd import checks
from pyg_stkd.graph import Graph

__all__ = [
    "check_edge_attr",
    "check_features",
    "given_edges",
    "is_sparse",
    "num_edges",
    "num_nodes",
]


def is_sparse(adj: Any) -> bool:
    """Tell whether the edges are a sparse matrix, of torch or of torch-sparse."""
    return isinstance(adj, SparseTensor) or is_torch_sparse_tensor(adj)


def given_edges(graph: Graph) -> Tensor:
    """Return the edges of a graph in the order in which it got them."""
    out = torch.empty_like(graph.edge_index)
    out[:, graph.perm] = graph.edge_index
    return out


def num_edges(adj: Any) -> int:
    """Return the number of edges."""
    if isinstance(adj, Graph):
        return adj.num_edges
    if isinstance(adj, SparseTensor):
        return adj.nnz()
    if is_torch_sparse_tensor(adj):
        return adj._nnz()
    if not isinstance(adj, Tensor):
        raise TypeError(
            "'edge_index' must be a tensor of shape [2, num_edges], an EdgeIndex, a SparseTensor, "
            f"a torch.sparse matrix or a Graph (got {type(adj).__name__})"
        )
    if adj.dim() != 2 or adj.size(0) != 2:
        raise ValueError(
            f"'edge_index' must have shape [2, num_edges], sources then targets "
            f"(got {list(adj.shape)})"
        )
    return adj.size(1)


def num_nodes(
    x_src: Tensor, x_dst: Tensor | None, adj: Any, size: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the numbers of source and target nodes, which all that is given must agree with."""
    given: tuple[int, int] | None = size
    if isinstance(adj, Graph):
        given = adj.size
    elif is_sparse(adj):
        given = (adj.size(1), adj.size(0))
    elif isinstance(adj, EdgeIndex) and None not in adj.sparse_size():
        given = adj.sparse_size()
    num_src = x_src.size(-2)
    num_dst = num_src if x_dst is None else x_dst.size(-2)
    if x_dst is None and given is not None:
        num_dst = given[1]
    for name, pair in (("size", size), ("edge_index", given)):
        if pair is not None and tuple(pair) != (num_src, num_dst):
            raise ValueError(
                f"'{name}' must be of {num_src} source and {num_dst} target nodes, as many as 'x' "
                f"has (got {tuple(pair)})"
            )
    return num_src, num_dst


def check_features(x: Any, lin_src: Any, lin_dst: Any) -> tuple[Tensor, Tensor | None]:
    """Return the features of sources and targets, which must fit the layer's projections."""
    pair = x if isinstance(x, (tuple, list)) else (x, x)
    if len(pair) != 2:
        raise TypeError(f"'x' must be a tensor or a pair of tensors (got {len(pair)} items)")
    x_src, x_dst = pair
    for name, part, lin in (("sources", x_src, lin_src), ("targets", x_dst, lin_dst)):
        if part is None and name == "targets":
            continue
        if not isinstance(part, Tensor):
            raise TypeError(f"'x' must be a tensor or a pair of tensors (got {type(part)})")
        width = getattr(lin, "in_channels", -1)  # a projection may be replaced, by LoRA say
        # A compiler finds no symbol in a tuple: two comparisons, here and below.
        if part.dim() < 2 or (width != -1 and width != part.size(-1)):
            shown = "F" if width == -1 else width
            raise ValueError(
                f"'x' of the {name} must have shape [*, N, {shown}] (got {list(part.shape)})"
            )
        checks.floating("x", part)
    if x_dst is not None and x_dst.shape[:-2] != x_src.shape[:-2]:
        raise ValueError(
            "'x' of sources and targets must agree in the dimensions before the nodes "
            f"(got {list(x_src.shape)} and {list(x_dst.shape)})"
        )
    return x_src, x_dst


def check_edge_attr(edge_attr: Tensor, count: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return edge features, integers as numbers of the dtype.

    They must have a row for each edge and, unless it is -1, that width.
    """
    if edge_attr.dim() not in (1, 2) or edge_attr.size(0) != count:
        raise ValueError(
            f"'edge_attr' must have a row for each of the {count} edges "
            f"(got {list(edge_attr.shape)})"
        )
    given = 1 if edge_attr.dim() == 1 else edge_attr.size(1)
    if width != -1 and width != given:
        raise ValueError(f"'edge_attr' must have {width} channels, the 'edge_dim' (got {given})")
    if edge_attr.is_complex():
        raise ValueError(f"'edge_attr' must be of real numbers (got {edge_attr.dtype})")
    # The mean over a node's edges, which a loop gets, is no integer.
    return edge_attr if edge_attr.is_floating_point() else edge_attr.to(dtype)
