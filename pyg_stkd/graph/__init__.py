"""One edge set, sorted by target, with its transpose: what every sparse primitive stands on."""

from pyg_stkd.graph.exporting import is_exporting, is_transforming, wants_plain
from pyg_stkd.graph.graph import Graph
from pyg_stkd.graph.union import union_edges

__all__ = ["Graph", "is_exporting", "is_transforming", "union_edges", "wants_plain"]
