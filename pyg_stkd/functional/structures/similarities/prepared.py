"""Features as kernels compare them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.graph import is_transforming
from pyg_stkd.kernels import RBF, Kernel, Laplacian

__all__ = [
    "Normalize",
    "are_usual",
    "for_softmax",
    "has_bound",
    "have_parallels",
    "lost_digits",
    "mapped",
    "prepared",
    "sampled",
    "unit",
]

Normalize = Literal["l2", "layer"] | None

# Below this part of both squared norms, in units of rounding, a squared distance that comes from
# them has lost too many digits.
_LOST = 1e4
# Squares of numbers from here to its reciprocal are far from the ends of the range.
_SMALL = 1e-15
# Rows that are looked at for two on one line, and by how much the cosine of such may miss 1.
_SAMPLE = 128
_PARALLEL = 1e-3
# Similarities up to here have three digits after the point in single precision, and more.
_LARGE = 2.0**10


def prepared(z: Tensor, kernel: Kernel, normalize: Normalize = None) -> Tensor:
    """Return features [*, F] in single precision at least, normalised as is asked for.

    For kernels of the cosine they are unit vectors.
    """
    checks.choice("normalize", normalize, (None, "l2", "layer"))
    checks.choice(
        "kernel.measure",
        getattr(kernel, "measure", None),  # which a kernel of one's own may lack
        ("inner", "cosine", "squared_distance", "manhattan"),
    )
    if z.dtype in (torch.float16, torch.bfloat16):
        z = z.float()
    if normalize == "layer":
        z = _standardised(z)
    if normalize == "l2":
        z = _exact_unit(z)
    return _exact_unit(z) if kernel.measure == "cosine" else z


def lost_digits(square: Tensor, norms: Tensor) -> Tensor:
    """Tell which squared distances are too small a part of the sums of their squared norms."""
    return square < norms * (_LOST * torch.finfo(norms.dtype).eps)


def mapped(kernel: Kernel, value: Tensor) -> Tensor:
    """Return the similarities of measured values.

    Raises:
        TypeError: If the kernel returns no tensor.
        ValueError: If it returns another number of them.

    Example:
        >>> mapped(RBF(), torch.zeros(2))
        tensor([1., 1.])
    """
    out = kernel(value)
    checks.instance("kernel(value)", out, Tensor)
    if out.shape != value.shape:
        raise ValueError(
            f"'kernel' must return a similarity for each of the values {list(value.shape)} "
            f"(got {list(out.shape)})"
        )
    return out


def has_bound(kernel: Kernel) -> bool:
    """Tell whether similarities are known to be exponentials, from 0 to 1.

    Example:
        >>> has_bound(RBF()), has_bound(Kernel())
        (True, False)
    """
    return type(kernel) in (Laplacian, RBF)


def for_softmax(z: Tensor, kernel: Kernel, similarity: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the similarities of features, in float64 where single precision has too few digits.

    A softmax takes their differences: of the sum of squares of (1e4, 1) single precision has no
    more than the first. Compilers and transforms cannot look: there it is float64 for any kernel
    without bound.

    Example:
        >>> for_softmax(torch.tensor([[2.0]]), Kernel(), lambda z: z @ z.mT).dtype
        torch.float32
        >>> for_softmax(torch.tensor([[1e4]]), Kernel(), lambda z: z @ z.mT).dtype
        torch.float64
    """
    if z.dtype == torch.float64 or z.device.type == "mps" or has_bound(kernel):
        return similarity(z)
    if torch.compiler.is_compiling() or is_transforming():
        return similarity(z.double())
    out = similarity(z)
    large = out.numel() > 0 and bool(out.detach().abs().amax() > _LARGE)
    return similarity(z.double()) if large else out


