from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.structures import square_distance as module
from pyg_stkd.functional.structures.square_distance import square_distance
from pyg_stkd.graph import Graph

EDGES = torch.cat([torch.randint(30, (2, 100)), torch.arange(5).expand(2, -1)], dim=1)
GRAPH = Graph(EDGES, 30)


def naive(z: Tensor) -> Tensor:
    source, target = GRAPH.edge_index
    return (z[target] - z[source]).square().sum(-1)


@pytest.fixture(params=[0, 1 << 20], ids=["many edges", "few edges"], autouse=True)
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "_FEW", request.param)
    return int(request.param)


@pytest.mark.parametrize("far", [0.0, 1e3, 1e5])
def test_values_and_gradients_of_far_groups(far: float) -> None:
    z = torch.randn(30, 7)
    z[::2] += far
    x, wide = z.clone().requires_grad_(), z.double().requires_grad_()
    near = naive(wide) < 1e3  # where products alone would have nothing left
    for value in (square_distance(GRAPH, x), naive(wide)):
        value[near].exp().neg().exp().sum().backward()
    torch.testing.assert_close(
        square_distance(GRAPH, x).double(), naive(wide), rtol=1e-4, atol=1e-6
    )
    assert x.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-3, atol=1e-5)


def test_equal_nodes_are_at_distance_zero() -> None:
    z = torch.randn(30, 7)
    z[1] = z[0]
    graph = Graph(torch.tensor([[0, 1, 4], [1, 0, 4]]), 30)
    assert square_distance(graph, z).tolist() == [0.0, 0.0, 0.0]


def test_derivatives_of_any_order() -> None:
    z = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: square_distance(GRAPH, z), z)
    assert torch.autograd.gradgradcheck(lambda z: square_distance(GRAPH, z), z)


def test_only_what_lost_digits_is_measured_again(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if few:
        pytest.skip("all are measured by differences")
    measured = []
    difference = module.difference

    def count(z: Tensor, dst: Tensor, src: Tensor) -> Tensor:
        measured.append(dst.numel())
        return difference(z, dst, src)

    monkeypatch.setattr(module, "difference", count)
    z = torch.randn(30, 7)
    square_distance(GRAPH, z)
    assert sum(measured) == 0
    z[0] = z[1] + 1e-4
    square_distance(Graph(torch.tensor([[0, 2], [1, 3]]), 30), z)
    assert sum(measured) == 1
