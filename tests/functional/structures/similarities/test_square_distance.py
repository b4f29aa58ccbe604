from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch.aot_autograd import make_boxed_func

from pyg_stkd.functional.structures.similarities import square_distance as module
from pyg_stkd.functional.structures.similarities.square_distance import square_distance
from pyg_stkd.graph import Graph
from pyg_stkd.graph.unordered import unordered

# Dynamo makes one itself.
COMPILES = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
LOOPS = torch.arange(5).expand(2, -1)
ONE_WAY = torch.combinations(torch.arange(30)).t()[:, torch.randperm(435)[:100]]
GRAPHS = {
    "one way": Graph(torch.cat([ONE_WAY, LOOPS], dim=1), 30),
    "both ways": Graph(torch.cat([ONE_WAY, ONE_WAY.flip(0)[:, :80], ONE_WAY[:, :3], LOOPS], 1), 30),
}


def naive(graph: Graph, z: Tensor) -> Tensor:
    source, target = graph.edge_index
    return (z[target] - z[source]).square().sum(-1)


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return GRAPHS[request.param]


@pytest.fixture(params=[0, 1 << 20], ids=["many edges", "few edges"], autouse=True)
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(module, "_FEW", request.param)
    return int(request.param)


def test_which_graph_has_pairs() -> None:
    assert unordered(GRAPHS["one way"])[0] is None
    pairs = unordered(GRAPHS["both ways"])[0]
    assert pairs is not None
    assert pairs.num_edges == 105


@pytest.mark.parametrize("far", [0.0, 1e3, 1e5])
def test_values_and_gradients_of_far_groups(far: float, graph: Graph) -> None:
    z = torch.randn(30, 7)
    z[::2] += far
    x, wide = z.clone().requires_grad_(), z.double().requires_grad_()
    near = naive(graph, wide) < 1e3  # where products alone would have nothing left
    for value in (square_distance(graph, x), naive(graph, wide)):
        value[near].exp().neg().exp().sum().backward()
    torch.testing.assert_close(
        square_distance(graph, x).double(), naive(graph, wide), rtol=1e-4, atol=1e-6
    )
    assert x.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-3, atol=1e-5)


def test_equal_nodes_are_at_distance_zero() -> None:
    z = torch.randn(30, 7)
    z[1] = z[0]
    graph = Graph(torch.tensor([[0, 1, 4], [1, 0, 4]]), 30)
    assert square_distance(graph, z).tolist() == [0.0, 0.0, 0.0]


def test_derivatives_of_any_order(graph: Graph) -> None:
    z = torch.randn(30, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: square_distance(graph, z), z)
    assert torch.autograd.gradgradcheck(lambda z: square_distance(graph, z), z)


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
    square_distance(GRAPHS["one way"], z)
    assert sum(measured) == 0
    z[0] = z[1] + 1e-4
    square_distance(Graph(torch.tensor([[0, 2], [1, 3]]), 30), z)
    assert sum(measured) == 1


def test_pairs_are_measured_once_and_to_the_bit_as_their_edges(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if few:
        pytest.skip("all are measured by differences")
    measured, graph = [], GRAPHS["both ways"]
    measure = module._measure

    def count(index: Any, *args: Tensor) -> Any:
        measured.append(index[1].numel())
        return measure(index, *args)

    monkeypatch.setattr(module, "_measure", count)
    z = torch.randn(30, 7)
    ours = square_distance(graph, z)
    monkeypatch.setattr(module, "unordered", lambda graph: (None, None))
    assert ours.equal(square_distance(graph, z))
    assert measured == [105, graph.num_edges]


@pytest.mark.parametrize(("gap", "wide"), [(1e-2, 0), (1e-4, 1), (0.0, 0)])
def test_only_differences_that_lost_digits_are_pulled_in_double(
    gap: float, wide: int, graph: Graph, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Squares lose twice the digits: where they are measured again, differences may have enough."""
    if few:
        pytest.skip("all are measured by differences")
    calls = []
    double = module._wide
    monkeypatch.setattr(module, "_wide", lambda z: calls.append(1) or double(z))
    z = torch.randn(30, 7)
    source, target = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    z[source[0]] = z[target[0]] + gap
    x, exact = z.clone().requires_grad_(), z.double().requires_grad_()
    weight = torch.rand(graph.num_edges)
    (square_distance(graph, x) * weight).sum().backward()
    (naive(graph, exact) * weight).sum().backward()
    assert len(calls) == wide
    assert x.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(x.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


@COMPILES
@pytest.mark.parametrize("far", [0.0, 1e3, 1e5])
def test_compiled_as_eager(far: float, graph: Graph) -> None:
    """Of groups that far products have no digits of, and of a mean that all are moved by."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(square_distance, backend=counter, fullgraph=True)
    z = torch.randn(30, 7) + (far if far < 1e5 else 0.0)
    z[::2] += far
    z[1] = z[0] + 1e-4 if graph.num_edges > 120 else z[1]
    weight = torch.rand(graph.num_edges)
    for _ in range(3):
        x, y = z.clone().requires_grad_(), z.clone().requires_grad_()
        out, expected = compiled(graph, x), square_distance(graph, y)
        torch.testing.assert_close(out, expected)
        for value in (out, expected):
            (value * weight).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
    assert counter.frame_count <= 2  # one without, one with what is made of the graph
    torch._dynamo.reset()


@COMPILES
def test_compiled_code_pulls_in_one_sweep_over_a_graph_that_is_kept(few: int) -> None:
    """What that takes is made of the graph once, but of one that the code itself builds never."""
    if few:
        pytest.skip("the same for all sizes")
    torch._dynamo.reset()
    edges = torch.randint(30, (2, 200))
    kept = Graph(edges, 30)
    for graph, ways in ((kept, True), (edges, False)):
        nodes = []

        def look(module: Any, _: Any, nodes: list[Any] = nodes) -> Any:
            nodes.extend(node for node in module.graph.nodes if "backward" in str(node.target))
            return make_boxed_func(module)

        def loss(z: Tensor, graph: Any = graph) -> Tensor:
            return square_distance(Graph.of(graph, 30), z).sum()

        backend = aot_autograd(fw_compiler=look, bw_compiler=look)
        compiled = torch.compile(loss, backend=backend, fullgraph=True)
        for _ in range(2):
            z = torch.randn(30, 7, requires_grad=True)
            compiled(z).backward()
        assert bool(nodes[-1].args[1]) == ways
    assert len(kept.kept("both ways")) == 3
    torch._dynamo.reset()
