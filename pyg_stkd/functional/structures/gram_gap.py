"""How far two matrices of inner products are apart, with its slope: without doctests.

pytest imports a file with doctests anew where that file alone is given, and an operator can be
defined only once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.structures.similarities.prepared import (
    are_usual,
    have_parallels,
    prepared,
    sampled,
)
from pyg_stkd.kernels import Cosine, Kernel

__all__ = ["CLOSE", "gram_gap"]

# Matrices that are closer together, as a part of their largest element, have too few digits of
# their difference.
CLOSE = 2.0**-10
# Of so few nodes compiled products in float64 cost less than a look at those of float32.
_FEW = 32


def gram_gap(s: Tensor, t: Tensor, kernel: Kernel) -> Tensor:
    """Return the mean square difference between the cosines, or inner products, of all pairs.

    Of features of single precision, in float64 where that has too few digits. The slope is made
    with the loss, in a product less than autograd takes: Inductor fuses what is between products.
    """
    wanted = s.requires_grad and torch.is_grad_enabled()
    return _GramGap.apply(s, t.detach(), kernel, wanted)


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define(
    "gram_gap_again("
    "Tensor s, Tensor t, bool cosine, Tensor loss, Tensor slope, Tensor doubt) -> (Tensor, Tensor)"
)


@torch.library.impl(_library, "gram_gap_again", "CompositeExplicitAutograd")
def _gram_gap_again(
    s: Tensor, t: Tensor, cosine: bool, loss: Tensor, slope: Tensor, doubt: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what compiled code has found, or the same from float64 where that is in doubt."""
    if not bool(doubt):
        return loss.clone(), slope.clone(memory_format=torch.contiguous_format)
    return _wide_gap(s, t, cosine, slope.size(0) > 0)


@torch.library.register_fake("pyg_stkd::gram_gap_again", lib=_library)
def _(
    s: Tensor, t: Tensor, cosine: bool, loss: Tensor, slope: Tensor, doubt: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(loss), slope.new_empty(slope.shape)


def _wide_gap(s: Tensor, t: Tensor, cosine: bool, slope: bool) -> tuple[Tensor, Tensor]:
    loss, of_s, _ = _gap(s.double(), t.double(), cosine, slope)
    return loss.to(s.dtype), of_s.to(s.dtype)


def _gap(s: Tensor, t: Tensor, cosine: bool, slope: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, its slope if that is wanted, and whether single precision loses digits."""
    with torch.autocast(s.device.type, enabled=False):
        if cosine:
            (s, length), (t, other) = _unit(s), _unit(t)
        ours, theirs = s @ s.t(), t @ t.t()
        largest: Any = 1.0
        if cosine:
            few = ours if torch.compiler.is_compiling() else sampled(sampled(ours).t())
            right = are_usual(length) & are_usual(other) & ~have_parallels(few)
        else:
            largest = theirs.diagonal().amax()
            right = largest < torch.inf
        gap = ours.sub_(theirs)  # at once in one call, equal features would not be 0 apart
        loss = torch.linalg.vector_norm(gap, dim=1).square().mean() / gap.size(0)
        doubt = ~(right & (loss > (CLOSE * largest) ** 2) & (loss < torch.inf))
        if not slope:
            return loss, s.new_empty(0, s.size(1)), doubt
        of_s = (gap @ s).mul_(4 / gap.numel())
        if cosine:  # only what turns a vector changes its unit vector
            along = (of_s * s).sum(dim=1, keepdim=True)
            of_s = of_s.addcmul_(along, s, value=-1).div_(length)
        return loss, of_s, doubt


def _unit(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit vectors and their lengths, which of 0 is infinite: nothing turns it."""
    length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    length = length.masked_fill(length == 0, torch.inf)
    return z / length, length


class _GramGap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s, t, kernel, wanted):  # type: ignore[no-untyped-def]
        args = s, t, type(kernel) is Cosine
        compiling = torch.compiler.is_compiling()
        if compiling and s.size(0) <= _FEW:
            loss, slope = _wide_gap(*args, wanted)
        else:
            loss, slope, doubt = _gap(*args, wanted)
            if compiling:
                loss, slope = torch.ops.pyg_stkd.gram_gap_again(*args, loss, slope, doubt)
            elif bool(doubt):
                loss, slope = _wide_gap(*args, wanted)
        ctx.save_for_backward(s, t, slope)
        ctx.kernel = kernel
        return loss

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        s, t, slope = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            s, t = (prepared(z.double(), ctx.kernel) for z in (s, t))  # can be derived again
            loss = F.mse_loss(s @ s.t(), t @ t.t()).to(slope.dtype)
            (slope,) = torch.autograd.grad(loss, ctx.saved_tensors[0], create_graph=True)
        return grad * slope, None, None, None
