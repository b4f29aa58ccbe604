r"""The loss between the outputs of two regression models and partly suspect labels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd import checks
from pyg_stkd.functional.structures.divergences.divergence import common_dtype
from pyg_stkd.graph import is_transforming

__all__ = ["check_options", "Error", "Gate", "response"]

Gate = Literal["outlier", "bounded"] | None
Error = Literal["mse", "mae", "huber"]


def response(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    gate: Gate = "outlier",
    error: Error = "mse",
    *,
    delta: float | None = None,
    margin: float = 0.0,
    huber_delta: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Response distillation of a regression, our definition of :math:`\mathcal{L}_{ORD}` of
    `"STCD" <https://arxiv.org/abs/2401.11798>`_.

    With an error :math:`\ell(a, b) = (a - b)^2` (or its absolute value, or Huber's), over observed
    labels,

    .. math::
        \mathcal{L} = \mathrm{mean} \left[ (1 - w) \, \ell(s, y) + w \, \ell(s, t) \right].

    Without gate :math:`w = \alpha`. The gate :obj:`"outlier"` trusts the teacher where it is far
    from the label,
    :math:`w = \alpha + (1 - \alpha) (1 - \exp(-(|t - y| / \delta)^2))`. The gate :obj:`"bounded"`
    is that of `"Learning Efficient Object Detection Models with Knowledge Distillation"
    (NeurIPS 2017): :math:`\ell(s, y) + \alpha \, \mathbb{1} \{\ell(s, y) > \ell(t, y) + m\} \,
    \ell(s, t)`.

    Args:
        student (Tensor): Outputs of the student.
        teacher (Tensor): Outputs of the teacher, which get no gradient.
        target (Tensor): Labels, in the same units; NaN is a missing one.
        alpha (float): The share :math:`\alpha` of the teacher, from 0 to 1; for the gate
            :obj:`"bounded"` any weight that is not negative. (default: :obj:`0.5`)
        gate (str, optional): :obj:`"outlier"`, :obj:`"bounded"` or :obj:`None`.
            (default: :obj:`"outlier"`)
        error (str): The error :obj:`"mse"`, :obj:`"mae"` or :obj:`"huber"`.
            (default: :obj:`"mse"`)
        delta (float, optional): The width :math:`\delta > 0` of the gate :obj:`"outlier"`, in the
            units of the labels. (default: twice the teacher's RMSE on these labels)
        margin (float): The margin :math:`m` of the gate :obj:`"bounded"`, not negative, in the
            units of the error. (default: :obj:`0.0`)
        huber_delta (float): Where Huber's error turns linear. (default: :obj:`1.0`)
        mask (Tensor, optional): Where a label was observed, boolean. (default: where it is no NaN)

    Shapes:
        - **student**, **teacher**, **target**, **mask:** of one shape
        - **output:** scalar, 0 without any observed label, in single precision at least

    Raises:
        TypeError: If :obj:`mask` is not boolean.
        ValueError: If shapes differ or an option is not one of those above.

    Example:
        >>> s, t, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]]), torch.zeros(2, 1)
        >>> y[1] = float("nan")
        >>> response(s, t, y, gate=None).item()
        1.0
    """
    check_options(alpha, gate, error, delta, margin, huber_delta)
    # Tensors take no integers beyond 64 bits.
    alpha, margin, huber_delta = float(alpha), float(margin), float(huber_delta)
    delta = None if delta is None else float(delta)
    for name, value in (("student", student), ("teacher", teacher)):
        checks.dense(name, value)
    checks.instance("target", target, Tensor)
    if target.is_complex():
        raise TypeError(f"'target' must be of real numbers (got {target.dtype})")
    checks.instance("mask", target if mask is None else mask, Tensor)
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"'mask' must be boolean (got {mask.dtype})")
    shapes = [list(x.shape) for x in (student, teacher, target, target if mask is None else mask)]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "'student', 'teacher', 'target' and 'mask' must have one shape "
            f"(got {', '.join(map(str, shapes))})"
        )
    # Half precision has no squares beyond 65504, nor the digits of a label: it is made wide, and
    # outputs are subtracted from labels in the precision of both.
    dtype = common_dtype(student, teacher)
    wide = common_dtype(student, teacher, target) if target.is_floating_point() else dtype
    if mask is None and error == "mse" and gate != "bounded" and _all_are_there(target):
        s, t, y = (x.to(wide) for x in (student, teacher.detach(), target))
        return _square_loss(s, t, y, alpha, gate, delta).to(dtype)
    mask = ~target.isnan() if mask is None else mask
    # Select before subtracting: the gradient of a masked NaN would be NaN.
    s, t, y = (x.to(wide).where(mask, 0.0) for x in (student, teacher.detach(), target))
    return _loss(s, t, y, mask, alpha, gate, error, delta, margin, huber_delta).to(dtype)


