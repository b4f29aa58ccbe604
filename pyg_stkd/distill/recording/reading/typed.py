"""Graphs of several types of nodes and edges."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_stkd.distill.recording.reading.inputs import is_edge_index

__all__ = ["EdgeType", "edges_within", "targets", "typed_edges"]

EdgeType: TypeAlias = tuple[str, str, str]


def typed_edges(bound: Mapping[str, Any]) -> dict[EdgeType, Any]:
    """Return the graphs by type of edge among bound arguments.

    Example:
        >>> edge_index = torch.tensor([[0], [1]])
        >>> list(typed_edges({"edges": {("a", "to", "b"): edge_index}}))
        [('a', 'to', 'b')]
    """
    found: dict[EdgeType, Any] = {}
    for value in bound.values():
        if isinstance(value, HeteroData):
            given: Iterator[tuple[Any, Any]] = iter(
                (kind, value[kind].get("edge_index", value[kind].get("adj_t")))
                for kind in value.edge_types
            )
        elif isinstance(value, Mapping):
            given = iter(value.items())
        else:
            continue
        for kind, edges in given:
            if isinstance(kind, tuple) and len(kind) == 3 and is_edge_index(edges):
                found.setdefault(kind, edges)
    return found


def edges_within(bound: Mapping[str, Any], kind: Hashable) -> Any | None:
    """Return the only graph among nodes of one type, None where there is none.

    Raises:
        ValueError: If there are several.
    """
    among = {k: edges for k, edges in typed_edges(bound).items() if k[0] == k[2] == kind}
    if len(among) > 1:
        raise ValueError(
            f"The nodes of type {kind!r} must have one type of edges among them "
            f"(got {list(among)}): give the loss one, graph=..., or tap the whole layer"
        )
    return next(iter(among.values()), None)


def targets(nodes: Tensor | None, centres: tuple[int, int], device: torch.device) -> Tensor:
    """Return the places of chosen targets behind their sources.

    Example:
        >>> targets(torch.tensor([0, 2]), (10, 3), torch.device("cpu"))
        tensor([10, 12])
    """
    before, count = centres
    chosen = torch.arange(count, device=device) if nodes is None else nodes
    return chosen + before
