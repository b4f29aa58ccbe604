from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pyg_stkd.distill.recording.fingerprint import Seen, fingerprint
from pyg_stkd.graph import Graph

X = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "other",
    [X.double(), X.view(3, 2), X.t(), X + 1e-6, X.to(torch.bfloat16), torch.zeros(0), [X, X]],
)
def test_types_shapes_and_numbers_count(other: object) -> None:
    assert fingerprint(other) != fingerprint(X)


def test_numbers_and_words_beside_tensors_count() -> None:
    given = [X, {"k": 3, "norm": True}, ["mean", None], 0.5]
    for other in (
        [X, {"k": 4, "norm": True}, ["mean", None], 0.5],
        [X, {"k": 3, "norm": False}, ["mean", None], 0.5],
        [X, {"k": 3, "norm": True}, ["max", None], 0.5],
        [X, {"k": 3, "norm": True}, ["mean", None], 0.25],
    ):
        assert fingerprint(*other) != fingerprint(*given)
        assert not Seen(*given).same(*other)
    assert fingerprint(X, None) == fingerprint(X)
    assert Seen(*given).same(*given)


def test_equal_tensors_have_one() -> None:
    wide = torch.stack([X, X + 1], dim=-1)[..., 0]  # not contiguous
    assert fingerprint(wide) == fingerprint(X) == fingerprint({"x": X})
    edge_index = torch.tensor([[0, 1], [1, 0]])
    data = Data(x=X, edge_index=edge_index)
    assert fingerprint(data) == fingerprint(data.clone())
    assert fingerprint(Graph(edge_index, 2)) != fingerprint(Graph(edge_index, 3))


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_sparse_tensors_by_what_they_store(layout: torch.layout) -> None:
    x = X.to_sparse(layout=layout)
    assert fingerprint(x) == fingerprint(X.to_sparse(layout=layout))
    assert fingerprint(x) != fingerprint((X + 1).to_sparse(layout=layout))
    assert Seen(x).same(x)


def test_what_was_seen_is_the_same_tensor_unwritten() -> None:
    x = X.clone()
    seen = Seen(x)
    assert seen.same(x)
    assert not seen.same(x.clone())
    assert not seen.same(x, x)
    x[0, 0] = 5
    assert not seen.same(x)
    with torch.inference_mode():
        y = torch.ones(2)
    assert not Seen(y).same(y)  # whose writes nobody counts


def test_another_tensor_in_the_place_of_a_dead_one() -> None:
    seen = Seen(torch.ones(2))
    assert not seen.same(torch.ones(2))


def test_a_graph_is_seen_without_a_look() -> None:
    """Its sources are a new tensor each time that they are asked for."""
    graph, x = Graph(torch.tensor([[0, 1], [1, 0]])), torch.ones(2)
    seen = Seen(x, graph)
    assert seen.same(x, graph)
    assert not seen.same(x, Graph(torch.tensor([[0, 1], [1, 0]])))
    assert not seen.same(graph, x)
