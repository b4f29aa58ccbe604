r"""Similarities of two connected nodes, the :math:`\mathrm{SIM}` of local structures.

A kernel is a small object that names the pairwise measure it is made of (:attr:`Kernel.measure`)
and maps the measure of each edge to a similarity. The measures themselves are computed by
:func:`pyg_stkd.functional.local_structure` without any :math:`(|\mathcal{E}|, F)` array.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.graph.exporting import is_transforming

__all__ = [
    "Cosine",
    "Euclidean",
    "Kernel",
    "Laplacian",
    "Linear",
    "Polynomial",
    "RBF",
    "SquaredEuclidean",
]

# From so many numbers on, their way to NumPy and back is nothing beside their median.
_MANY, _SAMPLE = 1 << 14, 1 << 12

Measure = Literal["inner", "cosine", "squared_distance", "manhattan"]


class Kernel:
    r"""Base class of all kernels: subclass it to define another similarity.

    Set :attr:`measure` to :obj:`"inner"` (:math:`\mathbf{z}_i^\top \mathbf{z}_j`),
    :obj:`"cosine"` (the same of unit vectors), :obj:`"squared_distance"`
    (:math:`\lVert \mathbf{z}_i - \mathbf{z}_j \rVert_2^2`) or :obj:`"manhattan"`
    (:math:`\lVert \mathbf{z}_i - \mathbf{z}_j \rVert_1`), and map the measured value of every edge
    in :meth:`__call__`.

    Example:
        >>> class Inverse(Kernel):
        ...     measure = "squared_distance"
        ...     def __call__(self, value):
        ...         return 1 / (1 + value)
        >>> Inverse()(torch.tensor([0.0, 1.0])).tolist()
        [1.0, 0.5]
    """

    measure: Measure

    def __call__(self, value: Tensor) -> Tensor:
        r"""Return the similarities :math:`(|\mathcal{E}|)` of the measured values."""
        raise NotImplementedError

    def __repr__(self) -> str:
        args = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({args})"


def state_of(kernel: Kernel) -> tuple[Any, ...] | None:
    """Return a kernel and its numbers, which may change; None where it holds something else."""
    state = vars(kernel)
    if not all(x is None or isinstance(x, (Real, str, Tensor)) for x in state.values()):
        return None
    return kernel, {k: x.tolist() if isinstance(x, Tensor) else x for k, x in state.items()}


class Linear(Kernel):
    r"""The linear kernel :math:`\mathbf{z}_i^\top \mathbf{z}_j` (LSP paper, Eq. 8).

    Example:
        >>> Linear()(torch.tensor([2.0])).item()
        2.0
    """

    measure = "inner"

    def __call__(self, value: Tensor) -> Tensor:
        return value


class Polynomial(Kernel):
    r"""The polynomial kernel :math:`(\mathbf{z}_i^\top \mathbf{z}_j + c)^d` (LSP paper, Eq. 8).

    Args:
        degree (int): The degree :math:`d`, at least 1. (default: :obj:`2`)
        c (float): The offset :math:`c`. (default: :obj:`0.0`)
        cosine (bool): Whether to take the inner product of unit vectors.
            (default: :obj:`False`)

    Raises:
        TypeError: If :obj:`degree` is no integer or :obj:`c` no number.
        ValueError: If :obj:`degree` is not from 1 to 1000, or :obj:`c` beyond 1e30.

    Example:
        >>> Polynomial(degree=2, c=1)(torch.tensor([2.0])).item()
        9.0
    """

    def __init__(self, degree: int = 2, c: float = 0.0, cosine: bool = False) -> None:
        self.degree = checks.count("degree", degree)
        if self.degree > 1000:  # powers are infinite or 0
            raise ValueError(f"'degree' must be at most 1000 (got {degree})")
        self.c = float(checks.number("c", c, least=-1e30, most=1e30))
        self.cosine = cosine

    @property
    def measure(self) -> Measure:  # type: ignore[override]
        """The cosine or the inner product, as :attr:`cosine` says."""
        return "cosine" if self.cosine else "inner"

    def __call__(self, value: Tensor) -> Tensor:
        return (value + self.c) ** self.degree


class RBF(Kernel):
    r"""The radial basis function
    :math:`\exp(-\lVert \mathbf{z}_i - \mathbf{z}_j \rVert_2^2 / 2 \sigma^2)` (LSP paper, Eq. 8).

    Args:
        sigma (float or str): The width :math:`\sigma` in units of the features, from 1e-18 to
            1e18 (float32 has the square of such numbers), or :obj:`"median"` for the median
            distance over the edges (their root mean square where that is 0), taken anew for
            teacher and student at each call and a constant to autograd: normalise the features,
            or nothing holds their scale. (default: :obj:`1.0`)

    Raises:
        TypeError: If :obj:`sigma` is neither a number nor a string.
        ValueError: If :obj:`sigma` is out of these bounds, or another string.

    Example:
        >>> round(RBF(sigma=1.0)(torch.tensor([2.0])).item(), 4)
        0.3679
    """

    measure = "squared_distance"

    def __init__(self, sigma: float | Literal["median"] = 1.0) -> None:
        if isinstance(sigma, str):
            self.sigma: float | Literal["median"] = checks.choice("sigma", sigma, ("median",))
        else:
            self.sigma = float(checks.number("sigma", sigma, least=1e-18, most=1e18))

    def __call__(self, value: Tensor) -> Tensor:
        return value if value.numel() == 0 else torch.exp(value * self.rate(value))

    def rate(self, value: Tensor) -> Tensor | float:
        r"""Return what squared distances, of which there are some, are multiplied by:
        :math:`-1 / 2 \sigma^2`.

        Example:
            >>> RBF(sigma=2.0).rate(torch.tensor([2.0]))
            -0.125
        """
        if self.sigma != "median":
            return -0.5 / self.sigma**2
        value = value.detach()
        median = _median(value)
        least = torch.finfo(value.dtype).tiny
        # Where every other edge is a self-loop the median is 0, and that width would be blind.
        if _may_look(value) and median > 0:
            return -0.5 / max(float(median), least)
        median = torch.where(median > 0, median, value.mean())
        # Where all are equal nothing pulls them: the rounding of a gradient counts at no rate.
        return torch.where(median > 0, -0.5 / median.clamp(min=least), 0.0)


def _may_look(value: Tensor) -> bool:
    """Tell whether the numbers of a tensor are here, and may be looked at."""
    if torch.compiler.is_compiling() or is_transforming():
        return False
    return type(value) is Tensor and value.device.type == "cpu"


def _median(value: Tensor) -> Tensor:
    """Return the median, the lower one of two, as Tensor.median does; with NaN, any number.

    Of many numbers, those below and within the middle of a sample are counted, and the few within
    are partitioned: in a quarter of the time.
    """
    wide = value.dtype in (torch.float32, torch.float64)
    if not wide or value.numel() < _MANY or not _may_look(value):
        return value.median()
    every: np.ndarray[Any, Any] = value.reshape(-1).numpy()
    place = (every.size - 1) // 2
    sample = every[:: -(-every.size // _SAMPLE)].copy()
    middle, spread = sample.size // 2, sample.size // 32  # four deviations: hardly ever missed
    sample.partition([middle - spread, middle + spread])
    low, high = sample[middle - spread], sample[middle + spread]
    is_below, within = every < low, every <= high
    below = np.count_nonzero(is_below)
    within ^= is_below
    chosen = every.take(np.flatnonzero(within))  # in less time than by the mask
    if below <= place < below + chosen.size:
        every, place = chosen, place - below
    return torch.tensor(np.partition(every, place)[place])


class SquaredEuclidean(Kernel):
    r"""The paper's plain :math:`L_2` norm :math:`\lVert \mathbf{z}_i - \mathbf{z}_j \rVert_2^2`
    (LSP paper, Eq. 4), sign as printed: far neighbours weigh most.

    Example:
        >>> SquaredEuclidean()(torch.tensor([4.0])).item()
        4.0
    """

    measure = "squared_distance"

    def __call__(self, value: Tensor) -> Tensor:
        return value


class Euclidean(Kernel):
    r"""The distance :math:`\lVert \mathbf{z}_i - \mathbf{z}_j \rVert_2`, its gradient 0 at 0.

    Example:
        >>> Euclidean()(torch.tensor([4.0, 0.0])).tolist()
        [2.0, 0.0]
    """

    measure = "squared_distance"

    def __call__(self, value: Tensor) -> Tensor:
        zero = value <= 0
        return value.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


class Cosine(Kernel):
    r"""The cosine :math:`\mathbf{z}_i^\top \mathbf{z}_j / \lVert \mathbf{z}_i \rVert
    \lVert \mathbf{z}_j \rVert`.

    Example:
        >>> Cosine()(torch.tensor([0.5])).item()
        0.5
    """

    measure = "cosine"

    def __call__(self, value: Tensor) -> Tensor:
        return value


class Laplacian(Kernel):
    r"""The Laplacian kernel :math:`\exp(-\lVert \mathbf{z}_i - \mathbf{z}_j \rVert_1 / s)`.

    Args:
        scale (float): The width :math:`s` in units of the features, from 1e-30 to 1e30; 100 is
            the value of the official LSP code. (default: :obj:`100.0`)

    Raises:
        TypeError: If :obj:`scale` is no number.
        ValueError: If :obj:`scale` is not from 1e-30 to 1e30.

    Example:
        >>> round(Laplacian(scale=2.0)(torch.tensor([2.0])).item(), 4)
        0.3679
    """

    measure = "manhattan"

    def __init__(self, scale: float = 100.0) -> None:
        self.scale = float(checks.number("scale", scale, least=1e-30, most=1e30))

    def __call__(self, value: Tensor) -> Tensor:
        return torch.exp(value / -self.scale)
