"""The operator behind additive attention: its kernels for torch's dispatcher, its derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.sparse_ops import (
    SegmentLogSoftmax,
    SpMM,
    compute_dtype,
    reduce_segments,
    sampled_dot,
    weighted_sum,
)

__all__ = ["Attention"]

_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define(
    "attention(Tensor[] index, Tensor x, Tensor att, Tensor? score_dst, Tensor? edge_score, "
    "Tensor? noise, float slope) -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "attention_backward(Tensor[] index, Tensor grad, Tensor? grad_alpha, Tensor x, Tensor att, "
    "Tensor alpha, Tensor positive, Tensor? noise, float slope, bool[] needed) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


@torch.library.impl(_library, "attention", "CompositeExplicitAutograd")
def _attention(
    index: list[Tensor],
    x: Tensor,
    att: Tensor,
    score_dst: Tensor | None,
    edge_score: Tensor | None,
    noise: Tensor | None,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, the weights before dropout (flat) and where scores are positive."""
    pointer, col, row = index[:3]
    (_, heads, width), out_dtype = x.shape, x.dtype
    num_dst, dtype = (pointer.numel() - 1) // heads, compute_dtype(x.dtype)
    x, att = x.to(dtype).contiguous(), att.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        node = torch.einsum("nhc,khc->knh", x, att).reshape(att.size(0), -1)
    score = node[0].index_select(0, col)
    if att.size(0) == 2:
        score += node[1].index_select(0, row)
    if score_dst is not None:
        score += score_dst.to(dtype).reshape(-1).index_select(0, row)
    if edge_score is not None:
        score += edge_score.to(dtype)
    positive = score > 0
    F.leaky_relu_(score, slope)
    if score.numel() > 0:
        score -= reduce_segments(pointer, score, "max").index_select(0, row)
        score.exp_()
        score /= reduce_segments(pointer, score, "sum").index_select(0, row)
    weight = score if noise is None else score * noise.to(dtype)
    out = weighted_sum(pointer, col, weight, x.view(-1, width))
    # Not a view, so that callers may add to the output in place.
    out = torch.ops.aten._unsafe_view(out, [num_dst, heads * width])
    return out.to(out_dtype), score, positive


