r"""Squared distances of all pairs of time steps of each node, by differences."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.graph import is_transforming

__all__ = ["few_steps", "lag_gradient", "lag_squares", "pair_places", "step_distances"]

# Up to so many steps, differences of whole sequences are quicker than a small matrix for each node.
_FEW = 12


def few_steps(h: Tensor) -> bool:
    """Tell whether sequences [B, T, N, C] are best compared by :func:`step_distances`."""
    return h.size(1) <= _FEW and not torch.compiler.is_compiling() and not is_transforming()


def step_distances(h: Tensor) -> Tensor:
    r"""Return squared distances of each step to the others at the same node.

    .. math::
        d_{ntt'} = \lVert \mathbf{h}_{tn} - \mathbf{h}_{t'n} \rVert^2

    Each pair of steps is measured once, by the difference of the sequence and itself some steps
    later: nothing cancels, as it does in norms and products.

    Args:
        h (Tensor): Sequences of node features.

    Shapes:
        - **h:** :math:`(B, T, N, C)`
        - **output:** :math:`(B, N, T, T - 1)`, the other steps in their order, nodes innermost in
          memory

    Example:
        >>> step_distances(torch.tensor([0.0, 1.0, 3.0]).view(1, 3, 1, 1))[0, 0]
        tensor([[1., 9.],
                [1., 4.],
                [9., 4.]])
    """
    steps = h.size(1)
    value = _StepDistances.apply(h).index_select(1, pair_places(steps).to(h.device))
    return value.unflatten(1, (steps, steps - 1)).permute(0, 3, 1, 2)


@lru_cache(16)
def pair_places(steps: int) -> Tensor:
    """Return where the distance of each ordered pair of steps is among those by lag.

    Example:
        >>> pair_places(3)
        tensor([0, 2, 0, 1, 2, 1])
    """
    with torch.inference_mode(False):
        step = torch.arange(steps)
        lag = (step[:, None] - step).abs()  # [T, T]
        before = (lag - 1) * steps - (lag - 1) * lag // 2  # pairs of smaller lags
        place = before + torch.minimum(step[:, None], step)
        return place[lag > 0]


def lag_squares(h: Tensor) -> Tensor:
    """Return the squared distances [B, T (T - 1) / 2, N] of the pairs of steps, lag after lag."""
    batch, steps, num_nodes, width = h.shape
    out = h.new_empty(batch, steps * (steps - 1) // 2, num_nodes)
    ones, end = h.new_ones(width), 0
    for gap in _gaps(h):
        start, end = end, end + gap.size(1)
        with torch.autocast(h.device.type, enabled=False):
            out[:, start:end] = gap.square_().matmul(ones)
    return out


def lag_gradient(h: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of sequences, given that of :func:`lag_squares`."""
    parts = (2 * grad).split([h.size(1) - lag for lag in range(1, h.size(1))], dim=1)
    out = torch.zeros_like(h, memory_format=torch.contiguous_format)
    for lag, (gap, weight) in enumerate(zip(_gaps(h), parts, strict=True), start=1):
        slope = gap.mul_(weight.unsqueeze(-1))
        out[:, lag:].add_(slope)
        out[:, :-lag].sub_(slope)
    return out


class _StepDistances(torch.autograd.Function):
    """Squared distances [B, T (T - 1) / 2, N] of the pairs of steps, lag after lag."""

    @staticmethod
    def forward(ctx, h):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(h)
        return lag_squares(h)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (h,) = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return lag_gradient(h, grad)
        # One which can be derived again.
        parts = (2 * grad).split([h.size(1) - lag for lag in range(1, h.size(1))], dim=1)
        out = torch.zeros_like(h)
        for lag, weight in enumerate(parts, start=1):
            slope = _gap(h, lag) * weight.unsqueeze(-1)
            ends = (0, 0, 0, 0, lag, 0), (0, 0, 0, 0, 0, lag)
            out = out + F.pad(slope, ends[0]) - F.pad(slope, ends[1])
        return out


def _gaps(h: Tensor) -> Iterator[Tensor]:
    """Yield the differences of each lag, which are lost in the next turn: memory that is asked for
    anew costs more than they do.
    """
    batch, steps, num_nodes, width = h.shape
    space = h.new_empty(batch * (steps - 1) * num_nodes * width)
    for lag in range(1, steps):
        shape = batch, steps - lag, num_nodes, width
        gap = space[: batch * (steps - lag) * num_nodes * width].view(shape)
        yield torch.sub(h[:, lag:], h[:, : steps - lag], out=gap)


def _gap(h: Tensor, lag: int) -> Tensor:
    """Return each step that has one so many steps before it, less that one."""
    return h[:, lag:] - h[:, : h.size(1) - lag]
