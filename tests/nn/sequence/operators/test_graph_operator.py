from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import ChebConv as PyGChebConv
from torch_geometric.utils import get_laplacian, to_dense_adj

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator, gcn_operator

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1], [1, 2, 0, 0, 3, 2]])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0, 4.0, 0.25])


def reference(edges: Tensor, weight: Tensor | None, num_nodes: int, rule: str | None, top: float):
    """Takes the Laplacian from PyG and scales it densely."""
    index, value = get_laplacian(edges, weight, rule, torch.double, num_nodes)
    matrix = to_dense_adj(index, edge_attr=value, max_num_nodes=num_nodes)[0].t()
    return 2.0 / top * matrix - torch.eye(num_nodes, dtype=torch.double)


@pytest.mark.parametrize("rule", ["sym", "rw", None])
@pytest.mark.parametrize("top", [2.0, 1.7])
@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_laplacian_of_pyg(
    rule: str | None, top: float, propagation: str, weighted: bool
) -> None:
    weight = WEIGHT.double() if weighted else None
    actual = cheb_operator(
        EDGES, weight, 5, dtype=torch.double, normalization=rule, lambda_max=top,
        propagation=propagation,
    )  # fmt: skip
    assert actual.is_dense == (propagation == "dense")
    torch.testing.assert_close(actual.to_dense(), reference(EDGES, weight, 5, rule, top))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12), st.booleans())
def test_any_directed_graph(edges: list[tuple[int, int]], weighted: bool) -> None:
    index = torch.tensor(edges, dtype=torch.long).view(-1, 2).t()
    weight = torch.rand(len(edges), dtype=torch.double) if weighted else None
    actual = cheb_operator(index, weight, 6, dtype=torch.double)
    torch.testing.assert_close(actual.to_dense(), reference(index, weight, 6, "sym", 2.0))


def test_lambda_max_of_pyg_is_two() -> None:
    value = PyGChebConv(1, 1, 2).__norm__(EDGES, 5, WEIGHT, "sym", None, torch.float)[1]
    assert value[-5:].abs().max() == 0  # the diagonal


def test_gcn_with_and_without_loops() -> None:
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    for weight in (None, WEIGHT):
        index, value = gcn_norm(EDGES, weight, 5)
        expected = to_dense_adj(index, edge_attr=value, max_num_nodes=5)[0].t()
        torch.testing.assert_close(gcn_operator(EDGES, weight, 5).to_dense(), expected)


def test_is_kept_and_never_stale() -> None:
    edges, weight = EDGES.clone(), WEIGHT.clone()
    first = cheb_operator(edges, weight, 5)
    assert cheb_operator(edges, weight, 5) is first
    others = [
        cheb_operator(edges, None, 5),
        cheb_operator(edges, weight.clone(), 5),
        cheb_operator(edges.clone(), weight, 5),
        cheb_operator(edges, weight, 6),
        cheb_operator(edges, weight, 5, dtype=torch.double),
        cheb_operator(edges, weight, 5, lambda_max=1.5),
        gcn_operator(edges, weight, 5),
    ]
    assert len({id(o) for o in [first, *others]}) == 8
    first = cheb_operator(edges, weight, 5)
    weight[0] = 7.0
    changed = cheb_operator(edges, weight, 5)
    assert changed is not first
    expected = reference(edges, weight.double(), 5, "sym", 2.0).float()
    torch.testing.assert_close(changed.to_dense(), expected)
    edges[0, 0] = 4
    expected = reference(edges, weight.double(), 5, "sym", 2.0).float()
    torch.testing.assert_close(cheb_operator(edges, weight, 5).to_dense(), expected)


@pytest.mark.parametrize("as_graph", [False, True])
@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_dies_with_its_edges(as_graph: bool, propagation: str) -> None:
    edges = torch.tensor([[1, 0], [0, 1]])
    owner = Graph(edges) if as_graph else edges
    operator = weakref.ref(cheb_operator(owner, num_nodes=2, propagation=propagation))
    assert operator() is not None
    del owner, edges
    gc.collect()
    assert operator() is None


def test_graph_has_its_own_order() -> None:
    graph = Graph(EDGES, 5)
    expected = cheb_operator(EDGES, WEIGHT, 5).to_dense()
    actual = cheb_operator(graph, WEIGHT[graph.perm])
    torch.testing.assert_close(actual.to_dense(), expected)
    matrix = torch.sparse_coo_tensor(EDGES.flip(0), WEIGHT, (5, 5), check_invariants=True)
    torch.testing.assert_close(cheb_operator(matrix, num_nodes=5).to_dense(), expected)


def test_inference_first_then_training() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    with torch.inference_mode():
        operator = cheb_operator(edges, num_nodes=2)
    assert cheb_operator(edges, num_nodes=2) is operator
    assert not operator.tensors[0].is_inference()


def test_gradient_of_the_weights() -> None:
    weight = WEIGHT.double().requires_grad_()

    def run(weight: Tensor) -> Tensor:
        return cheb_operator(EDGES, weight, 5, dtype=torch.double).to_dense()

    assert torch.autograd.gradcheck(run, weight)
    assert cheb_operator(EDGES, weight, 5).requires_grad


def test_dense_where_small_or_full() -> None:
    full = torch.ones(100, 100).nonzero().t()
    ring = torch.stack([torch.arange(100), torch.arange(100).roll(1)])
    assert cheb_operator(full).is_dense
    assert not cheb_operator(ring).is_dense
    assert cheb_operator(ring[:, :0], num_nodes=8).is_dense
    assert repr(cheb_operator(ring)) == "GraphOperator(num_nodes=100, sparse)"
    assert cheb_operator(ring).to(torch.float32) is cheb_operator(ring)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"'edge_weight' must have shape \[6\].*\(got \[5\]\)"):
        cheb_operator(EDGES, WEIGHT[:5], 5)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="'edge_weight' must be finite and not negative"):
            cheb_operator(EDGES, torch.full((6,), bad), 5)
    with pytest.raises(IndexError, match=r"below the 3 source nodes \(got 3\)"):
        cheb_operator(EDGES, num_nodes=3)
    with pytest.raises(ValueError, match=r"must be \(5, 5\)"):
        cheb_operator(Graph(EDGES, 4), num_nodes=5)
    with pytest.raises(ValueError, match=r"'normalization' must be .* \(got 'row'\)"):
        cheb_operator(EDGES, normalization="row")
    with pytest.raises(ValueError, match=r"'lambda_max' must be finite and above 0 \(got 0\)"):
        cheb_operator(EDGES, lambda_max=0)
    with pytest.raises(ValueError, match=r"'propagation' must be .* \(got 'csr'\)"):
        GraphOperator(Graph(EDGES), WEIGHT, "csr")
    matrix = torch.eye(3).to_sparse_csr()
    with pytest.raises(ValueError, match="'edge_weight' must be None where"):
        cheb_operator(matrix, torch.ones(3), 3)


def test_polynomials_are_kept_for_each_type() -> None:
    operator = cheb_operator(torch.tensor([[0, 1, 2], [1, 2, 0]]))
    single, double = operator.polynomials(1, 2), operator.to(torch.float64).polynomials(1, 2)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    matrix = operator.to_dense().t().double()
    expected = torch.cat([matrix, 2 * matrix @ matrix - torch.eye(3).double()])
    torch.testing.assert_close(double, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-6)
    assert operator.polynomials(1, 2) is single
    assert operator.to(torch.float64).polynomials(1, 2) is double
