"""Sums of tensors in files: no flipped bit leaves one as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_stkd.distill.recording.disk.checksum import check_sums, checksum, sums


@given(st.binary(min_size=1, max_size=40), st.data())
def test_any_other_bit_is_another_sum(content: bytes, data: st.DataObject) -> None:
    value = torch.tensor(list(content), dtype=torch.uint8)
    words = [content[i : i + 8] for i in range(0, len(content), 8)]
    expected = sum(int.from_bytes(word, "little") for word in words) % 2**64
    assert checksum(value) == expected
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    value[bit // 8] ^= 1 << bit % 8
    assert checksum(value) != expected


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.bfloat16, torch.complex64])
def test_of_any_type_and_layout(dtype: torch.dtype) -> None:
    value = torch.arange(15).view(3, 5).to(dtype)
    assert checksum(value.t()) == checksum(value.t().contiguous())
    assert checksum(value[0, 1]) == checksum(value[0, 1:2])
    assert checksum(value[:0]) == 0
    part = torch.cat([value.flatten()[:1], value.flatten()])[1:]  # not at a whole word
    assert checksum(part) == checksum(value)


def test_sums_that_are_not_there_are_not_compared() -> None:
    values = {"a": torch.ones(3)}
    check_sums(values, None)
    check_sums(values, sums(values))
    with pytest.raises(ValueError, match="other numbers in 'b' than were written"):
        check_sums({**values, "b": torch.ones(1)}, sums(values))
