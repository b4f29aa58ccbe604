"""Graphs of several types of nodes and edges."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_stkd.distill.recording.inputs import is_edge_index
from pyg_stkd.graph import Graph

if TYPE_CHECKING:
    from pyg_stkd.distill.recording.capture import Capture

__all__ = ["EdgeType", "by_edge_type", "edges_within", "targets", "typed_edges"]

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


def by_edge_type(
    capture: Capture,
    parts: Mapping[Hashable, Capture],
    wanted: Mapping[Hashable, float] | None = None,
) -> Mapping[Hashable, Capture]:
    """Return captures of the two ends of each type of edge, given those of each type of node.

    Without edges by type they stay as they are. The nodes of a capture are the sources and behind
    them the targets, which alone count.

    Raises:
        ValueError: If the two ends of a type of edge have other widths.
    """
    if len(parts) == 1:
        return parts
    kinds = typed_edges(capture.inputs) or typed_edges(capture.context)
    ends = {kind: (kind[0], kind[2]) for kind in kinds if {kind[0], kind[2]} <= set(parts)}
    if not ends:
        return parts
    wanted = ends if wanted is None else wanted  # type: ignore[assignment]
    found: dict[Hashable, Capture] = {}
    for kind, (source, target) in ends.items():
        if kind not in wanted:  # type: ignore[operator]
            continue
        if source == target:
            found[kind] = parts[source].joined(kind, parts[source].value, kinds[kind], None)
            continue
        a, b = parts[source].value, parts[target].value
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"The {capture.where} must have one width at both ends of {kind} "
                f"(got {list(a.shape)} and {list(b.shape)}): name the types of edges that are "
                f"compared, weights={{{kind}: 1.0}}"
            )
        edges = Graph.of(kinds[kind], (a.size(0), b.size(0))).edge_index
        edges = edges + torch.tensor([[0], [a.size(0)]], device=edges.device)
        found[kind] = parts[source].joined(kind, torch.cat([a, b]), edges, (a.size(0), b.size(0)))
    return found


def targets(nodes: Tensor | None, centres: tuple[int, int], device: torch.device) -> Tensor:
    """Return the places of chosen targets behind their sources.

    Example:
        >>> targets(torch.tensor([0, 2]), (10, 3), torch.device("cpu"))
        tensor([10, 12])
    """
    before, count = centres
    chosen = torch.arange(count, device=device) if nodes is None else nodes
    return chosen + before
