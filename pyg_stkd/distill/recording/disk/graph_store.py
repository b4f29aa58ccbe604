"""What is made of the graph of a capture, kept in files beside it: no run sorts it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyg_stkd.distill.recording.disk.beside import Beside
from pyg_stkd.graph import Graph
from pyg_stkd.graph.arrays import Arrays
from pyg_stkd.graph.both_ways import both_ways
from pyg_stkd.graph.lazy import SortedGraph
from pyg_stkd.graph.order import is_sorted, pointers
from pyg_stkd.graph.unordered import unordered

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
        the edges in order, or the pairs of nodes. Of both, all that losses make is in one file.

        Raises:
            ValueError: If a file is damaged.
        """
        if kind not in ("simple", "unordered"):
            return build()
        write, read = (_write, _read) if kind == "simple" else (_write_pairs, _read_pairs)
        what = f"{self.name}/{kind}"
        kept = self.beside.read_all(what)
        made: Any
        if kept is None:
            made = build()
            self.beside.write_all(what, write(graph, made))
        else:
            try:
                made = read(graph, kept)
            except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.beside.file(what)} must be a file of a graph with {graph.num_edges} "
                    f"edges (got {error})"
                ) from error
        if isinstance(made, Graph):
            made.store = GraphStore(self.beside, what)
        found: T = made
        return found


def store_beside(graph: Graph, beside: Beside) -> None:
    """Keep what is made of a graph beside its capture, unless it is small or not in main memory."""
    if graph.store is None and graph.num_edges >= _MANY and graph.device.type == "cpu":
        graph.store = GraphStore(beside, "graph")


def _write(_: Graph, made: Graph) -> dict[str, Tensor]:
    return {"edges": _edges(made), **_write_pairs(made, unordered(made))}


def _read(graph: Graph, kept: Mapping[str, Tensor]) -> Graph:
    made = _sorted(kept["edges"], graph.size)
    pairs = _read_pairs(made, kept)
    made.derived("unordered", lambda: pairs)
    return made


def _write_pairs(graph: Graph, made: tuple[Graph | None, Tensor]) -> dict[str, Tensor]:
    pairs, place = made
    kept = {} if pairs is None else {"pairs": _edges(pairs)}
    names = "pointer", "node", "weight"
    ways = dict(zip(names, both_ways(graph if pairs is None else pairs), strict=True))
    return {**kept, **ways, "place": place.to(graph.csr()[0].dtype)}


def _read_pairs(graph: Graph, kept: Mapping[str, Tensor]) -> tuple[Graph | None, Tensor]:
    place, pairs = kept["place"], None
    if "pairs" in kept:
        nodes = max(graph.size)
        pairs = _sorted(kept["pairs"], (nodes, nodes))
    counted = graph if pairs is None else pairs
    _check("a place", place, graph.num_edges, counted.num_edges)
    pointer, node, weight = kept["pointer"], kept["node"], kept["weight"]
    entries = 2 * counted.num_edges + counted.num_nodes
    _check("a pointer", pointer, counted.num_nodes + 1, entries + 1)
    if not is_sorted(pointer) or (int(pointer[0]), int(pointer[-1])) != (0, entries):
        raise ValueError("pointers that are not sorted")
    _check("a node", node, entries, counted.num_nodes)
    _check("a weight", weight, entries, counted.num_edges + counted.num_nodes)
    counted.derived("both ways", lambda: (pointer, node, weight))
    return pairs, place


def _edges(graph: Graph) -> Tensor:
    return torch.stack(graph.csr()[1:])


def _sorted(edges: Tensor, size: tuple[int, int]) -> Graph:
    """Return a graph of edges, which must be sorted by target and source and there once."""
    col, row = edges
    _check("a source", col, row.numel(), size[0])
    _check("a target", row, row.numel(), size[1])
    if size[0] * size[1] >= 2**31:
        col, row = col.long(), row.long()
    key = row * size[0] + col
    if key.numel() > 1 and int(torch.sub(key[1:], key[:-1]).min()) <= 0:
        raise ValueError("edges that are not sorted")
    col, row = edges
    return SortedGraph(Arrays(size, (pointers(row, size[1]), col, row)))


def _check(what: str, index: Tensor, count: int, size: int) -> None:
    """Raise unless there are so many numbers, from 0 to below a size: no kernel looks at them."""
    if index.dtype not in (torch.int32, torch.int64) or list(index.shape) != [count]:
        raise ValueError(f"{count} of {what} as {list(index.shape)} of {index.dtype}")
    low, high = (int(x) for x in index.aminmax()) if count > 0 else (0, -1)
    if low < 0 or high >= size:
        raise ValueError(f"{what} from {low} to {high} of {size}")
