"""The graph that layers and losses share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from pyg_stkd.graph.arrays import Arrays, Index
from pyg_stkd.graph.exporting import is_exporting
from pyg_stkd.graph.order import fits_int32, is_sorted, pointers, sort, usable_in_training
from pyg_stkd.graph.read import Size, as_pair, read, resolve_size

__all__ = ["Graph", "OfGraph", "Store", "edges_of"]

T = TypeVar("T")


class Store(Protocol):
    """Where what is made of a graph outlives it."""

    def derived(self, graph: Graph, kind: str, build: Callable[[], T]) -> T:
        """Return what is kept of a kind, or build it, and keep it if it is of use later."""


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
    arrays: Arrays  # what is made of a graph and kept with it holds these, not the graph
    # Whether it is used again: what helps later uses alone is not made of a graph that is not.
    lasting: bool = True
    store: Store | None = None

    def __init__(self, edge_index: Any, num_nodes: Size = None) -> None:
        edges, value, given_size = edges_of(edge_index)
        if None not in (num_nodes, given_size) and as_pair(num_nodes) != given_size:
            raise ValueError(
                f"'num_nodes' must be the {given_size} (sources, targets) of the matrix or graph "
                f"(got {num_nodes})"
            )
        size = resolve_size(edges, num_nodes, given_size)
        with usable_in_training():
            self._sort(edges, value, size)

    def _sort(self, edges: Tensor, value: Tensor | None, size: tuple[int, int]) -> None:
        exporting = is_exporting()
        # int32 keys halve the cost of the sort and of every later pass over the indices.
        fits = not exporting and fits_int32(*size, edges.size(1))
        col, row = edges.to(torch.int32) if fits else edges
        if exporting:
            perm = sort(row)[1]
            edge_index = edges.index_select(1, perm)
            col, row = edge_index
        elif not torch.compiler.is_compiling() and is_sorted(row):
            perm = torch.arange(edges.size(1), device=edges.device)
            # A copy: the graph must not change with the caller's tensor.
            edge_index = edges.clone(memory_format=torch.contiguous_format)
        else:
            row, perm = sort(row)
            col = col.index_select(0, perm)
            edge_index = torch.stack([col, row]).long()
        value = None if value is None else value.index_select(0, perm)
        row = row.contiguous()
        csr = pointers(row, size[1]), col.contiguous(), row
        self._fill(Arrays(size, csr), perm=perm, edge_index=edge_index, value=value)
        if torch.compiler.is_compiling():  # and with each call of the compiled code
            self.lasting = False

    def _fill(
        self,
        arrays: Arrays,
        *,
        perm: Tensor | None = None,
        edge_index: Tensor | None = None,
        value: Tensor | None = None,
    ) -> None:
        """Set all that a graph holds: what every way to make one ends in.

        A sub-class that makes :attr:`perm` and :attr:`edge_index` when asked for leaves them out.
        """
        self.value, self.arrays = value, arrays
        self._derived: dict[tuple[Hashable, ...], Any] = {}
        if perm is not None:
            self.perm = perm
        if edge_index is not None:
            self.edge_index = edge_index
            self.rowptr = arrays.csr()[0].long()

    @classmethod
    def of(cls, edge_index: Any, num_nodes: Size = None) -> Graph:
        """Return :obj:`edge_index` as a graph, itself if it already is one of that size."""
        if not isinstance(edge_index, Graph):
            return cls(edge_index, num_nodes)
        same = num_nodes is None or edge_index.size == (
            num_nodes,
            num_nodes,
        )  # the most common, quick
        if not same and edge_index.size != as_pair(num_nodes):
            raise ValueError(
                f"'edge_index' is a graph whose (sources, targets) must be {as_pair(num_nodes)}, "
                f"the number of rows of the features (got {edge_index.size})"
            )
        return edge_index

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of source and target nodes."""
        return self.arrays.size

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

    def csr(self) -> Index:
        """Return pointers, sources and targets in the index type of the kernels."""
        return self.arrays.csr()

    def csc(self) -> Index:
        """Return the transpose: pointers per source, targets, each edge's place in the graph."""
        return self.arrays.csc()

    def derived(self, kind: str, build: Callable[[], T], *options: Hashable, most: int = 0) -> T:
        r"""Return what is built of this graph, and keep it with the graph.

        The one rule by which anything made of a graph is found again: it belongs to *this object*
        (another graph with equal edges has its own), under its kind and options. It is a constant,
        for a graph does not change; it lives as long as the graph does, may serve training even
        where an evaluation built it, and stays behind where the graph is moved to another device.
        It must not hold the graph (its arrays or tensors instead): in a circle, the memory of both
        would wait for the garbage collector.

        Where no graph is at hand yet, what is kept follows it as nearly as it can: operators of
        spectral layers belong to one tensor object, at one version of its content
        (``spectral_operators``), and their polynomials to the operator. The cache of a Distiller
        alone finds graphs by equal edges (``GraphCache``), for the models that it looks into make
        new tensors of the same edges; what it derives belongs to the very graphs again.

        Args:
            kind (str): What is built, one name for each :obj:`build`.
            build (callable): Builds it, without arguments.
            *options (optional): What :obj:`build` depends on besides the graph.
            most (int): How many of a kind are kept, those that were asked for last.
                (default: all)

        Example:
            >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
            >>> mean = graph.derived("inverse degree", lambda: 1 / graph.degree)
            >>> graph.derived("inverse degree", lambda: 1 / graph.degree) is mean
            True
        """
        key, kept = (kind, *options), self._derived
        found = kept.get(key)
        if found is None:
            with usable_in_training():
                if self.store is None or options:
                    found = build()
                else:
                    found = self.store.derived(self, kind, build)
            if is_exporting():  # which must not leave its stand-ins for tensors behind
                return found
            kept[key] = found
        if most > 0:
            kept[key] = kept.pop(key)  # last again
            for old in [other for other in kept if other[0] == kind][:-most]:
                del kept[old]
        return found

    def kept(self, kind: str, *options: Hashable) -> Any:
        """Return what :meth:`derived` has built before, or None."""
        return self._derived.get((kind, *options))

    def without_derived(self) -> Graph:
        """Return the same graph without what was made of it, for that to hold."""
        out = Graph.__new__(Graph)
        out._fill(self.arrays, perm=self.perm, edge_index=self.edge_index, value=self.value)
        return out

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
        with usable_in_training():
            # A derived graph becomes one by itself: nothing of it is left on the old device.
            out._fill(
                self.arrays.to(device),
                perm=self.perm.to(device),
                edge_index=self.edge_index.to(device),
                value=None if self.value is None else self.value.to(device),
            )
        return out

    def __repr__(self) -> str:
        num_src, num_dst = self.size
        nodes = f"{num_dst}" if num_src == num_dst else f"({num_src}, {num_dst})"
        return f"{type(self).__name__}(num_nodes={nodes}, num_edges={self.num_edges})"


class OfGraph:
    """What is made of a graph and is given to a layer in its place, such as an operator.

    Attributes:
        graph: The graph.
    """

    graph: Graph


def edges_of(adj: Any) -> tuple[Tensor, Tensor | None, tuple[int, int] | None]:
    """Return edges, their values and, if known, the numbers of sources and targets."""
    if isinstance(adj, Graph):
        return adj.edge_index, adj.value, adj.size
    return read(adj)
