"""What a layer returned at the two ends of each type of edge."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.reading.typed import typed_edges
from pyg_stkd.graph import Graph

__all__ = ["by_edge_type"]


def by_edge_type(
    capture: Capture,
    parts: Mapping[Hashable, Capture],
    wanted: Mapping[Hashable, float] | None = None,
) -> Mapping[Hashable, Capture]:
    """Return captures of the two ends of each type of edge, given those of each type of node.

    Without edges by type they stay as they are. The nodes of a capture are the sources and behind
    them the targets, which alone count.

    Raises:
        ValueError: If the two ends of a type of edge have other widths, or a wanted one is unknown.
    """
    if len(parts) == 1:
        return parts
    kinds = typed_edges(capture.inputs) or typed_edges(capture.context)
    ends = {kind: (kind[0], kind[2]) for kind in kinds if {kind[0], kind[2]} <= set(parts)}
    if not ends:
        return parts
    unknown = [kind for kind in wanted or () if kind not in ends]
    if unknown:
        raise ValueError(
            f"'weights' must name types of edges of the {capture.where}, which are {list(ends)} "
            f"(got {unknown})"
        )
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