def _all_are_there(target: Tensor) -> bool:
    """Tell whether there are labels, none of them missing, as far as may be looked at."""
    if torch.compiler.is_compiling() or is_transforming() or target.requires_grad:
        return False
    plain = target.device.type == "cpu" and target.numel() > 0
    return plain and not math.isnan(target.sum())


def _square_loss(
    s: Tensor, t: Tensor, y: Tensor, alpha: float, gate: Gate, delta: float | None
) -> Tensor:
    r"""Return the loss of squares without missing labels, in which the student is met once:
    :math:`(1 - w) \, (s - y)^2 + w \, (s - t)^2 = (s - m)^2 + w (1 - w) (t - y)^2` with
    :math:`m = y + w (t - y)`, which is the teacher where :math:`w = 1`, however far the label is.
    """
    gap = t - y
    square = gap.square()
    if gate is None:
        return F.mse_loss(s, y.lerp(t, alpha)) + alpha * (1 - alpha) * square.mean()
    if delta is None:
        delta = max(2 * math.sqrt(square.mean()), torch.finfo(s.dtype).tiny)
    share = (gap / delta).square_().neg_().expm1_().mul_(alpha - 1).add_(alpha)
    rest = share.addcmul(share, share, value=-1).mul_(square).mean()
    return F.mse_loss(s, y.lerp(t, share)) + rest


def _loss(
    s: Tensor,
    t: Tensor,
    y: Tensor,
    mask: Tensor,
    alpha: float,
    gate: Gate,
    error: Error,
    delta: float | None,
    margin: float,
    huber_delta: float,
) -> Tensor:
    count = mask.sum().clamp(min=1)
    to_label, to_teacher = (_error(s, x, error, huber_delta) for x in (y, t))
    if gate == "bounded":
        worse = to_label.detach() > _error(t, y, error, huber_delta) + margin
        return (to_label + alpha * to_teacher.where(worse, 0.0)).sum() / count
    share: Tensor | float = alpha
    if gate == "outlier":
        distance = (t - y).abs()
        if delta is None:
            width = 2 * (distance.square().sum() / count).sqrt()
            width = width.clamp(min=torch.finfo(s.dtype).tiny)
            distance = distance / width
        else:
            distance = distance / float(delta)
        share = alpha - (1 - alpha) * torch.expm1(-distance.square())
    return ((1 - share) * to_label + share * to_teacher).sum() / count


def _error(a: Tensor, b: Tensor, error: Error, huber_delta: float) -> Tensor:
    if error == "mse":
        return (a - b).square()
    if error == "mae":
        return (a - b).abs()
    return F.huber_loss(a, b, reduction="none", delta=huber_delta)


def check_options(
    alpha: float, gate: Gate, error: Error, delta: float | None, margin: float, huber_delta: float
) -> None:
    """Raise unless the options of :func:`response` are within their ranges."""
    checks.choice("gate", gate, ("outlier", "bounded", None))
    checks.choice("error", error, ("mse", "mae", "huber"))
    checks.number("alpha", alpha, least=0, most=None if gate == "bounded" else 1)
    if delta is not None:
        checks.number("delta", delta, above=0)
    checks.number("huber_delta", huber_delta, above=0)
    checks.number("margin", margin, least=0)
