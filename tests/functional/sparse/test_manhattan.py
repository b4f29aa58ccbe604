from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.functional.sparse import manhattan as module
from pyg_stkd.functional.sparse.manhattan import manhattan
from pyg_stkd.graph import Graph

EDGES = torch.tensor([[3, 0, 2, 4, 0, 1, 3, 2], [1, 2, 0, 4, 2, 0, 3, 1]])


def naive(graph: Graph, z: Tensor) -> Tensor:
    return (z[graph.edge_index[1]] - z[graph.edge_index[0]]).abs().sum(-1)


@pytest.fixture(params=[1, 10, 1 << 16])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Edges in one chunk, three to a chunk, one to a chunk."""
    monkeypatch.setattr(module, "_CHUNK", request.param)
    return request.param


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("num_nodes", [5, 8])
def test_equals_naive(num_nodes: int, device: torch.device) -> None:
    graph = Graph(EDGES.to(device), num_nodes)
    z = torch.randn(num_nodes, 3, dtype=torch.double, device=device, requires_grad=True)
    out, expected = manhattan(graph, z), naive(graph, z)
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=0)
    grad = torch.randn_like(out)
    got, correct = (torch.autograd.grad(y, z, grad)[0] for y in (out, expected))
    torch.testing.assert_close(got, correct, rtol=1e-14, atol=1e-14)


@pytest.mark.usefixtures("chunk")
def test_derivatives(device: torch.device) -> None:
    graph = Graph(EDGES.to(device))
    z = torch.randn(5, 3, dtype=torch.double, device=device, requires_grad=True)
    assert gradcheck(lambda z: manhattan(graph, z), z)
    assert gradgradcheck(lambda z: manhattan(graph, z).sin(), z)


def test_precision_and_layout() -> None:
    graph = Graph(EDGES)
    z = torch.randn(3, 5, requires_grad=True)
    torch.testing.assert_close(manhattan(graph, z.t()), naive(graph, z.t()))
    got, correct = (
        torch.autograd.grad(f(graph, z.t()).square().sum(), z)[0] for f in (manhattan, naive)
    )
    torch.testing.assert_close(got, correct)


@pytest.mark.parametrize("shape", [(0, 3), (4, 3), (4, 0)])
def test_empty(shape: tuple[int, int]) -> None:
    edges = EDGES[:, :0] if shape[1] else torch.tensor([[0], [1]])
    z = torch.randn(shape, requires_grad=True)
    out = manhattan(Graph(edges, shape[0]), z)
    assert out.tolist() == [0] * edges.size(1)
    assert torch.autograd.grad(out.sum(), z)[0].shape == shape


def test_blocks_stay_small(allocations: Callable[[Callable[[], object]], list[int]]) -> None:
    graph = Graph(torch.randint(0, 100, (2, 8_000)))
    z = torch.randn(100, 128, requires_grad=True)
    largest = max(allocations(lambda: torch.autograd.grad(manhattan(graph, z).sum(), z)))
    assert largest <= max(4 * module._CHUNK, 8 * graph.num_edges)
    assert largest < 0.1 * (4 * graph.num_edges * z.size(1))


def test_operators() -> None:
    _, col, row = Graph(EDGES).csr()
    z, v = torch.randn(5, 3), torch.randn(5, 3)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.pyg_stkd.manhattan, (z, v, col, row), test_utils=tests)
    args = (torch.randn(8), z, col, row)
    torch.library.opcheck(torch.ops.pyg_stkd.manhattan_backward, args, test_utils=tests)
