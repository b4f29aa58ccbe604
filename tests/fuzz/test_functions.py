"""Whatever a function is given: a sound result, or a refusal of a right kind."""

from __future__ import annotations

import os
from random import Random

import pytest
from functions import TARGETS
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_odd_arguments_are_taken_or_refused(name: str, data: st.DataObject) -> None:
    assert TARGETS[name](lambda n: data.draw(st.integers(0, n - 1))) in ("made", "refused")


@pytest.mark.parametrize("name", TARGETS)
def test_many_at_random(name: str) -> None:
    count = 3000 if os.environ.get("FULL_TEST") else 60
    ends = {TARGETS[name](Random(f"{name} {number}").randrange) for number in range(count)}
    assert ends == {"made", "refused"}
