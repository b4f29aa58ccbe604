"""One edge set, sorted by target, with its transpose: what every sparse primitive stands on."""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

if TYPE_CHECKING:
    from typing import TypeAlias

    Adj: TypeAlias = "Tensor | SparseTensor | Graph"

Size = int | tuple[int, int] | None

__all__ = ["Graph", "is_exporting", "union_edges"]


class Graph:
    r"""An immutable set of directed edges in the order that the sparse primitives need.

    Edges are stored sorted by target (CSR of the transposed adjacency matrix, rows are targets);
    the same edges sorted by source are derived on first use and kept. Building a graph costs one
    radix sort of :math:`|\mathcal{E}|` integers, so build it once and hand it to every layer and
    loss. Duplicate edges and self-loops are kept as given.

    Args:
        edge_index (Tensor, EdgeIndex or SparseTensor): Edges in COO format
            :math:`(2, |\mathcal{E}|)` (row 0 sources, row 1 targets), or a sparse :obj:`adj_t`
            (a :class:`torch_sparse.SparseTensor`, or a :mod:`torch.sparse` matrix, whose rows are
            targets) in PyG's convention. Values of a sparse matrix are kept in :attr:`value`.
        num_nodes (int or (int, int), optional): Number of nodes, or
            :obj:`(num_sources, num_targets)` of a bipartite graph. (default: the size of the
            sparse matrix, else the largest index plus one)

    Attributes:
        edge_index: Edges :math:`(2, |\mathcal{E}|)`, sorted by target; edge scalars of all
            primitives follow this order.
        perm: Place of each edge in the given :obj:`edge_index`, so that
            :obj:`graph.edge_index == edge_index[:, graph.perm]`.
        rowptr: Edges :obj:`rowptr[i]:rowptr[i + 1]` enter node :obj:`i`.
        col: Sources of the edges, :obj:`edge_index[0]`.

    Raises:
        TypeError: If :obj:`edge_index` is of another type or not of integers.
        ValueError: If its shape is not :math:`(2, |\mathcal{E}|)`, or :obj:`num_nodes` is negative.
        IndexError: If an index is negative or not below the number of nodes.

    Example:
        >>> graph = Graph(torch.tensor([[1, 2, 0], [2, 0, 1]]))
        >>> graph
        Graph(num_nodes=3, num_edges=3)
        >>> graph.edge_index.tolist(), graph.perm.tolist()
        ([[2, 0, 1], [0, 1, 2]], [1, 2, 0])
        >>> graph.rowptr.tolist()
        [0, 1, 2, 3]
    """

    edge_index: Tensor
    perm: Tensor
    rowptr: Tensor
    value: Tensor | None
    size: tuple[int, int]

    def __init__(self, edge_index: Any, num_nodes: Size = None) -> None:
        edges, value, given_size = _to_coo(edge_index)
        self.size = _resolve_size(edges, num_nodes, given_size)
        with _usable_in_training():
            self._sort(edges, value)
        self._transposed: tuple[Tensor, Tensor, Tensor] | None = None
        self._derived: dict[Any, Any] = {}  # graphs made from this one (functional/blocks.py)

    def _sort(self, edges: Tensor, value: Tensor | None) -> None:
        exporting = is_exporting()
        # int32 keys halve the cost of the sort and of every later pass over the indices.
        fits = not exporting and max(*self.size, edges.size(1)) < 2**31
        col, row = edges.to(torch.int32) if fits else edges
        if exporting:
            self.perm = _sort(row)[1]
            self.edge_index = edges.index_select(1, self.perm)
            col, row = self.edge_index
        elif edges.size(1) < 2 or (not torch.compiler.is_compiling() and _is_sorted(row)):
            self.perm = torch.arange(edges.size(1), device=edges.device)
            # A copy: the graph must not change with the caller's tensor.
            self.edge_index = edges.clone(memory_format=torch.contiguous_format)
        else:
            row, self.perm = _sort(row)
            col = col.index_select(0, self.perm)
            self.edge_index = torch.stack([col, row]).long()
        self.value = None if value is None else value.index_select(0, self.perm)
        self._row, self._col = row.contiguous(), col.contiguous()
        self._rowptr = _pointer(self._row, self.size[1])
        self.rowptr = self._rowptr.long()

    @classmethod
    def of(cls, edge_index: Any, num_nodes: Size = None) -> Graph:
        """Return :obj:`edge_index` as a graph, itself if it already is one of that size."""
        if not isinstance(edge_index, Graph):
            return cls(edge_index, num_nodes)
        if num_nodes is not None and edge_index.size != _as_pair(num_nodes):
            raise ValueError(
                f"'edge_index' is a graph whose (sources, targets) must be {_as_pair(num_nodes)}, "
                f"the number of rows of the features (got {edge_index.size})"
            )
        return edge_index

    @property
    def col(self) -> Tensor:
        return self.edge_index[0]

    @property
    def num_nodes(self) -> int:
        """Number of target nodes (of all nodes, unless the graph is bipartite)."""
        return self.size[1]

    @property
    def num_edges(self) -> int:
        return self.edge_index.size(1)

    @property
    def device(self) -> torch.device:
        return self.edge_index.device

    @property
    def degree(self) -> Tensor:
        """In-degree of each target node."""
        return self.rowptr.diff()

    def csr(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return pointers, sources and targets in the index type of the kernels."""
        return self._rowptr, self._col, self._row

    def csc(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the transpose: pointers per source, targets, each edge's place in the graph."""
        if self._transposed is None:
            with _usable_in_training():
                by_source, perm = _sort(self._col)
                pointer = _pointer(by_source, self.size[0])
                transposed = pointer, self._row.index_select(0, perm), perm
            if is_exporting():  # which must not leave its stand-ins for tensors behind
                return transposed
            self._transposed = transposed
        return self._transposed

    def sort_edges(self, value: Tensor) -> Tensor:
        """Bring edge values from the order of the given :obj:`edge_index` into the graph's."""
        if value.size(0) != self.num_edges:
            raise ValueError(
                f"'value' must have one row for each of the {self.num_edges} edges "
                f"(got {value.size(0)})"
            )
        return value.index_select(0, self.perm)

    def to(self, device: torch.device | str) -> Graph:
        """Return the graph on :obj:`device` (itself if it is there)."""
        if torch.empty(0, device=device).device == self.device:
            return self
        out = Graph.__new__(Graph)
        for name, item in self.__dict__.items():
            if isinstance(item, Tensor):
                item = item.to(device)
            elif name == "_transposed" and item is not None:
                item = tuple(part.to(device) for part in item)
            elif name == "_derived":
                item = {}
            setattr(out, name, item)
        return out

    def __repr__(self) -> str:
        num_src, num_dst = self.size
        nodes = f"{num_dst}" if num_src == num_dst else f"({num_src}, {num_dst})"
        return f"{type(self).__name__}(num_nodes={nodes}, num_edges={self.num_edges})"


def is_exporting() -> bool:
    """Tell whether :func:`torch.export.export` (or :func:`torch.onnx.export`, by it) is at work.

    Sizes are symbols then, of which nothing may be asked, and operators must be such as every
    runtime has.
    """
    return _is_exporting()


# torch 2.6 cannot tell.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", bool)


def union_edges(a: Any, b: Any, num_nodes: Size = None) -> Graph:
    r"""Unite two edge sets, :math:`\mathcal{E}^u = \mathcal{E}^a \cup \mathcal{E}^b`.

    The edge set over which `"Distilling Knowledge from Graph Convolutional Networks"
    <https://arxiv.org/abs/2003.10477>`_ (Section 3.5) compares models with dynamic graphs.

    Args:
        a (Tensor, EdgeIndex, SparseTensor or Graph): The first edge set.
        b (Tensor, EdgeIndex, SparseTensor or Graph): The second edge set.
        num_nodes (int or (int, int), optional): Number of nodes. (default: the larger of both)

    Returns:
        Graph: Each edge once, sorted by target, then by source. Its :attr:`Graph.perm` is the
        identity.

    Raises:
        ValueError: If the two graphs are on different devices.

    Example:
        >>> a = torch.tensor([[0, 1], [1, 0]])
        >>> union_edges(a, torch.tensor([[0, 2], [1, 1]])).edge_index.tolist()
        [[1, 0, 2], [0, 1, 1]]
    """
    (edges_a, _, given_a), (edges_b, _, given_b) = _to_coo(a), _to_coo(b)
    if edges_a.device != edges_b.device:
        raise ValueError(
            f"'a' and 'b' must be on one device (got {edges_a.device} and {edges_b.device})"
        )
    sizes = _resolve_size(edges_a, None, given_a), _resolve_size(edges_b, None, given_b)
    num_src, num_dst = (max(size) for size in zip(*sizes, strict=True))
    stride = max(num_src, 1)
    key = torch.cat([edges[1] * stride + edges[0] for edges in (edges_a, edges_b)])
    if stride * num_dst < 2**31:
        key = key.to(torch.int32)  # sorts in 0.6 of the time
    key = torch.unique_consecutive(key.sort().values).long()
    row = key // stride
    edges = torch.stack([key - row * stride, row])
    return Graph(edges, (num_src, num_dst) if num_nodes is None else num_nodes)


def _to_coo(adj: Any) -> tuple[Tensor, Tensor | None, tuple[int, int] | None]:
    """Return edges, their values and the (sources, targets) of anything PyG takes as edges."""
    if isinstance(adj, Graph):
        return adj.edge_index, adj.value, adj.size
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


def _usable_in_training() -> AbstractContextManager[Any]:
    """Leave inference mode: a graph that an evaluation builds may be kept for training."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return nullcontext()
    return torch.inference_mode(False)


def _as_pair(num_nodes: Any) -> tuple[int, int]:
    pair = num_nodes if isinstance(num_nodes, tuple | list) else (num_nodes, num_nodes)
    if len(pair) != 2 or not all(isinstance(n, SupportsIndex) for n in pair):
        raise TypeError(f"'num_nodes' must be an integer or a pair of them (got {num_nodes!r})")
    if is_exporting():
        return pair[0], pair[1]  # symbols, which operator.index would turn into constants
    return operator.index(pair[0]), operator.index(pair[1])


def _resolve_size(edges: Tensor, num_nodes: Size, given: tuple[int, int] | None) -> tuple[int, int]:
    checked = torch.compiler.is_compiling() and (num_nodes is not None or given is not None)
    if is_exporting() and not checked:
        raise ValueError(
            "'num_nodes' must be given under torch.export, where no number can be read from the "
            "edges (got None)"
        )
    low, top = 0, (-1, -1)
    if not checked and edges.numel() > 0:
        low = int(edges.min())
        high = edges.amax(dim=1).tolist()
        top = (high[0], high[1])
    if low < 0:
        raise IndexError(f"'edge_index' must not hold negative indices (got {low})")
    if num_nodes is not None:
        size = _as_pair(num_nodes)
    elif given is not None:
        size = given
    else:
        size = (max(top) + 1, max(top) + 1)
    if min(size) < 0:
        raise ValueError(f"'num_nodes' must not be negative (got {num_nodes})")
    for name, index, bound in zip(("source", "target"), top, size, strict=True):
        if index >= bound:
            raise IndexError(
                f"'edge_index' must hold {name} indices below the {bound} {name} nodes "
                f"(got {index})"
            )
    return size


def _is_sorted(index: Tensor) -> bool:
    return bool((index[1:] >= index[:-1]).all())


def _sort(index: Tensor) -> tuple[Tensor, Tensor]:
    """Sort so that equal entries keep their order, also where a runtime has no stable sort."""
    if not is_exporting():
        values, perm = torch.sort(index, stable=True)
        return values, perm
    place = torch.arange(index.numel(), device=index.device)  # keys without ties
    perm = (index * index.numel() + place).sort().indices
    return index.index_select(0, perm), perm


def _pointer(sorted_index: Tensor, size: int) -> Tensor:
    if is_exporting():
        sorted_index = sorted_index.long()
        count = sorted_index.new_zeros(size + 1)
        return count.index_add(0, sorted_index + 1, torch.ones_like(sorted_index)).cumsum(0)
    return torch._convert_indices_from_coo_to_csr(
        sorted_index, size, out_int32=sorted_index.dtype == torch.int32
    )
