"""A convolution along time and its gate, as matrix products that reuse their buffers.

Without doctests: pytest imports a file with doctests anew where that file alone is given, and an
operator can be defined only once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.nn.sequence.gates import apply_gate

__all__ = ["PARTS", "GatedConv", "convolve", "windows"]

# Maps of each gate for each output channel.
PARTS = {"linear": 1, "glu": 2, "pgt": 3}
# Up to so many inputs in a window, windows are copied: thin products are slow.
_FEW = 16

# A compiler sees an operator, not its products, for three reasons. It would keep windows of the
# input for the backward pass, copied one by one, and Inductor takes the strides of such copies for
# constants: the next number of nodes fails. What it fuses with such copies, an activation and its
# mask, it computes once for each tap: a sixth of a step of the small STGCN. And under torch 2.6 the
# products gave wrong gradients, as if a generator ran to its end before what it yielded first, a
# buffer that is written again, was used.
_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("gated_conv(Tensor x, Tensor weight, Tensor bias, str gate) -> Tensor[]")
_library.define(
    "gated_conv_backward(Tensor grad, Tensor x, Tensor weight, Tensor[] kept, str gate, "
    "bool[] needed) -> (Tensor, Tensor, Tensor)"
)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve sequences [B, T, N, C] along time with torch's own operator."""
    # [B, T, N, C] is the channels-last layout of [B, C, T, N]: no copy is made.
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1).contiguous()


@torch.library.impl(_library, "gated_conv", "CompositeExplicitAutograd")
def _forward(x: Tensor, weight: Tensor, bias: Tensor, gate: str) -> list[Tensor]:
    """Return the output, and what else the gradients follow from: sigmoid(Q), P * sigmoid(Q)."""
    num_parts = PARTS[gate]
    x, weight = windows(x, weight)
    rows = x.contiguous().flatten(1, 2)  # [B, T * N, C]
    taps = weight[..., 0].permute(2, 1, 0)  # [k, C, C']
    num_nodes, num_steps = x.size(2), x.size(1) - weight.size(2) + 1
    size = num_steps * num_nodes
    parts = []
    for tap, b in zip(taps.chunk(num_parts, -1), bias.chunk(num_parts), strict=True):
        tap = tap.contiguous().unsqueeze(1).expand(-1, x.size(0), -1, -1)  # [k, B, C, C']
        y = torch.baddbmm(b, rows.narrow(1, 0, size), tap[0])
        for k in range(1, weight.size(2)):
            y.baddbmm_(rows.narrow(1, k * num_nodes, size), tap[k])
        parts.append(y.view(x.size(0), num_steps, num_nodes, b.numel()))
    if gate == "linear":
        return parts
    s = parts[1].sigmoid_()
    product = parts[0].mul_(s)
    return [product, s] if gate == "glu" else [parts[2].add_(product).relu_(), s, product]


@torch.library.register_fake("pyg_stkd::gated_conv", lib=_library)
def _(x: Tensor, weight: Tensor, bias: Tensor, gate: str) -> list[Tensor]:
    num_steps, width = x.size(1) - weight.size(2) + 1, weight.size(0) // PARTS[gate]
    shape = (x.size(0), num_steps, x.size(2), width)
    return [x.new_empty(shape) for _ in range(PARTS[gate])]


