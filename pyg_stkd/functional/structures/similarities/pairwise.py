"""Similarities of all pairs, by whatever measure a kernel is made of: without doctests.

pytest imports a file with doctests anew where that file alone is given, and an operator can be
defined only once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.structures.similarities.prepared import Normalize, lost_digits, prepared
from pyg_stkd.graph import is_transforming
from pyg_stkd.kernels import Kernel

__all__ = ["pairwise"]

# Elements of the blocks that are alive at once where distances are measured again.
_CHUNK = 1 << 22


def pairwise(z: Tensor, kernel: Kernel, normalize: Normalize = None) -> Tensor:
    """Return the measured values of all pairs, [*, n, F] to [*, n, n]: what the kernel maps.

    Squared distances are right where points are in far groups: what is small against the norms is
    computed again in float64, and where that is not enough, by differences.
    """
    z = prepared(z, kernel, normalize)
    if kernel.measure == "manhattan":
        return torch.cdist(z, z, p=1)
    if is_transforming():
        if kernel.measure == "squared_distance":
            return (z.unsqueeze(-2) - z.unsqueeze(-3)).square().sum(-1)
        return z @ z.mT
    if kernel.measure == "squared_distance":
        return _SquaredDistances.apply(z)
    return _Gram.apply(z)


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define("squared_distances(Tensor z) -> (Tensor, Tensor)")
_library.define("squared_distances_backward(Tensor grad, Tensor z, Tensor lost) -> Tensor")


@torch.library.impl(_library, "squared_distances", "CompositeExplicitAutograd")
def _squared_distances(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances, and whether products of single precision lose their digits."""
    z = z.contiguous()
    with torch.autocast(z.device.type, enabled=False):
        moved = z - z.mean(dim=-2, keepdim=True)  # changes no distance, and keeps more digits
        out, lost = _from_products(moved)
        far = bool(lost.any())
        if far:
            out = _again(out, lost, z)
    return out, torch.tensor(far)


@torch.library.register_fake("pyg_stkd::squared_distances", lib=_library)
def _(z: Tensor) -> tuple[Tensor, Tensor]:
    return z.new_empty((*z.shape[:-1], z.size(-2))), torch.empty((), dtype=torch.bool)


@torch.library.impl(_library, "squared_distances_backward", "CompositeExplicitAutograd")
def _squared_distances_backward(grad: Tensor, z: Tensor, lost: Tensor) -> Tensor:
    with torch.autocast(z.device.type, enabled=False):
        return _gradient(grad, z, bool(lost)).contiguous()


@torch.library.register_fake("pyg_stkd::squared_distances_backward", lib=_library)
def _(grad: Tensor, z: Tensor, lost: Tensor) -> Tensor:
    return z.new_empty(z.shape)


def _from_products(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared distances of centred features, and which of them have lost digits."""
    norm = z.square().sum(dim=-1)
    out = _add_product(norm.unsqueeze(-1) + norm.unsqueeze(-2), z, z.mT, -2).clamp_(min=0)
    if out.numel() == 0:
        return out, out.bool()
    itself = out.diagonal(dim1=-2, dim2=-1)
    # One look at all pairs mostly tells that none is small against any norms.
    itself.fill_(torch.inf)
    none = bool(~lost_digits(out.amin(), 2 * norm.amax()) & norm.amax().isfinite())
    itself.zero_()
    if none:
        return out, out.new_zeros((), dtype=torch.bool)
    lost = lost_digits(out, norm.unsqueeze(-1) + norm.unsqueeze(-2))
    lost.diagonal(dim1=-2, dim2=-1).zero_()
    return out, lost


def _add_product(out: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """Add products of matrices [*, n, k] and [*, k, m] in place: no array for them alone."""
    if out.dim() == 2:
        return out.addmm_(a, b, alpha=alpha)
    a, b, flat = (part.reshape(-1, *part.shape[-2:]) for part in (a, b, out))
    return flat.baddbmm_(a, b, alpha=alpha).view_as(out)


def _again(out: Tensor, lost: Tensor, z: Tensor) -> Tensor:
    """Measure again what has lost digits: few by differences, many by products in float64 first."""
    if z.dtype == torch.float32 and z.device.type != "mps" and 16 * int(lost.sum()) > lost.numel():
        wide = z.double()
        better, lost = _from_products(wide - wide.mean(dim=-2, keepdim=True))
        out = better.to(z.dtype)
    place = lost.nonzero()
    step = max(1, _CHUNK // max(1, z.size(-1)))
    for i in range(0, place.size(0), step):
        part = place[i : i + step]
        ends = part[:, :-1], torch.cat([part[:, :-2], part[:, -1:]], dim=1)
        first, second = (z[end.unbind(dim=1)] for end in ends)
        out[part.unbind(dim=1)] = (first - second).square().sum(dim=-1)
    return out


def _gradient(grad: Tensor, z: Tensor, lost: bool) -> Tensor:
    """Return the sum of the weighted differences from each row, in float64 if digits are lost."""
    wide = z.double() if lost and z.device.type != "mps" else z
    wide = wide - wide.detach().mean(dim=-2, keepdim=True)
    grad, twice = grad.to(wide.dtype), 2 * wide
    # Not through the sum of both: few operations read a transposed matrix as slowly as that one.
    out = (grad.sum(dim=-1) + grad.sum(dim=-2)).unsqueeze(-1) * twice
    out = _add_product(out, grad, twice, -1)
    return _add_product(out, grad.mT, twice, -1).to(z.dtype)


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):  # type: ignore[no-untyped-def]
        out, lost = torch.ops.pyg_stkd.squared_distances(z)
        ctx.save_for_backward(z, lost)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, lost = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _gradient(grad, z, bool(lost))  # which can be derived again
        return torch.ops.pyg_stkd.squared_distances_backward(grad, z, lost)


class _Gram(torch.autograd.Function):
    """All inner products of the rows of each matrix; one product fewer in the backward."""

    @staticmethod
    def forward(ctx, z):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z)
        with torch.autocast(z.device.type, enabled=False):
            return z @ z.mT

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (z,) = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            return (grad + grad.mT) @ z
