"""Tests of pyg_stkd/prune/structure/units.py: what is tied is one, and kept as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.prune.structure.units import Units

COUNT = 6
PAIRS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=8)


def reached(pairs: list[tuple[int, int]], start: int) -> set[int]:
    """Return what a unit is joined to, step by step."""
    found, near = set(), {start}
    while near:
        found |= near
        near = {b for pair in pairs for a, b in (pair, pair[::-1]) if a in found} - found
    return found


@given(PAIRS, st.sets(st.integers(0, COUNT - 1)), st.sets(st.integers(0, COUNT - 1)))
def test_classes_are_what_pairs_join_in_any_order(
    pairs: list[tuple[int, int]], kept: set[int], heads: set[int]
) -> None:
    units = Units()
    every = units.new(COUNT)
    units.mark_heads(heads)
    half = len(pairs) // 2
    for a, b in pairs[:half]:
        units.tie((a,), (b,))
    units.freeze(list(kept))  # kept before and after what follows is tied
    for a, b in pairs[half:]:
        units.tie((a,), (b,))
    for unit in every:
        joined = reached(pairs, unit)
        assert units.find(unit) == min(joined)
        assert units.is_frozen(unit) == bool(joined & kept)
        assert units.is_head((unit,)) == bool(joined & heads)
    assert units.representatives == [min(reached(pairs, unit)) for unit in every]
    assert units.units == sorted(set(units.representatives))
    assert units.frozen == {min(reached(pairs, unit)) for unit in kept}


def test_what_meets_an_unknown_width_is_kept() -> None:
    units = Units()
    a, b = units.new(2), units.new(2)
    assert units.tie(a, None) == a
    assert units.tie(None, b[:1]) == b[:1]
    assert [units.is_frozen(unit) for unit in (*a, *b)] == [True, True, True, False]
    assert units.is_free(b)
    assert not units.is_free(a)
    assert units.tie(None, None) is None


def test_only_as_many_channels_can_be_added() -> None:
    units = Units()
    with pytest.raises(ValueError, match=r"as many \(got 2, 3\)"):
        units.tie(units.new(2), units.new(3))


def test_classes_are_places_among_the_representatives() -> None:
    units = Units()
    a, b = units.new(2), units.new(3)
    units.tie(a, b[1:])
    found, places = units.classes((*b, a[1]))
    assert found == [2, 0, 1]
    assert places.tolist() == [0, 1, 2, 2]