def unit(z: Tensor) -> Tensor:
    """Return unit vectors of features of any scale; 0 for 0, whose gradient is 0.

    A vector of 0 has no direction to turn from. A quotient by a least norm has a derivative there
    that is beyond all other numbers, and one such row would end a training.

    Example:
        >>> unit(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    if z.numel() == 0:
        return z
    norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    if torch.compiler.is_compiling() or is_transforming() or not bool(are_usual(norm.detach())):
        return _scaled_unit(z)
    return _Unit.apply(z, norm.detach())


def _scaled_unit(z: Tensor) -> Tensor:
    """Return unit vectors, from multiples of about 1 whose squares are in range."""
    least = torch.finfo(z.dtype).tiny  # whose reciprocal is in range
    size = z.detach().abs().amax(dim=-1, keepdim=True)
    # That of 0 is left: twice that reciprocal is beyond the range, and no number times 0.
    size = torch.where(size > 0, size.clamp(least, 1 / least), 1.0)
    z = z * size.reciprocal()  # a constant to autograd: no scale changes the result
    square = z.square().sum(dim=-1, keepdim=True)
    return z * square.masked_fill(square == 0, torch.inf).rsqrt()  # from 0 no gradient returns


class _Unit(torch.autograd.Function):
    """Rows over their lengths: in backward, few arrays as large as they are."""

    @staticmethod
    def forward(ctx, z, norm):  # type: ignore[no-untyped-def]
        out = z / norm
        ctx.save_for_backward(z, norm, out)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        z, norm, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # which can be derived again
            norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
            out = z / norm
            return (grad - out * (out * grad).sum(dim=-1, keepdim=True)) / norm, None
        along = (out * grad).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad, out, along, value=-1).div_(norm), None


def _exact_unit(z: Tensor) -> Tensor:
    """Return unit vectors, in float64 where some point about the same or opposite ways.

    There the gradient is the small part of a large sum that is across the vectors. Compilers and
    transforms cannot look at them: there it is float64 always.
    """
    if z.numel() == 0:
        return z
    if _widens(z):
        if torch.compiler.is_compiling():
            return _wide_unit(z)
        if is_transforming() or _some_are_parallel(z.detach()):
            z = z.double()
    return unit(z)


def _widens(z: Tensor) -> bool:
    """Tell whether there is a precision with room for all squares of these features."""
    return z.dtype == torch.float32 and z.device.type != "mps"


def _wide_unit(z: Tensor) -> Tensor:
    """Return unit vectors of single precision features in float64, where squares are in range."""
    z = z.double()
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / length.masked_fill(length == 0, torch.inf)  # so that nothing turns 0


def are_usual(norm: Tensor) -> Tensor:
    """Tell whether all squares are far from the ends of the range.

    Example:
        >>> are_usual(torch.tensor([1.0, 2.0])), are_usual(torch.tensor([1.0, 0.0]))
        (tensor(True), tensor(False))
    """
    return (norm.amin() > _SMALL) & (norm.amax() < 1 / _SMALL)


def _some_are_parallel(z: Tensor) -> bool:
    """Tell whether two of some rows are on one line through 0 but for a small angle."""
    rows = _near_one(sampled(z.flatten(0, -2)))
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)  # NaN for 0, on no line
    with torch.autocast(z.device.type, enabled=False):
        cosine = rows @ rows.mT
    return bool(cosine.fill_diagonal_(0.0).abs_().gt(1 - _PARALLEL).any())


def sampled(rows: Tensor) -> Tensor:
    """Return some of the rows, at equal steps.

    Example:
        >>> sampled(torch.arange(1000)).numel()
        125
    """
    return rows[:: -(-rows.size(0) // _SAMPLE)]


def have_parallels(cosine: Tensor) -> Tensor:
    """Tell whether two rows, other than a row and itself, are on one line but for a small angle.

    Example:
        >>> have_parallels(torch.eye(3)), have_parallels(-torch.ones(2, 2))
        (tensor(False), tensor(True))
    """
    return (cosine.abs() > 1 - _PARALLEL).to(cosine.dtype).sum() > cosine.size(0)


def _near_one(z: Tensor) -> Tensor:
    """Scale each row by a power of 2, a constant to autograd: for what no scale changes."""
    size = z.detach().abs().amax(dim=-1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    half = torch.exp2(torch.log2(size).floor() / 2)  # the power itself may be out of range
    return z / half / half


def _standardised(z: Tensor) -> Tensor:
    """Return features of mean 0 and variance 1, of any scale; 0 where all of a row are equal."""
    if z.numel() == 0:
        return z
    z = _near_one(z)
    least = torch.finfo(z.dtype).tiny
    out, mean, scale = torch.native_layer_norm(z, z.shape[-1:], None, None, least)
    spread = scale.detach().reciprocal()
    equal = spread <= 8 * torch.finfo(z.dtype).eps * mean.detach().abs()
    flat = equal | (spread < _SMALL)
    looks = not torch.compiler.is_compiling() and z.requires_grad and torch.is_grad_enabled()
    if is_transforming() or (looks and bool(flat.any())):
        # Nor may such rows meet what their tiny spread makes infinite in second derivatives.
        z = z.masked_fill(flat, 0)
        out = torch.native_layer_norm(z, z.shape[-1:], None, None, least)[0]
    return out.masked_fill(flat, 0)
