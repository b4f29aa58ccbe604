"""Tests of pyg_stkd/prune/schedule.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.prune.masked.schedule import check_shares, cubic, geometric, linear


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (geometric, (0.5, 0.25, 0.125)),
        (linear, (1 - 0.875 / 3, 1 - 1.75 / 3, 0.125)),
        (cubic, (0.125 + 0.875 * 8 / 27, 0.125 + 0.875 / 27, 0.125)),
    ],
)
def test_values(schedule: Any, expected: tuple[float, ...]) -> None:
    assert schedule(0.125, 3) == pytest.approx(expected)


@given(share=st.floats(0.001, 0.99), stages=st.integers(1, 8))
def test_shares_fall_to_the_last_exactly(share: float, stages: int) -> None:
    for schedule in (geometric, linear, cubic):
        shares = schedule(share, stages)
        assert check_shares(shares) == shares
        assert len(shares) == stages
        assert shares[-1] == share


def test_shares_may_be_numbers_of_numpy() -> None:
    assert check_shares(np.float32(0.5)) == (0.5,)
    shares = check_shares([np.float32(0.5), np.float64(0.25)])
    assert shares == (0.5, 0.25)
    assert [type(share) for share in shares] == [float, float]
    with pytest.raises(ValueError, match=r"'keep' must hold shares in .*\(got 1.5\)"):
        check_shares(np.float32(1.5))


@pytest.mark.parametrize("keep", [(), (0.5, 0.5), (0.2, 0.4), 0.0, 1.5, (0.5, -0.1), float("nan")])
def test_shares_must_be_in_range_and_fall(keep: Any) -> None:
    with pytest.raises(ValueError, match=r"'keep' must hold shares in \(0, 1\] that fall"):
        check_shares(keep)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"'share' must be above 0 and at most 1 \(got 0\)"):
        geometric(0, 2)
    with pytest.raises(ValueError, match=r"'stages' must be at least 1 \(got 0\)"):
        cubic(0.5, 0)
