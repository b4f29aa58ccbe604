from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.data import Data, HeteroData

from pyg_stkd.distill.recording.reading.counts import has_graph, node_counts, nodes_of, sizes_of
from pyg_stkd.graph import Graph

EDGES = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
MATRIX = torch.sparse_coo_tensor(EDGES, torch.ones(4), (7, 7), check_invariants=False)


def typed() -> HeteroData:
    data = HeteroData()
    data["a"].num_nodes, data["b"].num_nodes = 3, 5
    return data


@pytest.mark.parametrize(
    ("bound", "counts"),
    [
        ({"x": torch.ones(3, 2), "edge_index": EDGES}, {3}),
        ({"x": torch.ones(6, 2), "graph": Graph(EDGES, 5)}, {5}),  # a graph knows its nodes
        ({"x": torch.ones(6, 2), "adj_t": MATRIX}, {7}),
        ({"x": torch.ones(2, 6, 2), "adj": torch.ones(2, 6, 6)}, {6}),
        ({"data": typed()}, {3, 5}),
        ({"data": Data(edge_index=EDGES, num_nodes=9)}, {9}),
        ({"x": (torch.ones(3, 2), torch.ones(2, 2)), "edge_index": EDGES}, {2}),  # the targets
        ({"x": (torch.ones(3, 2), None), "edge_index": EDGES}, {3}),
        ({"x": torch.ones(2, 4, 3, 2), "edge_index": EDGES}, {2, 4, 3}),  # which axis, nobody says
        ({"features": torch.ones(5, 2), "edge_index": EDGES}, {5}),
        ({"edge_attr": torch.ones(4, 2), "edge_index": EDGES}, set()),  # one for each edge
        ({"z": torch.ones(5).long(), "edge_index": EDGES}, set()),  # or labels, or types of edges
        ({"z": torch.ones(5).long(), "batch": torch.zeros(5).long(), "edge_index": EDGES}, {5}),
        ({}, set()),
    ],
)
def test_nodes_of_a_call(bound: Any, counts: set[int]) -> None:
    assert node_counts(bound) == counts


def test_sizes_count_nodes_edges_and_graphs() -> None:
    context = {"x": torch.ones(3, 2), "edge_index": EDGES, "y": torch.ones(2)}
    assert sizes_of(context, axes=False) == {3, 4, 2}
    # Of several axes, only those that may be nodes: no fewer than the largest index says.
    assert sizes_of({**context, "h": torch.ones(2, 8, 3, 5)}, axes=True) == {3, 5, 8}
    assert sizes_of({"graph": Graph(EDGES, 5), "x": torch.ones(9, 2)}, axes=True) == {5}


def test_nodes_are_of_features_alone() -> None:
    context = {"x": torch.ones(4, 6, 2), "edge_index": EDGES, "y": torch.ones(8)}
    assert nodes_of(context) == {6}
    assert nodes_of({"x": torch.ones(1, 2)}) == set()  # one row says nothing


def test_graphs_are_edges_or_dense_matrices() -> None:
    assert has_graph({"edge_index": EDGES})
    assert has_graph({"adj": torch.ones(3, 3)})
    assert not has_graph({"adj": torch.ones(3, 2)})
    assert not has_graph({"adj": torch.ones(3, 3, dtype=torch.long)})
    assert not has_graph({"x": torch.ones(3, 3)})
