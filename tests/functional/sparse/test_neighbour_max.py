from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.sparse.neighbour_max import neighbour_max
from pyg_stkd.graph import Graph


def gathered(graph: Graph, x: Tensor) -> Tensor:
    out = x.new_zeros(graph.num_nodes, x.size(1))
    source, target = graph.edge_index
    index = target.view(-1, 1).expand(-1, x.size(1))
    return out.scatter_reduce(0, index, x[source], "amax", include_self=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_gather(dtype: torch.dtype) -> None:
    graph = Graph(torch.randint(0, 20, (2, 70)), num_nodes=(20, 25))
    x = torch.randn(20, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(25, 6, dtype=dtype)
    out, expected = neighbour_max(graph, x), gathered(graph, x)
    assert torch.equal(out, expected)
    assert torch.equal(neighbour_max(graph, x.detach()), expected)
    grad, expected = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (out, expected))
    torch.testing.assert_close(grad, expected)


def test_zeros_and_extreme_values_keep_their_gradient() -> None:
    graph = Graph(torch.tensor([[3, 2, 4, 5], [0, 1, 2, 3]]), num_nodes=6)
    values = [[0.0], [0.0], [-0.0], [1e-45], [-1e-45], [3e38]]
    x = torch.tensor(values, requires_grad=True)
    out = neighbour_max(graph, x)
    out[:4].sum().backward()
    assert torch.equal(out, torch.tensor([[1e-45], [0.0], [-1e-45], [3e38], [0.0], [0.0]]))
    assert x.grad is not None
    assert x.grad.view(-1).tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("grad", [True, False])
def test_nan_and_infinity_come_through(dtype: torch.dtype, grad: bool) -> None:
    graph = Graph(torch.tensor([[0, 1, 2, 0, 3, 4], [0, 0, 0, 1, 1, 2]]), num_nodes=5)
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([1.0, nan, 3.0, inf, -inf], dtype=dtype).view(-1, 1).requires_grad_(grad)
    out = neighbour_max(graph, x).detach().view(-1)
    expected = torch.tensor([nan, inf, -inf, 0, 0], dtype=dtype)
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=0, atol=0)


def test_the_gradient_may_be_asked_for_again() -> None:
    graph = Graph(torch.randint(0, 20, (2, 70)), num_nodes=20)
    x = torch.randn(20, 6, requires_grad=True)
    out = neighbour_max(graph, x)
    one, other = (torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(one, other)


def test_no_sources() -> None:
    graph = Graph(torch.empty(2, 0, dtype=torch.long), num_nodes=(0, 3))
    x = torch.empty(0, 2, requires_grad=True)
    neighbour_max(graph, x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 2)


def test_gradcheck() -> None:
    graph = Graph(torch.randint(0, 6, (2, 15)), num_nodes=7)
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: neighbour_max(graph, x), (x,))


def test_no_edges() -> None:
    graph = Graph(torch.empty(2, 0, dtype=torch.long), num_nodes=3)
    x = torch.randn(3, 2, requires_grad=True)
    neighbour_max(graph, x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()
