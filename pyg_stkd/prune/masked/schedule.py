"""Shares of parameters to keep, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from numbers import Real

from pyg_stkd import checks

__all__ = ["check_shares", "cubic", "geometric", "linear"]


def geometric(share: float, stages: int) -> tuple[float, ...]:
    r"""Keep the same fraction of what is left at each stage, :math:`s_t = s^{t / n}`.

    Args:
        share (float): The share of the parameters at the end.
        stages (int): The number of stages.

    Example:
        >>> [round(share, 4) for share in geometric(0.04, 2)]
        [0.2, 0.04]
    """
    _check(share, stages)
    return tuple(share ** (t / stages) for t in range(1, stages)) + (share,)


def linear(share: float, stages: int) -> tuple[float, ...]:
    r"""Drop the same number of parameters at each stage, :math:`s_t = 1 - (1 - s) t / n`.

    Args:
        share (float): The share of the parameters at the end.
        stages (int): The number of stages.

    Example:
        >>> linear(0.5, 2)
        (0.75, 0.5)
    """
    _check(share, stages)
    return tuple(1.0 - (1.0 - share) * t / stages for t in range(1, stages)) + (share,)


def cubic(share: float, stages: int) -> tuple[float, ...]:
    r"""Drop much at first and little at the end, :math:`s_t = s + (1 - s) (1 - t / n)^3`, from
    `"To Prune, or Not to Prune" <https://arxiv.org/abs/1710.01878>`_.

    Args:
        share (float): The share of the parameters at the end.
        stages (int): The number of stages.

    Example:
        >>> [round(share, 4) for share in cubic(0.2, 2)]
        [0.3, 0.2]
    """
    _check(share, stages)
    rest = tuple(share + (1.0 - share) * (1.0 - t / stages) ** 3 for t in range(1, stages))
    return (*rest, share)


def check_shares(keep: float | Iterable[float]) -> tuple[float, ...]:
    """Return shares as a tuple; they must be in (0, 1] and fall.

    Example:
        >>> check_shares(0.5)
        (0.5,)
    """
    # NumPy's scalars are Real, which mypy does not know of int and float.
    shares = (keep,) if isinstance(keep, (int, float, Real)) else tuple(keep)
    valid = all(isinstance(s, (int, float, Real)) and 0 < s <= 1 for s in shares)
    falls = valid and all(a > b for a, b in pairwise(shares))
    if not shares or not falls:
        raise ValueError(f"'keep' must hold shares in (0, 1] that fall (got {keep})")
    return tuple(float(share) for share in shares)


def _check(share: float, stages: int) -> None:
    checks.number("share", share, above=0, most=1)
    checks.count("stages", stages)
