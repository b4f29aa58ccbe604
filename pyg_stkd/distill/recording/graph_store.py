"""What is made of the graph of a capture, kept in files beside it: no run sorts it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyg_stkd.distill.recording.beside import Beside
from pyg_stkd.graph import Graph
from pyg_stkd.graph.arrays import Arrays
from pyg_stkd.graph.lazy import SortedGraph
from pyg_stkd.graph.order import is_sorted, pointers

__all__ = ["GraphStore", "store_beside"]

T = TypeVar("T")
# With fewer edges, to sort them takes less time than to open a file.
_MANY = 1 << 14


@dataclass(frozen=True)
class GraphStore:
    """The files of one graph.

    Args:
        beside (Beside): Where they are.
        name (str): The graph's name there.
    """

    beside: Beside
    name: str

    def derived(self, graph: Graph, kind: str, build: Callable[[], T]) -> T:
        """Return what is kept of a kind; build and keep it where it is not, if it is one of these:
        sorted edges, pairs of nodes, both directions.

        Raises:
            ValueError: If a file is damaged.
        """
        if kind not in _READ:
            return build()
        what = f"{self.name}/{kind}"
        kept = self.beside.read_all(what)
        if kept is None:
            made = build()
            self.beside.write_all(what, _WRITTEN[kind](made))
        else:
            try:
                made = _READ[kind](graph, kept)
            except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.beside.file(what)} must be a file of a graph with {graph.num_edges} "
                    f"edges (got {error})"
                ) from error
        inner: Any = made[0] if kind == "unordered" else made  # type: ignore[index]
        if isinstance(inner, Graph):
            inner.store = GraphStore(self.beside, what)
        return made


def store_beside(graph: Graph, beside: Beside) -> None:
    """Keep what is made of a graph beside its capture, unless it is small or not in main memory."""
    if graph.store is None and graph.num_edges >= _MANY and graph.device.type == "cpu":
        graph.store = GraphStore(beside, "graph")


def _write_sorted(graph: Graph) -> dict[str, Tensor]:
    return {"edges": torch.stack(graph.csr()[1:])}


def _read_sorted(graph: Graph, kept: Mapping[str, Tensor]) -> Graph:
    """Return a graph on the same nodes, of edges that are in order and there once."""
    col, row = kept["edges"]
    num_src, num_dst = graph.size
    _check_range("a source", col, num_src)
    wide = col.dtype == torch.int64 or num_src * num_dst < 2**31
    key = (row if wide else row.long()) * num_src + col
    if row.numel() > 0 and (not bool((key[1:] > key[:-1]).all()) or row[0] < 0):
        raise ValueError("edges that are not sorted")
    _check_range("a target", row[-1:], num_dst)
    col, row = (x.to(graph.csr()[0].dtype) for x in (col, row))
    return SortedGraph(Arrays(graph.size, (pointers(row, num_dst), col, row)))


def _write_pairs(made: tuple[Graph | None, Tensor]) -> dict[str, Tensor]:
    pairs, place = made
    kept = {} if pairs is None else _write_sorted(pairs)
    small = pairs is not None and pairs.num_edges < 2**31
    return {**kept, "place": place.to(torch.int32) if small else place}


def _read_pairs(graph: Graph, kept: Mapping[str, Tensor]) -> tuple[Graph | None, Tensor]:
    place = kept["place"]
    _check_size(place, graph.num_edges)
    if "edges" not in kept:
        return None, place
    nodes = max(graph.size)
    pairs = _read_sorted(Graph(torch.empty(2, 0, dtype=torch.long), nodes), kept)
    _check_range("a place", place, pairs.num_edges)
    return pairs, place


def _write_ways(made: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    return dict(zip(("pointer", "node", "place"), made, strict=True))


def _read_ways(graph: Graph, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    pointer, node, place = kept["pointer"], kept["node"], kept["place"]
    entries = 2 * graph.num_edges + graph.num_nodes
    _check_size(pointer, graph.num_nodes + 1)
    _check_size(node, entries)
    _check_size(place, entries)
    _check_range("a pointer", pointer, entries + 1)
    if not is_sorted(pointer) or (int(pointer[0]), int(pointer[-1])) != (0, entries):
        raise ValueError("pointers that are not sorted")
    _check_range("a node", node, graph.num_nodes)
    _check_range("a place", place, graph.num_edges + graph.num_nodes)
    return pointer, node, place


def _check_size(index: Tensor, size: int) -> None:
    if list(index.shape) != [size]:
        raise ValueError(f"shape {list(index.shape)} for {size} numbers")


def _check_range(what: str, index: Tensor, size: int) -> None:
    """Raise unless all numbers are from 0 to below a size: kernels do not look at them."""
    if index.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{what} of {index.dtype}")
    low, high = (int(x) for x in index.aminmax()) if index.numel() > 0 else (0, -1)
    if low < 0 or high >= size:
        raise ValueError(f"{what} from {low} to {high} of {size}")


_READ: dict[str, Callable[[Graph, Mapping[str, Tensor]], Any]] = {
    "simple": _read_sorted,
    "unordered": _read_pairs,
    "both ways": _read_ways,
}
_WRITTEN: dict[str, Callable[[Any], dict[str, Tensor]]] = {
    "simple": _write_sorted,
    "unordered": _write_pairs,
    "both ways": _write_ways,
}
