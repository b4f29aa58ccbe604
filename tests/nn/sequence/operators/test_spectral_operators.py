from __future__ import annotations

import gc

import pytest
import torch

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators import spectral_operators as module
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator, gcn_operator

DENSE = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]], dtype=torch.float64)


def edges() -> torch.Tensor:
    return torch.tensor([[0, 1, 0, 2], [1, 0, 2, 0]])


WEIGHT = torch.tensor([1.0, 1.0, 0.5, 0.5], dtype=torch.float64)


def test_the_formula_of_the_papers() -> None:
    degree = DENSE.sum(1)
    for lambda_max in (2.0, 1.7):
        given = cheb_operator(edges(), WEIGHT, dtype=torch.float64, lambda_max=lambda_max)
        scale = degree.rsqrt().diag()
        laplacian = torch.eye(3) - scale @ DENSE @ scale
        torch.testing.assert_close(given.to_dense(), 2 / lambda_max * laplacian - torch.eye(3))
    own = DENSE + torch.eye(3)
    scale = own.sum(1).rsqrt().diag()
    given = gcn_operator(edges(), WEIGHT, dtype=torch.float64)
    torch.testing.assert_close(given.to_dense(), scale @ own @ scale)


def test_the_same_object_at_the_same_version_is_found_again() -> None:
    edge_index, weight = edges(), WEIGHT.clone()
    operator = cheb_operator(edge_index, weight)
    assert cheb_operator(edge_index, weight) is operator
    assert cheb_operator(edge_index.clone(), weight) is not operator
    assert cheb_operator(edge_index, weight.clone()) is not operator
    assert cheb_operator(edge_index, weight, lambda_max=1.5) is not operator
    assert cheb_operator(edge_index, weight, 5) is not operator
    assert gcn_operator(edge_index, weight) is not operator
    operator = cheb_operator(edge_index, weight)
    weight[0] = 2.0
    changed = cheb_operator(edge_index, weight)
    assert changed is not operator
    assert not torch.equal(changed.to_dense(), operator.to_dense())
    graph = Graph(edges())
    assert cheb_operator(graph) is cheb_operator(graph)


def test_nothing_is_kept_of_what_is_gone_or_may_change() -> None:
    before = len(module._KEPT)
    edge_index = edges()
    cheb_operator(edge_index)
    assert len(module._KEPT) == before + 1
    for _ in range(9):
        cheb_operator(edge_index, WEIGHT.clone())
    assert len(module._KEPT[edge_index]) == module._KEPT_PER_EDGE_SET
    del edge_index
    gc.collect()
    assert len(module._KEPT) == before
    learned = WEIGHT.clone().requires_grad_()
    edge_index = edges()
    assert cheb_operator(edge_index, learned) is not cheb_operator(edge_index, learned)
    matrix = edges_as_matrix()
    assert cheb_operator(matrix) is not cheb_operator(matrix)


def edges_as_matrix() -> torch.Tensor:
    return torch.sparse_coo_tensor(edges().flip(0), WEIGHT, (3, 3), check_invariants=False)


def test_what_an_evaluation_builds_serves_training() -> None:
    edge_index = edges()
    with torch.inference_mode():
        operator = cheb_operator(edge_index)
    assert not operator.tensors[0].is_inference()
    assert cheb_operator(edge_index) is operator


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"normalization": "both"}, "'normalization' must be one of"),
        ({"lambda_max": 0.0}, "'lambda_max' must be finite and above 0"),
        ({"propagation": "fast"}, "'propagation' must be one of"),
    ],
)
def test_unknown_options(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        cheb_operator(edges(), **options)  # type: ignore[arg-type]
