"""The convolution along time below every gate, as matrix products that reuse their buffers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd.graph import is_transforming
from pyg_stkd.nn.sequence.gates import apply_gate
from pyg_stkd.nn.sequence.thin import Role, conv_rows, from_rows, pays, to_rows

__all__ = ["TimeConv", "keeps_digits"]

# Maps of each gate for each output channel.
_PARTS = {"linear": 1, "glu": 2, "pgt": 3}


class TimeConv(nn.Conv2d):
    r"""A convolution along time alone, with the weights of a :class:`torch.nn.Conv2d`, and a gate.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Number of maps, those of the gate's parts one after the other.
        kernel_size (int): Steps in a window.
        bias (bool, optional): Whether to learn an additive bias. (default: :obj:`True`)

    Shapes:
        - **input:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, T - k + 1, N, C')`, half or a third of the maps if gated

    Example:
        >>> TimeConv(2, 8, 3)(torch.randn(1, 12, 5, 2), gate="glu").shape
        torch.Size([1, 10, 5, 4])
    """

    thin = Role.TIME

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, (kernel_size, 1), bias=bias)

    def forward(self, x: Tensor, gate: str = "linear", residual: int = 0) -> Tensor:
        """Convolve and gate; the input's last step is added to the first :obj:`residual` maps."""
        weight, bias = self.weight, self.bias
        if pays(x, weight.size(1), weight.size(0) // _PARTS[gate], weight, bias):
            rows = conv_rows(to_rows(x), weight, bias, residual)
            return from_rows(apply_gate(rows, gate, dim=1), x.size(0))
        if residual:
            # One more tap, an identity: no pass over the output is needed.
            weight = torch.cat([_with_identity(weight[:residual]), weight[residual:]])
        if is_transforming() or not keeps_digits(x):
            return apply_gate(_convolve(x, weight, bias), gate)
        if bias is None:
            bias = weight.new_zeros(weight.size(0))
        if weight.size(1) * weight.size(2) <= 16:
            # Few inputs: thin products are slow, and the windows themselves are small.
            x = x.unfold(1, weight.size(2), 1).flatten(-2)  # [B, T', N, C * k]
            weight = weight.flatten(1)[..., None, None]
        return _GatedConv.apply(x, weight, bias, gate)

    def before_gate(self, x: Tensor) -> Tensor:
        """Convolve alone: what the gate is applied to, without a residual."""
        return self.forward(x)


def keeps_digits(x: Tensor) -> bool:
    """Whether a product with 1 is exact (not on tensor cores, not in half precision)."""
    full = x.dtype in (torch.float32, torch.float64)
    return full and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _with_identity(weight: Tensor) -> Tensor:
    identity = torch.eye(*weight.shape[:2], dtype=weight.dtype, device=weight.device)
    return weight + F.pad(identity[..., None, None], (0, 0, weight.size(2) - 1, 0))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # [B, T, N, C] is the channels-last layout of [B, C, T, N]: no copy is made.
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1).contiguous()


class _GatedConv(torch.autograd.Function):
    """Gates of separate products, computed in place; fresh memory costs more than arithmetic.

    Keeps sigmoid(Q) and P * sigmoid(Q), from which the gradients of P and Q follow, and no maps.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, gate):  # type: ignore[no-untyped-def]
        ctx.gate = gate
        num_parts = _PARTS[gate]
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
            ctx.save_for_backward(x, weight, bias)
            return parts[0]
        s = parts[1].sigmoid_()
        product = parts[0].mul_(s)
        if gate == "glu":
            ctx.save_for_backward(x, weight, bias, s, product)
            return product
        out = parts[2].add_(product).relu_()
        ctx.save_for_backward(x, weight, bias, s, product, out)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, bias, *kept = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # Derivatives of this derivative are wanted.
            out = apply_gate(_convolve(x, weight, bias), ctx.gate)
            needs = ctx.needs_input_grad[:3]
            inputs = [i for i, need in zip((x, weight, bias), needs, strict=True) if need]
            grads = iter(torch.autograd.grad(out, inputs, grad, create_graph=True))
            return *(next(grads) if need else None for need in needs), None
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        num_taps, num_nodes, size = weight.size(2), x.size(2), grad.size(1) * grad.size(2)
        rows = x.contiguous().flatten(1, 2)
        grad_x = torch.zeros_like(rows if needs_x else rows[:0])
        taps = weight[..., 0].permute(2, 0, 1).contiguous()  # [k, C', C]
        grad_taps, grad_bias, start = [], [], 0
        for part in _part_grads(grad.contiguous(), ctx.gate, kept):
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
            grad_x.view(x.shape) if needs_x else None,
            torch.cat(grad_taps) if needs_weight else None,
            torch.cat(grad_bias) if needs_bias else None,
            None,
        )


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
