from __future__ import annotations

import pytest
import torch

from pyg_stkd.functional import sddmm, segment_log_softmax, segment_sum, spmm
from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.functional.sparse.attention import additive_attention
from pyg_stkd.functional.sparse.neighbour_max import neighbour_max
from pyg_stkd.functional.sparse.plain import (
    plain_attention,
    plain_knn,
    plain_log_softmax,
    plain_max,
    plain_sddmm,
    plain_segment_sum,
    plain_spmm,
)
from pyg_stkd.graph import Graph

GRAPH = Graph(torch.randint(9, (2, 40)), 11)  # two nodes are isolated
X = torch.randn(11, 6)
EDGE = torch.randn(40)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_the_kernels(dtype: torch.dtype) -> None:
    x, edge = X.to(dtype), EDGE.to(dtype)
    close = torch.testing.assert_close
    close(plain_sddmm(GRAPH, x, x + 1).to(dtype), sddmm(GRAPH, x, x + 1))
    close(plain_spmm(GRAPH, edge, x).to(dtype), spmm(GRAPH, edge, x))
    close(plain_segment_sum(GRAPH, edge), segment_sum(GRAPH, edge))
    close(plain_log_softmax(GRAPH, edge), segment_log_softmax(GRAPH, edge))
    close(plain_max(GRAPH, x), neighbour_max(GRAPH, x))


@pytest.mark.parametrize("several", [True, False])
def test_attention_and_its_weights(several: bool) -> None:
    x, att = torch.randn(11, 3, 2), torch.randn(1 + several, 3, 2)
    score_dst = None if several else torch.randn(11, 3)
    given = plain_attention(GRAPH, x, att, score_dst, EDGE.view(-1, 1).expand(-1, 3), 0.2, 0.0)
    expected = additive_attention(
        GRAPH, x, att, score_dst, EDGE.view(-1, 1).expand(-1, 3), 0.2, 0.0, True
    )
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("loop", [True, False])
def test_neighbours_of_one_cloud(width: int, loop: bool) -> None:
    x = torch.randn(40, width) + 1000
    for k in (1, 7, 99):
        assert torch.equal(plain_knn(x, k, loop), knn_graph(x, k, loop=loop))
