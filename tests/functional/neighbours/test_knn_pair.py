from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.neighbours import knn_pair as module
from pyg_stkd.functional.neighbours.knn_pair import knn_pair

# Clouds 1 of the sources and 4 of the targets have no counterpart; 3 is smaller than k.
BATCH_X = torch.tensor([0] * 9 + [1] * 4 + [2] * 8 + [3] * 2)
BATCH_Y = torch.tensor([0] * 3 + [2] * 5 + [3] * 2 + [4])


def naive(x: Tensor, y: Tensor, k: int, batch_x: Tensor, batch_y: Tensor) -> list[list[int]]:
    """Return the nearest sources of each target, measured in float64."""
    out = []
    for point, cloud in zip(y.double(), batch_y.tolist(), strict=True):
        index = (batch_x == cloud).nonzero().view(-1)
        distance = (x.double()[index] - point).square().sum(-1)
        out.append(index[distance.argsort(stable=True)[:k]].tolist())
    return out


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_scale_changes_neighbours(scale: float, dtype: torch.dtype) -> None:
    scale **= 1 if dtype == torch.float32 else 10
    x, y = torch.randn(23, 3), torch.randn(11, 3)
    expected = knn_pair(x, y, 4)
    assert knn_pair(x.to(dtype) * scale, y.to(dtype) * scale, 4).equal(expected)


def test_a_far_point_takes_no_digits_of_the_others() -> None:
    x, y = torch.randn(23, 3) * 1e-25, torch.randn(11, 3) * 1e-25
    expected = knn_pair(x, y, 4)
    x = torch.cat([x, torch.full((1, 3), 1e10)])
    assert knn_pair(x, y, 4).equal(expected)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("chunk", [1, 16, 1 << 22])
def test_is_the_naive_search(chunk: int, offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    x, y = torch.randn(23, 6) + offset, torch.randn(11, 6) + offset
    for bx, by in ((BATCH_X, BATCH_Y), (None, None)):
        source, target = knn_pair(x, y, 3, bx, by)
        assert target.equal(target.sort().values)
        expected = naive(
            x, y, 3, *(torch.zeros(len(z)) if b is None else b for z, b in ((x, bx), (y, by)))
        )
        assert [source[target == i].tolist() for i in range(11)] == expected


def test_ties_go_to_the_smaller_index() -> None:
    x = torch.tensor([[1.0], [-1.0], [1.0], [0.5]])
    assert knn_pair(x, torch.zeros(1, 1), 3).tolist() == [[3, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(("num_x", "num_y"), [(0, 3), (3, 0), (0, 0)])
def test_no_points(num_x: int, num_y: int) -> None:
    assert knn_pair(torch.ones(num_x, 2), torch.ones(num_y, 2), 2).shape == (
        2,
        min(num_x, 2) * num_y,
    )


def test_half_precision_is_compared_in_float32() -> None:
    x, y = torch.randn(40, 3).half(), torch.randn(7, 3).half()
    assert knn_pair(x, y, 4).equal(knn_pair(x.float(), y.float(), 4))


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ({"y": torch.ones(2, 4)}, ValueError, r"one width \(got \[3, 2\] and \[2, 4\]\)"),
        ({"y": [1.0]}, TypeError, r"'x' must be a tensor of real"),
        ({"k": 0}, ValueError, r"'k' must be at least 1 \(got 0\)"),
        ({"batch_x": torch.zeros(3).long()}, ValueError, r"'batch' must be given for both"),
        (
            {"batch_x": torch.tensor([1, 0, 0]), "batch_y": torch.zeros(2).long()},
            ValueError,
            r"'batch' must be sorted",
        ),
        ({"x": torch.full((3, 2), torch.nan)}, ValueError, r"'x' must be finite"),
        ({"y": torch.full((3, 2), torch.inf)}, ValueError, r"'x' must be finite"),
    ],
)
def test_bad_input(args: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        knn_pair(**{"x": torch.ones(3, 2), "y": torch.ones(2, 2), "k": 1, **args})
