from __future__ import annotations

import re

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.cheb_conv import ChebConv, GCNConv
from pyg_stkd.nn.sequence.cheb_filter import cheb_filter
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1, 0], [1, 2, 0, 0, 1, 2, 0]])
WEIGHT = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.double)
SEQUENCE = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def step_by_step(conv: torch.nn.Module, x: Tensor, *graph: Tensor | None) -> Tensor:
    return torch.stack([torch.stack([conv(x[b, t], *graph) for t in range(3)]) for b in range(2)])


@pytest.mark.parametrize("K", [1, 2, 3, 5])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_equals_chebconv_of_pyg(K: int, weight: Tensor | None, propagation: str) -> None:
    theirs = pyg.ChebConv(2, 3, K).double()
    ours = ChebConv(2, 3, K, propagation=propagation).double()
    torch.nn.init.normal_(theirs.bias)
    with torch.no_grad():
        ours.weight.copy_(torch.stack([lin.weight.t() for lin in theirs.lins]))
        ours.bias.copy_(theirs.bias)
    x = SEQUENCE.clone().requires_grad_()
    out, expected = ours(x, EDGES, weight), step_by_step(theirs, x, EDGES, weight)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    a = torch.autograd.grad(out, [x, ours.weight, ours.bias], seed)
    b = torch.autograd.grad(expected, [x, *(lin.weight for lin in theirs.lins), theirs.bias], seed)
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(a[1], torch.stack([g.t() for g in b[1:-1]]))
    torch.testing.assert_close(a[2], b[-1])


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_equals_gcnconv_of_pyg(weight: Tensor | None) -> None:
    theirs, ours = pyg.GCNConv(2, 3).double(), GCNConv(2, 3).double()
    torch.nn.init.normal_(theirs.bias)
    with torch.no_grad():
        ours.weight[0] = theirs.lin.weight.t()
        ours.bias.copy_(theirs.bias)
    torch.testing.assert_close(
        ours(SEQUENCE, EDGES, weight), step_by_step(theirs, SEQUENCE, EDGES, weight)
    )


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("first", [0, 1])
def test_first_and_second_derivatives(propagation: str, first: int) -> None:
    operator = cheb_operator(EDGES, WEIGHT, 5, dtype=torch.double, propagation=propagation)
    weight = torch.randn(3 - first, 2, 2, dtype=torch.double, requires_grad=True)
    bias = torch.randn(2, dtype=torch.double, requires_grad=True)
    x = SEQUENCE[:1, :2].clone().requires_grad_()

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return cheb_filter(operator, x, weight, bias, first)

    assert gradcheck(run, (x, weight, bias))
    assert gradgradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_gradient_of_edge_weights(propagation: str) -> None:
    conv = ChebConv(2, 1, 3, propagation=propagation).double()
    weight = WEIGHT.clone().requires_grad_()
    assert gradcheck(lambda w: conv(SEQUENCE, EDGES, w), weight)


def test_residual_is_one_more_matrix() -> None:
    conv = ChebConv(2, 2, 3).double()
    out = conv(SEQUENCE, EDGES, residual=torch.eye(2, dtype=torch.double))
    torch.testing.assert_close(out, conv(SEQUENCE, EDGES) + SEQUENCE)


def test_prepared_operator_and_graph() -> None:
    conv = ChebConv(2, 3).double()
    expected = conv(SEQUENCE, EDGES)
    torch.testing.assert_close(conv(SEQUENCE, cheb_operator(EDGES, num_nodes=5)), expected)
    torch.testing.assert_close(conv(SEQUENCE, Graph(EDGES, 5)), expected)
    with pytest.raises(ValueError, match=r"the 5 nodes of 'x' \[B, T, N, C\] \(got 4\)"):
        conv(SEQUENCE, cheb_operator(EDGES, num_nodes=4))


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_half_precision_and_autocast(propagation: str) -> None:
    conv = ChebConv(2, 3, propagation=propagation)
    x = SEQUENCE.float().requires_grad_()
    expected = conv(x, EDGES)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = conv(x, EDGES)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, rtol=0.05, atol=0.05)
    mixed.sum().backward()
    assert conv.weight.grad.dtype == torch.float32
    half = conv.bfloat16()(x.bfloat16(), EDGES)
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("conv", [ChebConv(34, 8), GCNConv(34, 8)])
def test_shapes_of_other_axes_are_refused(conv: ChebConv) -> None:
    for shape in ((6, 34), (3, 6, 34), (34,), (1, 2, 3, 6, 34)):
        match = rf"'x' must have shape \[B, T, N, C\] .*\(got {re.escape(str(list(shape)))}\)"
        with pytest.raises(ValueError, match=match):
            conv(torch.randn(shape), EDGES)
    with pytest.raises(ValueError, match=r"with C=34 last \(got \[1, 34, 6, 5\]; the channels"):
        conv(torch.randn(1, 34, 6, 5), EDGES)
    with pytest.raises(TypeError, match=r"floating point numbers \(got torch.int64\)"):
        conv(torch.ones(1, 1, 6, 34, dtype=torch.long), EDGES)
    x = torch.randn(6, 34)
    assert conv(x[None, None], EDGES).shape == (1, 1, 6, 8)


def test_bad_arguments_and_repr() -> None:
    with pytest.raises(ValueError, match=r"'K' must be at least 1 \(got 0\)"):
        ChebConv(2, 3, 0)
    assert repr(ChebConv(2, 3)) == "ChebConv(2, 3, K=3)"
    assert repr(GCNConv(2, 3)) == "GCNConv(2, 3)"
    assert ChebConv(2, 3, bias=False).bias is None


def test_one_channel_of_strided_input() -> None:
    x = torch.randn(2, 5, 3, 1).transpose(1, 2).contiguous().transpose(1, 2)
    conv = ChebConv(1, 1, K=2)
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    torch.testing.assert_close(conv(x, edge_index), conv(x.contiguous(), edge_index))
