from __future__ import annotations

import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor

from pyg_stkd.distill.recording.reading.inputs import (
    find_edge_index,
    find_input,
    is_edge_index,
)
from pyg_stkd.graph import Graph

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (EDGES, True),
        (EDGES.int(), True),
        (Graph(EDGES), True),
        (EdgeIndex(EDGES, sparse_size=(3, 3)), True),
        (torch.eye(3).to_sparse_csr(), True),
        (torch.eye(3).to_sparse_coo(), True),
        (EDGES.t(), False),
        (EDGES[0], False),
        (EDGES.float(), False),
        (EDGES.bool(), False),
        (None, False),
        ([[0], [1]], False),
    ],
)
def test_what_looks_like_a_graph(value, expected):
    assert is_edge_index(value) is expected


@pytest.mark.skipif(not WITH_TORCH_SPARSE, reason="needs torch-sparse")
def test_sparse_tensor_is_a_graph():
    adj_t = SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(3, 3))
    assert find_edge_index({"x": torch.ones(3, 2), "y": adj_t}) is adj_t


def test_names_come_before_types():
    other = EDGES.flip(0)
    assert find_edge_index({"index": other, "edge_index": EDGES}) is EDGES
    assert find_edge_index({"index": other, "adj_t": None}) is other
    assert find_edge_index({"x": torch.ones(2, 2)}) is None


def test_data_objects_are_looked_into():
    data = Data(x=torch.ones(3, 2), edge_index=EDGES, batch=torch.zeros(3).long())
    for name in ("data", "batch"):
        assert find_edge_index({name: data}) is EDGES
        assert find_input({name: data}, "batch") is data.batch
    assert find_input({"data": data}, "edge_weight") is None


def test_data_of_many_types_is_left_alone():
    data = HeteroData()
    data["a"].x = data["b"].x = torch.ones(2, 3)
    data["a", "b"].edge_index = EDGES[:, :1]
    both = Batch.from_data_list([data, data])
    for value in (data, both):
        for name in ("edge_index", "edge_weight", "batch", "x"):
            assert find_input({"data": value, name: None}, name) is None
        assert find_input({"batch": value}, "batch") is None
        assert find_edge_index({"data": value}) is None
        assert value.node_types == ["a", "b"]


@pytest.mark.parametrize("name", ["hyperedge_index", "edge_label_index", "x", "edge_attr"])
def test_names_of_other_things_are_no_graphs(name):
    assert find_edge_index({name: EDGES}) is None
    assert find_edge_index({name: EDGES, "e": EDGES.flip(0)}).equal(EDGES.flip(0))
