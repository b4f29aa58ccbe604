"""Whatever a function of traffic series is given: a sound result, or a refusal of a right kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from series import TARGETS


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_odd_arguments_are_taken_or_refused(name: str, data: st.DataObject) -> None:
    assert TARGETS[name](lambda n: data.draw(st.integers(0, n - 1))) in ("made", "refused")
