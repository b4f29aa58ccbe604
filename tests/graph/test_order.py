from __future__ import annotations

import pytest
import torch

from pyg_stkd.graph import order


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "is_exporting", lambda: True)


def test_sort_keeps_the_order_of_equals() -> None:
    values, perm = order.sort(torch.tensor([2, 0, 2, 1, 0]))
    assert values.tolist() == [0, 0, 1, 2, 2]
    assert perm.tolist() == [1, 4, 3, 0, 2]


@pytest.mark.usefixtures("exporting")
def test_the_sort_and_pointers_of_export_are_the_same() -> None:
    index = torch.randint(9, (70,))
    stable = torch.sort(index, stable=True)
    for given, expected in zip(order.sort(index), stable, strict=True):
        assert torch.equal(given, expected)
    counts = index.bincount(minlength=12)
    expected = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    assert torch.equal(order.pointers(stable.values, 12), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_pointers_name_where_each_number_begins(dtype: torch.dtype) -> None:
    index = torch.tensor([1, 1, 3], dtype=dtype)
    pointer = order.pointers(index, 5)
    assert pointer.tolist() == [0, 0, 2, 2, 3, 3]
    assert pointer.dtype == dtype


def test_is_sorted() -> None:
    cases = {(): True, (4,): True, (1, 1, 2): True, (1, 0): False, (0, 2, 1): False}
    for values, expected in cases.items():
        assert order.is_sorted(torch.tensor(values)) is expected


def test_what_an_evaluation_builds_serves_training() -> None:
    with torch.inference_mode():
        with order.usable_in_training():
            built = torch.ones(2)
        assert not built.is_inference()
        assert torch.ones(2).is_inference()


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_places_of_a_mask(size: int) -> None:
    mask = torch.rand(size) < 0.3
    assert order.places(mask).equal(mask.nonzero().view(-1))
    assert order.places(mask[::2]).equal(mask[::2].nonzero().view(-1))
