from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.functional.sparse.attention import additive_attention
from pyg_stkd.graph import Graph


def naive(
    edge_index: Tensor,
    x: Tensor,
    att: Tensor,
    score_dst: Tensor | None,
    edge_score: Tensor | None,
    slope: float,
    num_dst: int,
) -> tuple[Tensor, Tensor]:
    """Loops over targets, on dense arrays, as the formula reads."""
    src, dst = edge_index
    score = (x * att[0]).sum(-1)[src]
    if att.size(0) == 2:
        score = score + (x * att[1]).sum(-1)[dst]
    if score_dst is not None:
        score = score + score_dst[dst]
    if edge_score is not None:
        score = score + edge_score
    score = F.leaky_relu(score, slope)
    alpha = torch.zeros_like(score)
    out = []
    for i in range(num_dst):
        mask = dst == i
        p = score[mask].softmax(0)
        alpha = alpha.masked_scatter(mask[:, None].expand_as(alpha), p)
        out.append((p[:, :, None] * x[src[mask]]).sum(0).flatten())
    return torch.stack(out), alpha


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int, int, int, bool, bool, bool]:
    num_src, num_dst = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    shared = draw(st.booleans())
    num_dst = num_src if shared else num_dst
    num_edges = draw(st.integers(0, 20))
    edge_index = torch.stack(
        [torch.randint(num_src, (num_edges,)), torch.randint(num_dst, (num_edges,))]
    )
    heads = draw(st.integers(1, 4))
    return edge_index, num_src, num_dst, heads, shared, draw(st.booleans()), draw(st.booleans())


@given(cases())
def test_values_and_gradients_are_those_of_the_formula(case: tuple) -> None:
    edge_index, num_src, num_dst, heads, shared, with_dst, with_edges = case
    x = torch.randn(num_src, heads, 3, dtype=torch.double, requires_grad=True)
    att = torch.randn(2 if shared else 1, heads, 3, dtype=torch.double, requires_grad=True)
    score_dst = edge_score = None
    if with_dst and not shared:
        score_dst = torch.randn(num_dst, heads, dtype=torch.double, requires_grad=True)
    if with_edges:
        shape = edge_index.size(1), heads
        edge_score = torch.randn(shape, dtype=torch.double, requires_grad=True)
    expected = naive(edge_index, x, att, score_dst, edge_score, 0.3, num_dst)
    graph = Graph(edge_index, (num_src, num_dst))
    actual = additive_attention(graph, x, att, score_dst, edge_score, 0.3, need_weights=True)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    grads = [torch.randn_like(out) for out in expected]
    wanted = [z for z in (x, att, score_dst, edge_score) if z is not None]
    for a, b in zip(
        torch.autograd.grad(actual, wanted, grads),
        torch.autograd.grad(expected, wanted, grads),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_gradients_of_first_and_second_order(extensions: bool) -> None:
    graph = Graph(torch.tensor([[0, 2, 1, 3, 3, 0, 0], [1, 1, 1, 0, 3, 0, 0]]), 5)
    x = torch.randn(5, 2, 3, dtype=torch.double, requires_grad=True)
    att = torch.randn(2, 2, 3, dtype=torch.double, requires_grad=True)
    edge_score = torch.randn(7, 2, dtype=torch.double, requires_grad=True)

    def f(x: Tensor, att: Tensor, edge_score: Tensor) -> tuple[Tensor, Tensor]:
        out, alpha = additive_attention(graph, x, att, None, edge_score, need_weights=True)
        assert alpha is not None
        return out, alpha

    assert gradcheck(f, (x, att, edge_score))
    assert gradgradcheck(f, (x, att, edge_score))


def test_gradient_through_the_weights_alone() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 1]]))
    x = torch.tensor([[[1.0]], [[2.0]]], requires_grad=True)
    _, alpha = additive_attention(graph, x, torch.ones(1, 1, 1), need_weights=True)
    assert alpha is not None
    (grad,) = torch.autograd.grad(alpha[0, 0], x)
    p = torch.tensor([1.0, 2.0]).softmax(0)
    torch.testing.assert_close(grad.flatten(), torch.tensor([p[0] * p[1], -p[0] * p[1]]))


