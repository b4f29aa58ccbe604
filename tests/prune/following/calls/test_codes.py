from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.prune.following.calls.codes import channel_codes, decode


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 300])
def test_no_code_is_part_of_another(count: int) -> None:
    codes = channel_codes(count)
    assert codes.size(0) == count
    shared = codes.long() @ codes.long().t()  # bits of i that j has too
    weights = codes.sum(1)
    assert bool((shared.fill_diagonal_(-1) < weights.view(-1, 1)).all())
    assert len(set(weights.tolist())) == 1
    bits = codes.size(1)  # as few as can be
    assert bits == 2 or math.comb(bits - 1, (bits - 1) // 2) < count


@given(st.integers(1, 40), st.data())
def test_one_is_named_none_and_several_are_told_apart(count: int, data: st.DataObject) -> None:
    codes = channel_codes(count)
    noticed = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    bits = torch.zeros(codes.size(1), dtype=torch.bool)
    for channel in noticed:
        bits |= codes[channel]
    seen = (bits.long() << torch.arange(codes.size(1))).sum().view(1)
    expected = {0: -1, 1: next(iter(noticed), -1)}.get(len(noticed), -2)
    assert decode(codes, seen).tolist() == [expected]
