from __future__ import annotations

import math

import numpy as np
import pytest

from pyg_stkd.report import Interval, gap, holm, interval, p_value, rank_correlation


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_intervals_are_those_of_students_t(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    found = interval(values.tolist())
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), *expected))


def test_a_gap_is_paired_by_seed() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(0, 10, 8)  # of each seed: far more than what methods differ in
    alone, teacher = 60 + level, 80 + level + rng.normal(0, 0.5, 8)
    method = alone + 15 + rng.normal(0, 0.5, 8)
    found = gap(teacher.tolist(), alone.tolist(), method.tolist())
    assert found.gain == interval((method - alone).tolist())
    assert found.lead == interval((teacher - alone).tolist())
    assert found.gain.high - found.gain.low < 2
    assert found.closed.mean == pytest.approx(found.gain.mean / found.lead.mean)
    assert found.closed.mean == pytest.approx(0.75, abs=0.03)
    assert found.closed.high - found.closed.low < 0.1


def test_the_share_of_a_gap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        alone = 60 + rng.normal(0, 1, 5)
        teacher, method = alone + 20 + rng.normal(0, 2, 5), alone + 16 + rng.normal(0, 1, 5)
        closed = gap(teacher.tolist(), alone.tolist(), method.tolist()).closed
        hits += closed.low <= 0.8 <= closed.high
    assert 0.91 < hits / 400 < 0.99


def brute(gains: np.ndarray, leads: np.ndarray, r: float) -> bool:
    """Return whether a share is not refuted: the definition of the interval."""
    return not interval((gains - r * leads).tolist()).excludes_zero


@pytest.mark.parametrize("seed", range(40))
def test_the_interval_of_a_share_holds_what_is_not_refuted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 12))
    leads = rng.normal(2, rng.uniform(0.1, 1.5), n)
    gains = rng.uniform(-0.5, 1) * leads + rng.normal(0, 1, n)
    found = gap(leads.tolist(), [0.0] * n, gains.tolist())
    if not found.lead.excludes_zero:
        assert (found.closed.low, found.closed.high) == (-math.inf, math.inf)
        return
    low, high = found.closed.low, found.closed.high
    inside = np.linspace(low, high, 9)[1:-1]
    assert all(brute(gains, leads, r) for r in inside)
    assert not brute(gains, leads, low - 1e-6)
    assert not brute(gains, leads, high + 1e-6)
    assert found.closed.excludes_zero == found.gain.excludes_zero


def test_a_share_of_a_gap_that_is_the_same_for_all_seeds() -> None:
    found = gap([2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.5, 0.5])
    half = interval([1.0, 1.5, 0.5])
    assert (found.closed.low, found.closed.high) == pytest.approx((half.low / 2, half.high / 2))
    sure = gap([2.0, 4.0], [0.0, 0.0], [1.0, 2.0])  # half of it, whatever it is
    assert (sure.closed.mean, sure.closed.low, sure.closed.high) == (0.5, -math.inf, math.inf)
    for scale in (1e-170, 1e170):  # whose squares are no numbers
        large = gap([2 * scale] * 3, [0.0] * 3, [scale, 1.5 * scale, 0.5 * scale]).closed
        assert (large.low, large.high) == pytest.approx((half.low / 2, half.high / 2))
    sure = gap([2.0, 2.1], [0.0, 0.0], [1.0, 1.05])
    assert (sure.closed.low, sure.closed.high) == pytest.approx((0.5, 0.5))


def test_errors_that_fall_are_gaps_too() -> None:
    found = gap([1.0, 1.1], [2.0, 2.2], [1.5, 1.6])
    assert found.gain.mean == pytest.approx(-0.55)
    assert found.closed.mean == pytest.approx(0.55 / 1.05)


def test_intervals_tell_from_zero() -> None:
    assert Interval(1, 0.1, 2).excludes_zero
    assert Interval(-1, -2, -0.1).excludes_zero
    assert not Interval(0.5, -0.1, 1).excludes_zero


def test_scores_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"must have the same seeds \(got \[2, 2, 1\]\)"):
        gap([1, 2], [1, 2], [1])
    with pytest.raises(ValueError, match=r"'values' must be at least two \(got 1\)"):
        gap([1], [2], [3])
    assert np.isnan(gap([1, 2], [1, 2], [3, 4]).closed.mean)  # there is no gap to close
    with pytest.raises(ValueError, match=r"'values' must be finite \(got nan\)"):
        interval([1.0, float("nan")])


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("mean", [0.0, 0.3, 5.0])
def test_p_values_are_those_of_students_t(n: int, mean: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).normal(mean, 1.0, n)
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert p_value(values.tolist()) == pytest.approx(expected, rel=1e-6, abs=1e-10)


def test_the_p_value_agrees_with_the_interval() -> None:
    for seed in range(50):
        values = np.random.default_rng(seed).normal(0.7, 1.0, 6).tolist()
        assert (p_value(values) < 0.05) == interval(values).excludes_zero


@pytest.mark.parametrize("n", [2, 5, 10])
def test_no_p_value_is_below_zero(n: int) -> None:
    rng = np.random.default_rng(n)
    values = [rng.normal(1.0, 10.0 ** -rng.uniform(1, 12), n).tolist() for _ in range(300)]
    found = [p_value(x) for x in values]
    assert min(found) >= 0
    assert max(holm(found)) <= 1


def test_equal_values_leave_no_doubt() -> None:
    assert p_value([2.0, 2.0]) == 0
    assert p_value([0.0, 0.0]) == 1


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.3: times 4, 3, 2, 1, never falling.
    assert holm([0.3, 0.01, 0.03, 0.02]) == pytest.approx([0.3, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_rate_of_false_findings() -> None:
    rng = np.random.default_rng(0)
    false = sum(
        min(holm([p_value(x.tolist()) for x in rng.normal(size=(5, 6))])) < 0.05 for _ in range(300)
    )
    assert false / 300 < 0.08  # 5 % are allowed; without the correction 22 %


def test_no_p_values() -> None:
    with pytest.raises(ValueError, match=r"'p_values' must be at least 0 .* 1 \(got 1.5\)"):
        holm([0.5, 1.5])
    with pytest.raises(TypeError, match="'p_values' must be a number"):
        holm(["0.1"])
    with pytest.raises(ValueError, match=r"'values' must be at least two \(got 1\)"):
        p_value([1.0])


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlations_are_spearmans(ties: bool) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    first = rng.normal(size=30)
    second = first + rng.normal(size=30)
    if ties:
        first, second = first.round(), second.round()
    expected = stats.spearmanr(first, second).statistic
    assert rank_correlation(first.tolist(), second.tolist()) == pytest.approx(expected)


def test_what_orders_nothing_has_no_rank_correlation() -> None:
    assert math.isnan(rank_correlation([1.0, 1.0], [1.0, 2.0]))
    assert math.isnan(rank_correlation([], []))
    with pytest.raises(ValueError, match=r"must be as long \(got 1 and 2\)"):
        rank_correlation([1.0], [1.0, 2.0])
