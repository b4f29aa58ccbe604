from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.edge_norm_max import edge_norm_max
from pyg_stkd.graph import Graph


def gathered(graph: Graph, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    source, target = graph.edge_index
    y = F.batch_norm(a[target] + b[source], None, None, weight, bias, training=True)
    out = a.new_zeros(graph.num_nodes, a.size(1))
    index = target.view(-1, 1).expand(-1, a.size(1))
    return out.scatter_reduce(0, index, y, "amax", include_self=False)


def make(dtype: torch.dtype) -> tuple[Graph, list[Tensor]]:
    rings = torch.arange(12)
    edges = torch.cat([torch.stack([rings, rings.roll(1)]), torch.randint(0, 12, (2, 30))], dim=1)
    shapes = [(12, 4), (12, 4), (4,), (4,)]
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    return Graph(edges, 12), inputs


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_equals_batch_normalisation_of_edges(dtype: torch.dtype, tol: float) -> None:
    graph, inputs = make(dtype)
    out, mean, var, parts = edge_norm_max(graph, *inputs)
    expected = gathered(graph, *inputs)
    y = inputs[0][graph.edge_index[1]] + inputs[1][graph.edge_index[0]]
    torch.testing.assert_close(out, expected, rtol=tol, atol=tol)
    torch.testing.assert_close(mean, y.mean(0).detach(), rtol=tol, atol=tol)
    torch.testing.assert_close(var, y.var(0, unbiased=False).detach(), rtol=tol, atol=tol)
    ends = zip(inputs[:2], graph.edge_index.flip(0), strict=True)
    terms = [z.detach()[index].var(0, unbiased=False) for z, index in ends]
    torch.testing.assert_close(parts, sum(terms), rtol=tol, atol=tol)
    weight = torch.randn_like(out)
    grads = (torch.autograd.grad((z * weight).sum(), inputs) for z in (out, expected))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=tol, atol=tol)


def test_gradcheck() -> None:
    graph, inputs = make(torch.float64)
    assert torch.autograd.gradcheck(lambda *z: edge_norm_max(graph, *z)[0], inputs)


def test_variance_survives_an_offset() -> None:
    graph, (a, b, weight, bias) = make(torch.float32)
    exact = edge_norm_max(graph, a.double(), b.double(), weight, bias)[2]
    far = edge_norm_max(graph, a + 1000, b - 300, weight, bias)[2]
    torch.testing.assert_close(far, exact.float(), rtol=1e-3, atol=0)


def test_derivatives_of_second_order() -> None:
    graph, inputs = make(torch.float64)
    entered = (graph.degree > 0).view(-1, 1)
    assert torch.autograd.gradgradcheck(
        lambda *z: edge_norm_max(graph, *z)[0].where(entered, 0.0).sin(), inputs
    )
    for wanted in (inputs[:1], inputs[1:]):  # what is not asked for needs no gradient
        fixed = [z if any(z is w for w in wanted) else z.detach() for z in inputs]
        out = edge_norm_max(graph, *fixed)[0].where(entered, 0.0).square().sum()
        grads = torch.autograd.grad(out, wanted, create_graph=True)
        assert all(grad.requires_grad for grad in grads)
