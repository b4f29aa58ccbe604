from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.functional.neighbours.largest import (
    largest,
    largest_by_groups,
    largest_by_keys,
    num_groups,
)


@given(
    rows=st.integers(1, 5),
    n=st.integers(1, 90),
    spread=st.sampled_from([1.0, 4.0, 1e30]),
    double=st.booleans(),
    seed=st.integers(0, 999),
)
def test_all_ways_equal_the_stable_sort(
    rows: int, n: int, spread: float, double: bool, seed: int
) -> None:
    score = (torch.randn(rows, n, generator=torch.manual_seed(seed)) * spread).round(decimals=1)
    score[0, n // 2] = torch.inf
    score[-1, 0] = -torch.inf
    score = score.double() if double else score
    k = 1 + seed % n
    at = [0, k - 1]
    value, column = score.sort(dim=1, descending=True, stable=True)
    ways = [largest(score.clone(), k, at)]
    if not double:
        ways.append(largest_by_keys(score, k, at))
    groups = num_groups(n, k)
    if groups:
        ways.append(largest_by_groups(score.clone(), k, groups, at))
    for found, some in ways:
        assert torch.equal(found, column[:, :k])
        assert torch.equal(some, value[:, at])


def test_groups_only_where_there_are_several_columns_of_each() -> None:
    for n in (1, 63, 64, 300, 5000):
        for k in (1, 6, 7, 20, 400):
            groups = num_groups(n, k)
            assert groups == 0 or (groups >= 2.5 * k and n >= 4 * groups)
    assert num_groups(64, 1) == 16
    assert num_groups(63, 1) == 0


def test_largest_with_integer_keys_equals_the_stable_sort() -> None:
    score = torch.randn(50, 37).round(decimals=1)
    score[:, 4], score[:, 5], score[3] = -torch.inf, torch.inf, -0.5
    for by_keys, by_sorting in zip(
        largest_by_keys(score, 12, [0, 5, 11]), largest(score, 12, [0, 5, 11]), strict=True
    ):
        assert torch.equal(by_keys, by_sorting)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_share_the_rows(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyg_stkd.functional.neighbours.largest._SHARE", 1)
    score = torch.randn(130, 200, generator=torch.manual_seed(0)).to(dtype)
    score[7] = score[8, :1]  # all equal
    expected = score.double().sort(dim=1, descending=True, stable=True).indices[:, :5]
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            column, value = largest_by_groups(score, 5, 16, [4, 0])
            assert torch.equal(column, expected)
            assert torch.equal(value, score.gather(1, expected[:, [4, 0]]))
    finally:
        torch.set_num_threads(threads)
