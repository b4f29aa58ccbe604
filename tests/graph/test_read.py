from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex

from pyg_stkd.graph.read import as_pair, read, resolve_size

EDGES = torch.tensor([[0, 2, 1], [1, 0, 0]])
VALUE = torch.tensor([1.0, 2.0, 3.0])


def test_reads_all_formats_alike() -> None:
    adj_t = torch.sparse_coo_tensor(EDGES.flip(0), VALUE, (3, 4), check_invariants=False)
    for adj in (adj_t, adj_t.coalesce(), adj_t.to_sparse_csr()):
        edges, value, size = read(adj)
        assert value is not None
        found = {(*edge, v) for edge, v in zip(edges.t().tolist(), value.tolist(), strict=True)
                 for edge in [tuple(edge)]}  # fmt: skip
        assert found == {(0, 1, 1.0), (2, 0, 2.0), (1, 0, 3.0)}
        assert size == (4, 3)  # sources are the columns
    edges, value, size = read(EdgeIndex(EDGES, sparse_size=(4, 3)))
    assert edges.equal(EDGES)
    assert type(edges) is torch.Tensor
    assert (value, size) == (None, (4, 3))
    assert read(EDGES.int())[0].equal(EDGES)
    assert read(EdgeIndex(EDGES))[2] is None


@pytest.mark.parametrize(
    ("adj", "error", "match"),
    [
        (None, TypeError, r"a torch.sparse matrix or a Graph \(got NoneType\)"),
        (EDGES.numpy(), TypeError, r"\(got ndarray\)"),
        (EDGES.float(), TypeError, "must be of dtype torch.int64 or torch.int32"),
        (EDGES[0], ValueError, r"must have shape \[2, num_edges\], sources then targets"),
        (torch.ones(2, 2, 2).to_sparse(), ValueError, r"must have two dimensions \(got 3\)"),
        (torch.ones(2, 2).to_sparse(1), ValueError, "must be sparse in both dimensions"),
    ],
)
def test_refuses_the_rest(adj: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        read(adj)


def test_sizes() -> None:
    assert resolve_size(EDGES, None, None) == (3, 3)
    assert resolve_size(EDGES, None, (5, 2)) == (5, 2)
    assert resolve_size(EDGES, np.int64(4), None) == (4, 4)
    assert resolve_size(EDGES[:, :0], None, None) == (0, 0)
    assert as_pair([2, np.int32(3)]) == (2, 3)


@pytest.mark.parametrize(
    ("edges", "num_nodes", "error", "match"),
    [
        ([[0], [-1]], None, IndexError, r"must not hold negative indices \(got -1\)"),
        ([[3], [0]], (3, 4), IndexError, r"source indices below the 3 source nodes \(got 3\)"),
        ([[0], [4]], (3, 4), IndexError, r"target indices below the 4 target nodes \(got 4\)"),
        ([[0], [0]], -1, ValueError, r"must not be negative \(got -1\)"),
        ([[0], [10**12]], None, ValueError, "indices of at most 4294967296 nodes"),
        ([[0], [0]], 10**12, ValueError, "'num_nodes' must be of at most"),
        ([[0], [0]], 2.5, TypeError, r"an integer or a pair of them \(got 2.5\)"),
        ([[0], [0]], (1, 2, 3), TypeError, "an integer or a pair of them"),
    ],
)
def test_wrong_sizes(
    edges: list[list[int]], num_nodes: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        resolve_size(torch.tensor(edges), num_nodes, None)