@torch.library.impl(_library, "gated_conv_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, kept: list[Tensor], gate: str, needed: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the input, the weight and the bias: empty where not needed."""
    needs_x, needs_weight, needs_bias = needed
    given = x.shape, weight.shape
    x, weight = windows(x, weight)
    num_taps, num_nodes, size = weight.size(2), x.size(2), grad.size(1) * grad.size(2)
    rows = x.contiguous().flatten(1, 2)
    grad_x = torch.zeros_like(rows) if needs_x else x.new_empty(0)
    taps = weight[..., 0].permute(2, 0, 1).contiguous()  # [k, C', C]
    grad_taps, grad_bias, start = [], [], 0
    for part in _part_grads(grad.contiguous(), gate, kept):
        part = part.flatten(1, 2)  # [B, T' * N, C']
        columns = part.transpose(1, 2)
        tap = taps.narrow(1, start, part.size(-1)).unsqueeze(1).expand(-1, x.size(0), -1, -1)
        start += part.size(-1)
        if needs_x:
            for k in range(num_taps):
                grad_x.narrow(1, k * num_nodes, size).baddbmm_(part, tap[k])
        if needs_weight:
            each = [
                torch.bmm(columns, rows.narrow(1, k * num_nodes, size)).sum(0)
                for k in range(num_taps)
            ]
            grad_taps.append(torch.stack(each, dim=-1)[..., None])
        if needs_bias:
            grad_bias.append(part.sum(1).sum(0))
    return (
        _folded(grad_x.view(x.shape), given[0], given[1][2]) if needs_x else grad_x,
        torch.cat(grad_taps).view(given[1]) if needs_weight else x.new_empty(0),
        torch.cat(grad_bias) if needs_bias else x.new_empty(0),
    )


@torch.library.register_fake("pyg_stkd::gated_conv_backward", lib=_library)
def _(
    grad: Tensor, x: Tensor, weight: Tensor, kept: list[Tensor], gate: str, needed: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (x.shape, weight.shape, weight.shape[:1])
    grads = [x.new_empty(shape if need else 0) for shape, need in zip(shapes, needed, strict=True)]
    return grads[0], grads[1], grads[2]


def windows(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return windows [B, T', N, C * k] and weights of one tap, where that pays."""
    num_taps = weight.size(2)
    if num_taps == 1 or weight.size(1) * num_taps > _FEW:
        return x, weight
    return x.unfold(1, num_taps, 1).flatten(-2), weight.flatten(1)[..., None, None]


def _folded(grad: Tensor, shape: torch.Size, num_taps: int) -> Tensor:
    """Return the gradient of an input of some shape from that of its windows, if these it is."""
    if grad.shape == shape:
        return grad
    return torch.ops.aten.unfold_backward(grad.unflatten(-1, (-1, num_taps)), shape, 1, num_taps, 1)


def _part_grads(grad: Tensor, gate: str, kept: list[Tensor]) -> Iterator[Tensor]:
    """Yield the gradients of P, Q and R; each is used up before the next overwrites it."""
    if gate == "linear":
        yield grad
        return
    s, product = kept[:2]
    if gate == "pgt":
        grad = torch.ops.aten.threshold_backward(grad, kept[2], 0)
    buffer = grad * s
    yield buffer
    torch.mul(grad, product, out=buffer)
    yield buffer.addcmul_(buffer, s, value=-1.0)
    if gate == "pgt":
        yield grad


class GatedConv(torch.autograd.Function):
    """Gates of separate products, computed in place; fresh memory costs more than arithmetic."""

    @staticmethod
    def forward(ctx, x, weight, bias, gate):  # type: ignore[no-untyped-def]
        ctx.gate = gate
        run = torch.ops.pyg_stkd.gated_conv if torch.compiler.is_compiling() else _forward
        out, *others = run(x, weight, bias, gate)
        kept = [] if gate == "linear" else [*others, out]
        ctx.save_for_backward(x, weight, bias, *kept)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, bias, *kept = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:3])
        compiling = torch.compiler.is_compiling()
        if torch.is_grad_enabled() and not compiling:
            # Derivatives of this derivative are wanted.
            out = apply_gate(convolve(x, weight, bias), ctx.gate)
            inputs = [i for i, need in zip((x, weight, bias), needs, strict=True) if need]
            grads = iter(torch.autograd.grad(out, inputs, grad, create_graph=True))
            return *(next(grads) if need else None for need in needs), None
        run = torch.ops.pyg_stkd.gated_conv_backward if compiling else _backward
        each = run(grad, x, weight, kept, ctx.gate, needs)
        return *(g if need else None for g, need in zip(each, needs, strict=True)), None
