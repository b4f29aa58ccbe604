"""What the scores of several seeds tell: intervals, paired gains, corrected p-values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyg_stkd import checks

__all__ = ["Gap", "Interval", "gap", "holm", "interval", "p_value", "rank_correlation"]


@dataclass(frozen=True)
class Interval:
    r"""A mean and the interval that holds the true one at a confidence of 95 %.

    A format applies to each of the three numbers.

    Args:
        mean (float): The mean.
        low (float): The lower end.
        high (float): The upper end.

    Example:
        >>> str(Interval(1.5, 0.25, 2.75)), f"{Interval(0.5, 0.25, 0.75):.0%}"
        ('1.50 (0.25 to 2.75)', '50% (25% to 75%)')
    """

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        mean, low, high = (format(x, spec or ".2f") for x in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"

    def __str__(self) -> str:
        return format(self, "")

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean is told from 0 at this confidence."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Gap:
    r"""What a method gains over the student alone, and the share of the teacher's lead that it is.

    Args:
        gain (Interval): The mean paired difference to the student alone.
        closed (Interval): The share of the gap to the teacher, 1 for all of it. Where :obj:`lead`
            excludes 0, it excludes 0 just where the gain does; elsewhere it has no ends, and is NaN
            where the mean lead is 0.
        lead (Interval): The gap itself, teacher less student alone.
    """

    gain: Interval
    closed: Interval
    lead: Interval


def interval(values: Sequence[float]) -> Interval:
    r"""Return the mean of values and its 95 % interval by Student's t.

    Args:
        values (list of float): At least two, such as paired differences, one a seed.

    Raises:
        TypeError: If one is no number.
        ValueError: If there are fewer than two, or one is not finite.

    Example:
        >>> print(interval([1.0, 2.0, 3.0]))
        2.00 (-0.48 to 4.48)
    """
    values = [checks.number("values", value) for value in values]
    if len(values) < 2:
        raise ValueError(f"'values' must be at least two (got {len(values)})")
    mean = statistics.fmean(values)
    half = _student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def gap(teacher: Sequence[float], alone: Sequence[float], method: Sequence[float]) -> Gap:
    r"""Return what a method gains over the student alone, paired by seed, with 95 % intervals.

    The share of the gap closed is the ratio of means :math:`r = \bar{d} / \bar{g}` of the gains
    :math:`d` and the gaps :math:`g`. Its interval holds all :math:`r` for which the mean of
    :math:`d - r g` is not told from 0 (Fieller, Journal of the Royal Statistical Society B, 1954),
    so that the spread of the teachers counts too. It has no ends where the gap itself is not told
    from 0.

    Args:
        teacher (list of float): Scores of the teachers, one a seed.
        alone (list of float): Scores of the student alone, of the same seeds in the same order.
        method (list of float): Scores of the method, likewise.

    Raises:
        TypeError: If a score is no number.
        ValueError: If the numbers of scores differ, there are fewer than two, or one is not finite.

    Example:
        >>> alone, teacher = [80.0, 81.0, 80.5], [90.0, 92.0, 91.0]
        >>> found = gap(teacher, alone, method=[88.0, 89.5, 88.0])
        >>> print(found.gain)
        8.00 (6.76 to 9.24)
        >>> print(f"{found.closed:.0%}")
        76% (66% to 87%)
    """
    sizes = [len(scores) for scores in (teacher, alone, method)]
    if len(set(sizes)) > 1:
        raise ValueError(f"'teacher', 'alone' and 'method' must have the same seeds (got {sizes})")
    gains = [m - a for m, a in zip(method, alone, strict=True)]
    leads = [t - a for t, a in zip(teacher, alone, strict=True)]
    gain, lead = interval(gains), interval(leads)
    if lead.mean == 0:
        return Gap(gain, Interval(math.nan, math.nan, math.nan), lead)
    return Gap(gain, _ratio(gains, leads), lead)


def _ratio(gains: Sequence[float], leads: Sequence[float]) -> Interval:
    """Return a ratio of means with Fieller's interval."""
    largest = max(map(abs, (*gains, *leads)))  # of which the squares are still numbers
    gains, leads = [x / largest for x in gains], [x / largest for x in leads]
    share = statistics.fmean(gains) / statistics.fmean(leads)
    # The mean of d - r g is told from 0 where (d - r g)^2 > t^2 var(d - r g), a parabola in r.
    factor = _student_t(len(gains) - 1) ** 2 / len(gains)
    square, mixed, rest = (
        statistics.fmean(a) * statistics.fmean(b) - factor * statistics.covariance(a, b)
        for a, b in ((leads, leads), (gains, leads), (gains, gains))
    )
    if square <= 0:
        return Interval(share, -math.inf, math.inf)
    root = math.sqrt(max(mixed**2 - square * rest, 0.0))
    return Interval(share, (mixed - root) / square, (mixed + root) / square)


