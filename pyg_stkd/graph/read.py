"""Reading the formats of edges, and the number of nodes."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd.graph.exporting import is_exporting, is_transforming

__all__ = ["Size", "as_pair", "read", "resolve_size"]

# More are a mistake, such as names of nodes in place of indices; their pointers take 32 GiB.
_MOST = 2**32

Size = int | tuple[int, int] | None


def read(adj: Any) -> tuple[Tensor, Tensor | None, tuple[int, int] | None]:
    """Return edges, their values and the (sources, targets) of what PyG takes as edges."""
    if isinstance(adj, EdgeIndex):
        rows, cols = adj.sparse_size()
        known = None if rows is None or cols is None else (rows, cols)
        return adj.as_tensor().long(), None, known
    if isinstance(adj, SparseTensor):
        row, col, value = adj.coo()
        return torch.stack([col, row]), value, (adj.size(1), adj.size(0))
    if not isinstance(adj, Tensor):
        raise TypeError(
            "'edge_index' must be a tensor of shape [2, num_edges], an EdgeIndex, a SparseTensor, "
            f"a torch.sparse matrix or a Graph (got {type(adj).__name__})"
        )
    if is_torch_sparse_tensor(adj):
        if adj.dim() != 2:
            raise ValueError(
                f"'edge_index' as a sparse matrix must have two dimensions (got {adj.dim()})"
            )
        coo = adj if adj.layout == torch.sparse_coo else adj.to_sparse_coo()
        if coo.sparse_dim() != 2:
            raise ValueError("'edge_index' as a sparse matrix must be sparse in both dimensions")
        # Duplicates are kept as given, so an uncoalesced matrix is read as it is.
        row, col = coo._indices()
        return torch.stack([col, row]), coo._values(), (adj.size(1), adj.size(0))
    if adj.dim() != 2 or adj.size(0) != 2:
        raise ValueError(
            f"'edge_index' must have shape [2, num_edges], sources then targets "
            f"(got {list(adj.shape)})"
        )
    if adj.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"'edge_index' must be of dtype torch.int64 or torch.int32 (got {adj.dtype})"
        )
    return adj.long(), None, None


def as_pair(num_nodes: Any) -> tuple[int, int]:
    """Return the numbers of sources and of targets."""
    pair = num_nodes if isinstance(num_nodes, (tuple, list)) else (num_nodes, num_nodes)
    if len(pair) != 2 or not all(isinstance(n, SupportsIndex) for n in pair):
        raise TypeError(f"'num_nodes' must be an integer or a pair of them (got {num_nodes!r})")
    if is_exporting() or torch.compiler.is_compiling():
        return pair[0], pair[1]  # symbols, which operator.index would turn into constants
    return operator.index(pair[0]), operator.index(pair[1])


def resolve_size(edges: Tensor, num_nodes: Size, given: tuple[int, int] | None) -> tuple[int, int]:
    """Return the numbers of sources and targets: as told, as the format knows, or the least."""
    checked = torch.compiler.is_compiling() and (num_nodes is not None or given is not None)
    if is_exporting() and not checked:
        raise ValueError(
            "'num_nodes' must be given under torch.export, where no number can be read from the "
            "edges (got None)"
        )
    low, top = 0, (-1, -1)
    if not checked and edges.numel() > 0:
        low = int(edges.min())
        high = edges.amax(dim=1)
        # Older versions of torch make no list of what a transform wraps.
        pair = [int(n) for n in high] if is_transforming() else high.tolist()
        top = (pair[0], pair[1])
    if low < 0:
        raise IndexError(f"'edge_index' must not hold negative indices (got {low})")
    if num_nodes is not None:
        size = as_pair(num_nodes)
    elif given is not None:
        size = given
    else:
        size = (max(top) + 1, max(top) + 1)
    if min(size) < 0:
        raise ValueError(f"'num_nodes' must not be negative (got {num_nodes})")
    if not checked and max(size) > _MOST:
        what = "'edge_index' must hold indices" if num_nodes is None else "'num_nodes' must be"
        raise ValueError(
            f"{what} of at most {_MOST} nodes, for each of which a graph takes memory "
            f"(got {max(size)})"
        )
    for name, index, bound in zip(("source", "target"), top, size, strict=True):
        if index >= bound:
            raise IndexError(
                f"'edge_index' must hold {name} indices below the {bound} {name} nodes "
                f"(got {index})"
            )
    return size
