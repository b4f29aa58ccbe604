"""Graphs that need not be sorted again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.graph import Graph

__all__ = ["GraphCache", "LayeredCache"]


class GraphCache:
    r"""The graphs built last, so that a fixed :obj:`edge_index` is sorted once.

    A graph is found again by equal edges, or by the very sparse matrix it was built from. Copies
    and pickles of a cache are empty.

    Args:
        size (int): The number of graphs that are kept. (default: :obj:`4`)

    Example:
        >>> cache, edge_index = GraphCache(), torch.tensor([[0, 1], [1, 0]])
        >>> cache.get(edge_index, 2) is cache.get(edge_index.clone(), 2)
        True
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._graphs: list[tuple[_Given, int, Graph]] = []
        self._kept: list[Graph] = []
        self._derived: OrderedDict[Hashable, tuple[tuple[Graph, ...], Graph]] = OrderedDict()

    def get(self, edge_index: Any, num_nodes: int, lasting: bool = True) -> Graph:
        """Return the graph of :obj:`edge_index`, built if need be: for one use if not lasting."""
        graph = self.find(edge_index, num_nodes)
        if graph is not None:
            return graph
        graph = Graph.of(edge_index, num_nodes)
        graph.lasting = lasting
        self._graphs = [*self._graphs, (_Given(edge_index, graph), num_nodes, graph)]
        self._graphs = self._graphs[-self.size :]
        return graph

    def find(self, edge_index: Any, num_nodes: int) -> Graph | None:
        """Return the graph of :obj:`edge_index` if it is here."""
        if isinstance(edge_index, Graph):
            return Graph.of(edge_index, num_nodes)
        for i, (given, size, graph) in enumerate(self._graphs):
            if size == num_nodes and given.equals(edge_index):
                self._graphs.append(self._graphs.pop(i))
                return graph
        return None

    def keep(self, graph: Graph) -> None:
        """Count a graph that was given as one among those that are here."""
        if not self.holds(graph):
            self._kept.append(graph)

    def holds(self, graph: Graph) -> bool:
        """Tell whether this very graph is here, or was made of those that are."""
        built = (entry[2] for entry in self._graphs)
        derived = (made for _, made in self._derived.values())
        return any(graph is other for other in (*built, *derived, *self._kept))

    def derive(self, name: str, build: Callable[..., Graph], *graphs: Graph) -> Graph:
        """Return :obj:`build(*graphs)`, kept for as long as these very graphs are used."""
        key = (name, *(id(graph) for graph in graphs))
        if key not in self._derived:
            # The sources are kept too: an id is taken again once its object is gone.
            self._derived[key] = graphs, build(*graphs)
        self._derived.move_to_end(key)
        while len(self._derived) > self.size:
            self._derived.popitem(last=False)
        return self._derived[key][1]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size,)


class LayeredCache(GraphCache):
    r"""What is known of one input, and behind it the graphs that may never be seen again.

    A student's dynamic graph differs in every epoch: kept for each input, it would fill the memory
    for nothing.

    Args:
        known (GraphCache): Asked first. Nothing but what is made of its own graphs is added.
        own (GraphCache): Takes the rest.

    Example:
        >>> known, own = GraphCache(), GraphCache()
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> graph = LayeredCache(known, own).get(edge_index, 2)
        >>> known.holds(graph), own.holds(graph)
        (False, True)
    """

    def __init__(self, known: GraphCache, own: GraphCache) -> None:
        super().__init__(own.size)
        self._known, self._own = known, own

    def find(self, edge_index: Any, num_nodes: int) -> Graph | None:
        """Return the graph of :obj:`edge_index` if it is in one of both."""
        found = self._known.find(edge_index, num_nodes)
        return self._own.find(edge_index, num_nodes) if found is None else found

    def get(self, edge_index: Any, num_nodes: int, lasting: bool = True) -> Graph:
        """Return the graph of :obj:`edge_index`, built if need be: for one use if not lasting."""
        found = self._known.find(edge_index, num_nodes)
        return self._own.get(edge_index, num_nodes, lasting) if found is None else found

    def holds(self, graph: Graph) -> bool:
        """Tell whether this very graph is in one of both."""
        return self._known.holds(graph) or self._own.holds(graph)

    def derive(self, name: str, build: Callable[..., Graph], *graphs: Graph) -> Graph:
        """Return :obj:`build(*graphs)`, kept beside its sources."""
        cache = self._known if all(map(self._known.holds, graphs)) else self._own
        return cache.derive(name, build, *graphs)

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphCache, (self.size,)


class _Given:
    """What a graph was built from: a copy of the edges, else the object itself."""

    def __init__(self, edge_index: Any, graph: Graph) -> None:
        self.plain = _is_plain(edge_index)
        self.value = edge_index
        if self.plain:
            # Not every write is counted in the version of a tensor: those to its memory are not.
            # The graph has a copy of what came in its order.
            kept = graph.edge_index
            same = kept.dtype == edge_index.dtype and torch.equal(kept, edge_index)
            self.value = kept if same else edge_index.clone()
        self.version = _version(edge_index)

    def equals(self, edge_index: Any) -> bool:
        if not self.plain:
            return self.value is edge_index and self.version == _version(edge_index)
        if not _is_plain(edge_index) or self.value.dtype != edge_index.dtype:
            return False
        if self.value.device != edge_index.device or self.value.shape != edge_index.shape:
            return False
        return torch.equal(self.value, edge_index)


def _is_plain(edge_index: Any) -> bool:
    return type(edge_index) is Tensor and edge_index.layout == torch.strided


def _version(edge_index: Any) -> int:
    counted = isinstance(edge_index, Tensor) and not edge_index.is_inference()
    return edge_index._version if counted else 0
