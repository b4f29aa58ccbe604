from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.attention_kernels import Attention
from pyg_stkd.graph import Graph
from pyg_stkd.graph.head_blocks import head_blocks

N, H, C = 7, 2, 3
GRAPH = Graph(torch.randint(6, (2, 20)), N)  # one node is isolated
BLOCKS = head_blocks(GRAPH, H)
INDEX = [*BLOCKS.csr(), *BLOCKS.csc()]
DOUBLE = {"dtype": torch.float64}


def inputs(several: bool) -> tuple[Tensor, ...]:
    count = INDEX[1].numel()
    given = (
        torch.randn(N, H, C, **DOUBLE),  # type: ignore[call-overload]
        torch.randn(1 + several, H, C, **DOUBLE),  # type: ignore[call-overload]
        torch.randn(N, H, **DOUBLE),  # type: ignore[call-overload]
        torch.randn(count, **DOUBLE),  # type: ignore[call-overload]
    )
    return tuple(part.requires_grad_() for part in given)


def naive(x: Tensor, att: Tensor, score_dst: Tensor, edge_score: Tensor, noise: Tensor) -> Tensor:
    """A dense matrix of scores for each head, edges one by one."""
    _, col, row = BLOCKS.csr()
    node = (x * att[0]).sum(-1).view(-1)
    score = node[col.long()] + edge_score + score_dst.reshape(-1)[row.long()]
    if att.size(0) == 2:
        score = score + (x * att[1]).sum(-1).view(-1)[row.long()]
    weight = F.leaky_relu(score, 0.2).exp()
    total = weight.new_zeros(N * H).index_add(0, row, weight)
    alpha = weight / total[row.long()] * noise
    out = x.new_zeros(N * H, C).index_add(0, row, alpha[:, None] * x.reshape(-1, C)[col.long()])
    return out.view(N, H * C)


@pytest.mark.parametrize("several", [True, False])
def test_equals_the_formula(several: bool) -> None:
    given, noise = inputs(several), torch.rand(INDEX[1].numel(), **DOUBLE)  # type: ignore[call-overload]
    out = Attention.apply(*given, noise, 0.2, *INDEX)[0]
    expected = naive(*given, noise)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad(part.square().sum(), given) for part in (out, expected)]
    torch.testing.assert_close(*grads)


def test_derivatives_of_both_outputs_and_of_any_order() -> None:
    given = inputs(True)

    def run(*args: Any) -> Any:
        return Attention.apply(*args, None, 0.2, *INDEX)

    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)
    (grad,) = torch.autograd.grad(run(*given)[1].sum(), given[0])
    assert grad.abs().max() < 1e-10  # weights of a node add up to 1


def test_strides_are_those_that_are_promised() -> None:
    x = torch.randn(H, C, N).permute(2, 0, 1)
    att = torch.randn(C, H, 2).permute(2, 1, 0)
    ops, tests = torch.ops.pyg_stkd, ("test_schema", "test_faketensor")
    torch.library.opcheck(
        ops.attention, (INDEX[:3], x, att, None, None, None, 0.2), test_utils=tests
    )
    out, alpha, positive = ops.attention(INDEX[:3], x, att, None, None, None, 0.2)
    grad = torch.randn(H * C, N).t()
    for needed in ([True, True], [False, True], [True, False]):
        back = (INDEX, grad, None, x, att, alpha, positive, None, 0.2, needed)
        torch.library.opcheck(ops.attention_backward, back, test_utils=tests)
    assert out.shape == (N, H * C)
