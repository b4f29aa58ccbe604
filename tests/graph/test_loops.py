from __future__ import annotations

import torch

from pyg_stkd.graph import Graph
from pyg_stkd.graph.loops import add_loops, drop_loops

EDGES = torch.tensor([[0, 1, 1, 2, 0, 0], [0, 1, 1, 0, 2, 2]])


def test_drop_loops_keeps_duplicates_of_other_edges() -> None:
    graph = drop_loops(Graph(EDGES, 5))
    assert graph.edge_index.tolist() == [[2, 0, 0], [0, 2, 2]]
    assert graph.num_nodes == 5


def test_add_loops_only_where_there_is_none() -> None:
    graph = add_loops(Graph(EDGES, 4))
    col, row = graph.edge_index
    assert row[col == row].bincount().tolist() == [1, 2, 1, 1]  # duplicates stay
    assert drop_loops(graph).edge_index.equal(drop_loops(Graph(EDGES, 4)).edge_index)