def test_dropout_draws_the_mask_that_torch_draws_for_the_given_order() -> None:
    edge_index = torch.tensor([[0, 2, 1, 3, 3], [1, 1, 0, 0, 1]])
    x, att = torch.randn(4, 2, 3), torch.randn(2, 2, 3)
    graph = Graph(edge_index, 4)
    _, alpha = additive_attention(graph, x, att, need_weights=True)
    torch.manual_seed(7)
    expected = F.dropout(alpha, 0.5)
    torch.manual_seed(7)
    out, dropped = additive_attention(graph, x, att, dropout=0.5, need_weights=True)
    assert (expected == 0).any()
    torch.testing.assert_close(dropped, expected)
    message = expected[:, :, None] * x[edge_index[0]]
    torch.testing.assert_close(
        out, torch.zeros(4, 2, 3).index_add_(0, edge_index[1], message).view(4, -1)
    )


def test_large_scores_do_not_overflow() -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 1]]))
    x = torch.tensor([[[1e4]], [[-1e4]]])
    out, _ = additive_attention(graph, x, torch.ones(1, 1, 1))
    torch.testing.assert_close(out, torch.tensor([[0.0], [1e4]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    graph = Graph(torch.randint(20, (2, 90)), 20)
    x = torch.randn(20, 2, 8).to(dtype).requires_grad_()
    att = torch.randn(2, 2, 8).to(dtype).requires_grad_()
    out, _ = additive_attention(graph, x, att)
    single = [z.detach().float().requires_grad_() for z in (x, att)]
    expected, _ = additive_attention(graph, *single)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
    grad = torch.randn_like(expected).to(dtype)
    for a, b in zip(
        torch.autograd.grad(out, (x, att), grad),
        torch.autograd.grad(expected, single, grad.float()),
        strict=True,
    ):
        torch.testing.assert_close(a, b.to(dtype))


def test_no_array_over_edges_and_channels(extensions: bool) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for z in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(z, Tensor) and z.layout == torch.strided:
                    self.numel = max(self.numel, z.numel())
            return out

    graph = Graph(torch.randint(50, (2, 3000)), 50)
    x = torch.randn(50, 2, 64, requires_grad=True)
    with Largest() as largest:
        out, _ = additive_attention(graph, x, torch.randn(2, 2, 64))
        out.sum().backward()
    assert 6000 <= largest.numel <= 6400  # E * H and N * H * F, where E * H * F is 384,000


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ({"x": torch.ones(4, 1, 2)}, r"'x' must be floating .* \[3, H, F\].*\(got \[4, 1, 2\]"),
        ({"x": torch.ones(3, 1, 2, dtype=torch.long)}, r"'x' must be floating .*torch.int64"),
        ({"att": torch.ones(2, 1, 3)}, r"'att' must have shape \[1, 1, 2\].*\(got \[2, 1, 3\]\)"),
        (
            {"score_dst": torch.ones(3, 1)},
            r"'att' must have shape .*'score_dst' is not given \(got \[2, 1, 2\]\)",
        ),
        (
            {"att": torch.ones(1, 1, 2), "score_dst": torch.ones(2, 1)},
            r"'score_dst' must have shape \[3, 1\] \(got \[2, 1\]\)",
        ),
        ({"edge_score": torch.ones(1, 2)}, r"'edge_score' must have shape \[2, 1\]"),
        ({"x": torch.ones(3, 1, 2, device="meta")}, r"'x' must be on the graph's device cpu"),
    ],
)
def test_bad_input(inputs: dict[str, Tensor], match: str) -> None:
    graph = Graph(torch.tensor([[0, 1], [1, 2]]), 3)
    with pytest.raises(ValueError, match=match):
        additive_attention(
            **{"x": torch.ones(3, 1, 2), "att": torch.ones(2, 1, 2), **inputs}, graph=graph
        )
