r"""The divergence of temporal structures, from features, with its gradient at once."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.structures.divergences.divergence import Direction, divergence
from pyg_stkd.functional.structures.similarities.prepared import mapped
from pyg_stkd.functional.structures.similarities.step_distance import (
    lag_gradient,
    lag_squares,
    pair_places,
    step_distances,
)
from pyg_stkd.kernels import RBF

__all__ = ["step_divergence"]


def step_divergence(
    h: Tensor, teacher: Tensor, kernel: RBF, direction: Direction = "student"
) -> Tensor:
    r"""Return the divergences of temporal structures from those of a teacher, the sum over all.

    What both steps of a pair share is computed once, and nothing but a slope for each pair is kept
    for the gradient.

    Args:
        h (Tensor): Sequences of node features, as the kernel compares them.
        teacher (Tensor): The teacher's structures, as logarithms, a constant; best with the nodes
            innermost in memory.
        kernel (RBF): The kernel.
        direction (str): As in :func:`~pyg_stkd.functional.temporal_correlation`.
            (default: :obj:`"student"`)

    Shapes:
        - **h:** :math:`(B, T, N, C)`, of which none is 0, nor is there one step only
        - **teacher:** :math:`(B, N, T, T - 1)`
        - **output:** a scalar

    Example:
        >>> h = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1)
        >>> t = torch.full((1, 1, 3, 2), 0.5).log()
        >>> round(step_divergence(h, t, RBF()).item(), 4)
        0.054
    """
    dtype = torch.promote_types(h.dtype, teacher.dtype)
    h, teacher = h.to(dtype), teacher.detach().to(dtype)
    out: Tensor = _StepDivergence.apply(h, teacher, kernel, direction)
    return out


class _StepDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, teacher, kernel, direction):  # type: ignore[no-untyped-def]
        ctx.kernel, ctx.direction = kernel, direction
        square, others = lag_squares(h), (h.size(1), h.size(1) - 1)
        place = pair_places(h.size(1)).to(h.device)
        known = teacher.permute(0, 2, 3, 1)  # [B, T, T - 1, N]
        rate = kernel.rate(square)  # each pair counts twice: their median is that of one of each
        score = square.mul_(rate).exp_()  # [B, T (T - 1) / 2, N]
        log_p = score.index_select(1, place).unflatten(1, others).log_softmax(dim=2)
        p = log_p.exp()  # [B, T, T - 1, N]
        if direction == "student":
            slope = log_p.sub_(known).mul_(p)
            of_step = slope.sum(dim=2, keepdim=True)
            value = of_step.sum()
            slope.sub_(p.mul_(of_step))
        else:
            other = known.exp()
            of_step = other.sum(dim=2, keepdim=True)
            value = torch.sub(known, log_p, out=log_p).mul_(other).sum()
            slope = p.mul_(of_step).sub_(other)
        if ctx.needs_input_grad[0]:
            of_pair = torch.zeros_like(score).index_add_(1, place, slope.flatten(1, 2))
            ctx.save_for_backward(h, teacher, of_pair.mul_(score).mul_(rate))
        return value

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        h, teacher, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # which can be derived again
            score = mapped(ctx.kernel, step_distances(h))
            term = divergence(score.log_softmax(dim=-1), teacher, ctx.direction)
            (out,) = torch.autograd.grad(term.sum(), h, grad, create_graph=True)
        else:
            out = lag_gradient(h, slope * grad)
        return out, None, None, None
