from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.prune.following.calls.widths import Width

FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "product": lambda a, b: a * b,
    "product with a number": lambda a, b: 3 * a * 2,
    "sum": lambda a, b: a + b,
    "sum with a number": lambda a, b: 1 + a + 5,
    "difference": lambda a, b: a - b,
    "quotient": lambda a, b: (a * b) // b,
    "number by width": lambda a, b: 24 // a,
    "several": lambda a, b: (2 * a + b) * 3 - a // 2,
}


@pytest.mark.parametrize("name", FORMULAS)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_a_formula_is_replayed_at_other_widths(name: str, a: int, b: int, c: int, d: int) -> None:
    formula = FORMULAS[name]
    width = formula(Width(a, "a"), Width(b, "b"))
    assert isinstance(width, Width)
    assert int(width) == formula(a, b)
    assert width.at({"a": c, "b": d}.__getitem__) == formula(c, d)


def test_a_sum_of_sizes_has_both_sources_side_by_side() -> None:
    a, b = Width(3, ("size", (1, 2, 3), 3)), Width(2, ("size", (7, 8), 2))
    both = a + b
    assert both.source == ("size", (1, 2, 3, 7, 8), 5)
    assert both.at(lambda source: len(source[1])) == 5


def test_floats_tell_their_source() -> None:
    told: list[Any] = []
    width = Width(16, "hidden", on_float=told.append)
    assert width / 4 == 4.0
    assert 4 / width == 0.25
    assert width**0.5 == 4.0
    assert float(2 * width) == 32.0
    assert told == ["hidden"] * 4
    assert width * 0.5 == 8.0  # which is no width
    assert not isinstance(width * 0.5, Width)


def test_comparisons_of_equal_widths_are_told() -> None:
    told: list[Any] = []
    a, b, c = Width(4, "a"), Width(4, "b"), Width(5, "c")
    a.on_compare = lambda *sources: told.append(sources)
    assert a == b
    assert told == [("a", "b")]
    assert a != c
    assert a < c
    assert a == 4
    assert told == [("a", "b")]  # other numbers say nothing
    assert a <= b
    assert told == [("a", "b")] * 2


def test_it_is_a_number_and_its_own_copy() -> None:
    width = Width(4, "a")
    assert {width: 1}[4] == 1
    assert list(range(width)) == [0, 1, 2, 3]
    assert copy.deepcopy([width])[0] is width
