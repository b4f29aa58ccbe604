from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.neighbours import clouds
from pyg_stkd.functional.neighbours.clouds import (
    are_usual,
    centred,
    cloud_sizes,
    has_tiny,
    has_tiny_norm,
    have_vanished,
    in_range,
    like_clouds,
    square_norms,
)


def test_sizes_of_clouds_that_have_points() -> None:
    assert cloud_sizes(5, None) == [5]
    assert cloud_sizes(0, None) == []
    assert cloud_sizes(5, torch.tensor([0, 0, 3, 3, 3])) == [2, 3]
    with pytest.raises(ValueError, match="'batch' must be sorted"):
        cloud_sizes(3, torch.tensor([0, 1, 0]))


def test_large_clouds_are_searched_alone_unless_equal() -> None:
    assert like_clouds([1024, 1000, 1024, 600], 1 << 19) == [[0, 2], [1], [3]]
    assert like_clouds([], 1 << 19) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_moved_into_range_by_powers_of_two(dtype: torch.dtype) -> None:
    x = torch.randn(20, 6, dtype=dtype)
    assert in_range(x, False) is x
    top = torch.finfo(dtype).max
    for factor in (top / 8, 2 ** -(torch.finfo(dtype).bits * 1.6)):
        given = x * factor
        moved = in_range(given, False)
        ratio = moved / given
        assert torch.equal(ratio, ratio[:1, :1].expand_as(ratio))
        assert float(torch.frexp(ratio[0, 0]).mantissa) == 0.5
        assert bool((moved.square().sum(1) * 4).isfinite().all())
        assert not has_tiny_norm(square_norms(moved), moved)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="'x' must be finite"):
            in_range(torch.tensor([[bad]], dtype=dtype), False)


@pytest.mark.parametrize("starts", [[0, 40, 80], [0, 10, 11, 80], [0, 80]], ids=str)
@pytest.mark.parametrize("move", [True, False])
def test_each_cloud_goes_to_the_origin(starts: list[int], move: bool) -> None:
    x = torch.randn(80, 5) + 100
    out = centred(x, starts, move, 3)
    assert out.shape == (83, 5)
    assert bool((out[80:] == 0).all())
    sizes = torch.tensor(starts).diff().tolist()
    parts = x.double().split(sizes)
    expected = torch.cat([p - p.mean(0) for p in parts]) if move else x.double()
    torch.testing.assert_close(out[:80].double(), expected, rtol=1e-5, atol=1e-4)


def test_square_norms_in_parts_of_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "_CACHE", 20)
    x = torch.randn(33, 6)
    torch.testing.assert_close(square_norms(x), x.square().sum(1))


@pytest.mark.parametrize(
    ("rows", "tiny", "tiny_norm"),
    [
        ([[1.0, 0.0], [0.5, 0.5]], False, False),
        ([[1.0, 1e-25], [0.5, 0.5]], True, False),
        ([[1e-22, 1e-22], [0.5, 0.5]], True, True),
        ([[0.0, 0.0], [0.5, 0.5]], False, False),
    ],
)
def test_what_is_tiny(rows: list[list[float]], tiny: bool, tiny_norm: bool) -> None:
    x = torch.tensor(rows)
    assert has_tiny(x) is tiny
    assert has_tiny_norm(x.square().sum(1), x) is tiny_norm


def test_what_is_usual_and_what_has_vanished() -> None:
    def norms(*values: float) -> Tensor:
        return torch.tensor(values)

    assert are_usual(norms(0.0, 3.0))
    for odd in (norms(0.0), norms(1e-30), norms(1.0, 1e38), norms(1.0, torch.nan), norms()):
        assert not are_usual(odd)
    x = torch.tensor([[1e-30], [1e30], [0.0]])
    assert not have_vanished(x, x)
    assert not have_vanished(x * 0.5, x)
    assert have_vanished(x * 1e-20, x)
