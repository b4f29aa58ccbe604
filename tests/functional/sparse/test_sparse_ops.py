from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.sparse import sparse_ops
from pyg_stkd.functional.sparse.sparse_ops import (
    compute_dtype,
    csr_matrix,
    graph_index,
    reduce_segments,
    sampled_dot,
    weighted_sum,
)
from pyg_stkd.graph import Graph

GRAPH = Graph(torch.randint(7, (2, 30)), 9)
POINTER, COL, ROW = GRAPH.csr()
A, B = torch.randn(9, 4), torch.randn(9, 4)
WEIGHT = torch.randn(30)


@pytest.fixture(params=["kernels", "gathered"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "gathered":
        monkeypatch.setattr(sparse_ops, "_has_kernel", lambda x: False)
        monkeypatch.setattr(sparse_ops, "_CHUNK", 20)


@pytest.mark.usefixtures("kernels")
def test_dots_and_sums_with_and_without_kernels() -> None:
    row, col = ROW.long(), COL.long()
    torch.testing.assert_close(
        sampled_dot(POINTER, COL, ROW, A, B), (A[row] * B[col]).sum(1), rtol=1e-5, atol=1e-6
    )
    dense = torch.zeros(9, 9).index_put((row, col), WEIGHT, accumulate=True)
    torch.testing.assert_close(weighted_sum(POINTER, COL, WEIGHT, B), dense @ B)


@pytest.mark.usefixtures("kernels")
def test_nothing_to_sum() -> None:
    none = Graph(torch.empty(2, 0, dtype=torch.long), 9).csr()
    assert sampled_dot(*none, A, B).shape == (0,)
    assert sampled_dot(POINTER, COL, ROW, A[:, :0], B[:, :0]).tolist() == [0.0] * 30
    assert weighted_sum(none[0], none[1], WEIGHT[:0], B).equal(torch.zeros(9, 4))


def test_more_edges_than_places() -> None:
    graph = Graph(torch.zeros(2, 5, dtype=torch.long), 1)
    dot = sampled_dot(*graph.csr(), A[:1], B[:1])
    torch.testing.assert_close(dot, (A[0] @ B[0]).expand(5))


def test_a_device_without_kernels_is_said() -> None:
    with pytest.warns(UserWarning, match="no sparse kernels for 'meta': edges are gathered"):
        assert not sparse_ops._has_kernel(A.to("meta"))


def test_segments() -> None:
    parts = WEIGHT.split(POINTER.diff().tolist())
    given = reduce_segments(POINTER, WEIGHT, "sum")
    torch.testing.assert_close(given, torch.stack([part.sum() for part in parts]))
    given = reduce_segments(POINTER, WEIGHT, "max")
    expected = [part.max() if part.numel() else torch.tensor(-torch.inf) for part in parts]
    assert torch.equal(given, torch.stack(expected))


def test_the_transpose_is_made_only_for_gradients() -> None:
    assert len(graph_index(GRAPH, A)) == 3
    wanted = A.clone().requires_grad_()
    assert len(graph_index(GRAPH, B, wanted)) == 6
    with torch.no_grad():
        assert len(graph_index(GRAPH, wanted)) == 3
    half = torch.float16, torch.bfloat16
    assert [compute_dtype(d) for d in half] == [torch.float32] * 2
    assert compute_dtype(torch.float64) == torch.float64
    dense = csr_matrix(POINTER, COL, WEIGHT, 9).to_dense()
    torch.testing.assert_close(dense @ B, weighted_sum(POINTER, COL, WEIGHT, B))


STRIDED = torch.randn(4, 9).t()
OPERATORS: dict[str, tuple[Any, ...]] = {
    "sddmm": ([*GRAPH.csr()], A, STRIDED),
    "sddmm of heads": ([*GRAPH.csr()], torch.randn(9, 3, 4), torch.randn(9, 4, 3).mT),
    "spmm": ([*GRAPH.csr()], WEIGHT, STRIDED, False),
    "spmm, transposed": ([*GRAPH.csr(), *GRAPH.csc()], WEIGHT, A, True),
    "spmm of heads": ([*GRAPH.csr()], torch.randn(30, 3), torch.randn(9, 3, 4), False),
    "segment_sum": (POINTER, torch.randn(3, 30).t()),
    "segment_log_softmax": (POINTER, ROW, torch.randn(3, 30).t()),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_keep_their_promises(name: str) -> None:
    operator = getattr(torch.ops.pyg_stkd, name.replace(",", " ").split()[0])
    torch.library.opcheck(operator, OPERATORS[name], test_utils=("test_schema", "test_faketensor"))


def test_empty_scores_have_an_empty_softmax() -> None:
    none: Tensor = torch.ops.pyg_stkd.segment_log_softmax(POINTER[:1], ROW[:0], WEIGHT[:0])
    assert none.shape == (0,)