def p_value(values: Sequence[float]) -> float:
    r"""Return how likely a mean at least as far from 0 is by chance, by Student's t (two-sided).

    Args:
        values (list of float): At least two, such as paired differences, one a seed.

    Raises:
        TypeError: If one is no number.
        ValueError: If there are fewer than two, or one is not finite.

    Example:
        >>> round(p_value([1.0, 2.0, 3.0]), 3)
        0.074
    """
    found = interval(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    if error == 0:
        return float(found.mean == 0)
    return max(0.0, 2 * (1 - _below(abs(found.mean) / error, len(values) - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Return p-values corrected for their number, by Holm's step-down procedure.

    Of several comparisons, the chance that any whose corrected value is below 0.05 is due to chance
    alone is at most 5 % (Holm, Scandinavian Journal of Statistics, 1979).

    Args:
        p_values (list of float): One a comparison, each from 0 to 1.

    Raises:
        TypeError: If one is no number.
        ValueError: If one is not from 0 to 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = [checks.number("p_values", p, least=0, most=1) for p in p_values]
    corrected, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = largest
    return corrected


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    r"""Return how alike two lists order the same things: Spearman's rank correlation.

    1 is the same order, -1 the reverse, 0 no relation; equal values share the mean of their ranks.

    Args:
        first (list of float): One value for each thing.
        second (list of float): Likewise, in the same order.

    Returns:
        float: NaN where one of them orders nothing: fewer than two values, or all of them equal.

    Raises:
        TypeError: If a value is no number.
        ValueError: If their lengths differ, or a value is not finite.

    Example:
        >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 100.0, 1000.0])
        1.0
    """
    lists = [
        [checks.number(name, value) for value in values]
        for name, values in (("first", first), ("second", second))
    ]
    if len(lists[0]) != len(lists[1]):
        raise ValueError(
            f"'first' and 'second' must be as long (got {len(lists[0])} and {len(lists[1])})"
        )
    a, b = (_ranks(values) for values in lists)
    spreads = [sum(x * x for x in ranks) for ranks in (a, b)]
    if min(spreads) == 0:
        return math.nan
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(spreads[0] * spreads[1])


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks less their mean; equal values share theirs.

    Example:
        >>> _ranks([5.0, 7.0, 5.0])
        [-0.5, 1.0, -0.5]
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, first = [0.0] * len(values), 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in order[first : last + 1]:
            ranks[place] = (first + last) / 2 - (len(values) - 1) / 2
        first = last + 1
    return ranks


@lru_cache
def _student_t(freedom: int, probability: float = 0.975) -> float:
    """Return a quantile of Student's t.

    Example:
        >>> [round(_student_t(n), 3) for n in (1, 2, 9, 1000)]
        [12.706, 4.303, 2.262, 1.962]
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        below = _below(math.sqrt(freedom) * math.tan(middle), freedom) < probability
        low, high = (middle, high) if below else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _below(t: float, freedom: int) -> float:
    """Return the probability that Student's t is below a value, which is not negative."""
    # With t = sqrt(n) tan(u) the density is that of cos(u)^(n - 1): smooth, on a short range.
    steps, u = 2000, math.atan(t / math.sqrt(freedom))
    norm = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    points = [math.cos(u * i / steps) ** (freedom - 1) for i in range(steps + 1)]
    total = points[0] + points[-1] + 4 * sum(points[1:-1:2]) + 2 * sum(points[2:-1:2])
    return 0.5 + norm * total * u / steps / 3  # Simpson's rule