@torch.library.register_fake("pyg_stkd::attention", lib=_library)
def _(
    index: list[Tensor],
    x: Tensor,
    att: Tensor,
    score_dst: Tensor | None,
    edge_score: Tensor | None,
    noise: Tensor | None,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    num_dst = (index[0].size(0) - 1) // x.size(1)
    alpha = x.new_empty(index[1].size(0), dtype=compute_dtype(x.dtype))
    out = x.new_empty(num_dst, x.size(1) * x.size(2))
    return out, alpha, torch.empty_like(alpha, dtype=torch.bool)


@torch.library.impl(_library, "attention_backward", "CompositeExplicitAutograd")
def _attention_backward(
    index: list[Tensor],
    grad: Tensor,
    grad_alpha: Tensor | None,
    x: Tensor,
    att: Tensor,
    alpha: Tensor,
    positive: Tensor,
    noise: Tensor | None,
    slope: float,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pointer, col, row, pointer_t, row_t, perm = index
    (num_src, heads, width), num_att = x.shape, att.size(0)
    in_dtype, dtype = x.dtype, alpha.dtype
    x, att = x.to(dtype).contiguous(), att.to(dtype)
    rows = grad.to(dtype).contiguous().view(-1, width)  # one row for each (node, head)
    noise = None if noise is None else noise.to(dtype)

    # Through the sum, the dropout, the softmax and the LeakyReLU, on the edges.
    score = sampled_dot(pointer, col, row, rows, x.view(-1, width))
    if grad_alpha is not None:
        score = score + grad_alpha.to(dtype)
    if noise is not None:
        score = score * noise
    score *= alpha
    if score.numel() > 0:
        score -= alpha * reduce_segments(pointer, score, "sum").index_select(0, row)
    torch.where(positive, score, score * slope, out=score)

    # To the nodes.
    node_dst = _sum(pointer, score)
    nodes = [_sum(pointer_t, score.index_select(0, perm)).view(-1, heads)]
    if num_att == 2:
        nodes.append(node_dst.view(-1, heads))
    grad_att, grad_x = x.new_empty(0), x.new_empty(0)
    with torch.autocast(x.device.type, enabled=False):
        if needed[1]:
            # einsum leaves an order of axes of its own, and the fake kernel promises the usual one.
            grad_att = torch.einsum("knh,nhc->khc", torch.stack(nodes), x).contiguous()
        if needed[0]:
            weight = alpha if noise is None else alpha * noise
            grad_x = weighted_sum(pointer_t, row_t, weight.index_select(0, perm), rows)
            # A product with block-diagonal attention vectors adds the scores' part in place.
            eye = torch.eye(heads, dtype=dtype, device=x.device)
            vectors = (eye[:, :, None] * att[:, :, None]).reshape(num_att * heads, -1)
            grad_x.view(num_src, heads * width).addmm_(torch.cat(nodes, dim=1), vectors)
    return (
        grad_x.view(x.shape if needed[0] else 0).to(in_dtype),
        grad_att.to(in_dtype),
        node_dst.view(-1, heads).to(in_dtype),
        score.to(in_dtype),
    )


@torch.library.register_fake("pyg_stkd::attention_backward", lib=_library)
def _(
    index: list[Tensor],
    grad: Tensor,
    grad_alpha: Tensor | None,
    x: Tensor,
    att: Tensor,
    alpha: Tensor,
    positive: Tensor,
    noise: Tensor | None,
    slope: float,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_x = x.new_empty(x.shape if needed[0] else 0)
    grad_att = att.new_empty(att.shape if needed[1] else 0)
    num_dst = (index[0].size(0) - 1) // x.size(1)
    return grad_x, grad_att, x.new_empty(num_dst, x.size(1)), x.new_empty(alpha.shape)


def _sum(pointer: Tensor, value: Tensor) -> Tensor:
    if value.numel() == 0:
        return value.new_zeros(pointer.numel() - 1)
    return reduce_segments(pointer, value, "sum")


# Derivatives --------------------------------------------------------------------------------------


class Attention(torch.autograd.Function):
    """Additive attention on blocks of heads; derivatives of any order."""

    @staticmethod
    def forward(ctx, x, att, score_dst, edge_score, noise, slope, *index):  # type: ignore[no-untyped-def]
        ops = torch.ops.pyg_stkd
        out, prob, positive = ops.attention(
            list(index), x, att, score_dst, edge_score, noise, slope
        )
        ctx.slope = slope
        ctx.save_for_backward(x, att, score_dst, edge_score, noise, prob, positive, *index)
        ctx.set_materialize_grads(False)
        alpha = prob if noise is None else prob * noise
        return out, alpha.to(x.dtype)

    @staticmethod
    def backward(ctx, grad, grad_alpha):  # type: ignore[no-untyped-def]
        x, att, score_dst, edge_score, noise, prob, positive, *index = ctx.saved_tensors
        if grad is None:
            if grad_alpha is None:
                return (None,) * (6 + len(index))
            num_dst = (index[0].numel() - 1) // x.size(1)
            grad = x.new_zeros(num_dst, x.size(1) * x.size(2))
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            grads = _differentiable_backward(
                (x, att, score_dst, edge_score), noise, ctx.slope, index, grad, grad_alpha, needed
            )
        else:
            grads = torch.ops.pyg_stkd.attention_backward(
                index, grad, grad_alpha, x, att, prob, positive, noise, ctx.slope, needed[:2]
            )
        grads = [g if need else None for g, need in zip(grads, needed, strict=True)]
        return (*grads, None, None, *[None] * len(index))


def _differentiable_backward(
    inputs: Any, noise: Any, slope: float, index: Any, grad: Any, grad_alpha: Any, needed: Any
) -> list[Tensor | None]:
    """Derive the same function composed of the primitives: for derivatives of higher order."""
    wanted = [z for z, need in zip(inputs, needed, strict=True) if need]
    x, att, score_dst, edge_score = inputs
    outputs: Any = _composed(x, att, score_dst, edge_score, noise, slope, index)
    grads = zip(outputs, (grad, grad_alpha), strict=True)
    outputs, given = zip(*[pair for pair in grads if pair[1] is not None], strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, given, create_graph=True))
    return [next(found) if need else None for need in needed]


def _composed(
    x: Tensor,
    att: Tensor,
    score_dst: Tensor | None,
    edge_score: Tensor | None,
    noise: Tensor | None,
    slope: float,
    index: Any,
) -> tuple[Tensor, Tensor]:
    pointer, col, row = index[:3]
    score = (x * att[0]).sum(-1).view(-1).index_select(0, col)
    if att.size(0) == 2:
        score = score + (x * att[1]).sum(-1).view(-1).index_select(0, row)
    if score_dst is not None:
        score = score + score_dst.reshape(-1).index_select(0, row)
    if edge_score is not None:
        score = score + edge_score
    score = F.leaky_relu(score, slope)
    alpha = SegmentLogSoftmax.apply(score, pointer, row).exp()
    if noise is not None:
        alpha = alpha * noise
    out = SpMM.apply(alpha, x.reshape(-1, x.size(-1)), False, *index)
    return out.view(-1, x.size(1) * x.size(2)), alpha
