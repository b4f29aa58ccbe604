from __future__ import annotations

import pytest
import torch

from pyg_stkd.functional.neighbours.clouds import square_norms
from pyg_stkd.functional.neighbours.doubt import Found
from pyg_stkd.functional.neighbours.knn_cloud import (
    ALIGN,
    Cloud,
    Plan,
    Space,
    rows_at_once,
    search_cloud,
    sum_squares,
)


def test_rows_at_once_cover_all_points_evenly() -> None:
    for n in (1, 50, 1000, 4097):
        for limit in (64, 1 << 12, 1 << 30):
            rows = rows_at_once(n, limit)
            blocks = -(-n // rows)
            assert 1 <= rows <= n
            assert blocks * rows < n + blocks
            assert rows * n <= max(2 * limit, n)


def test_sums_of_squares_coordinate_by_coordinate() -> None:
    a, b = torch.randn(3, 5, 1), torch.randn(3, 1, 7)
    gap, score = torch.empty(5, 7), torch.empty(5, 7)
    sum_squares(a.unbind(), b.unbind(), gap, score)
    torch.testing.assert_close(score, -(a - b).square().sum(0))


@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("limit", [1 << 10, 1 << 20])
def test_one_cloud_among_others(width: int, loop: bool, limit: int) -> None:
    first, n, k = 32, 150, 5
    x = torch.randn(200 + ALIGN, width, dtype=torch.float64)
    norm = square_norms(x) if width > 4 else x.new_zeros(x.size(0))
    cloud = Cloud(first, n, k)
    near = torch.full((200, k), -1)
    plan = Plan([0, first, first + n, 200], [first, n, 18], loop, norm)
    search_cloud(x, cloud, plan, limit, Space.of(x, [cloud], limit), Found(near.numpy()))
    own = x[first : first + n]
    distance = (own[:, None] - own).square().sum(-1).fill_diagonal_(-1 if loop else torch.inf)
    expected = distance.argsort(dim=1)[:, :k] + first
    assert torch.equal(near[first : first + n], expected)
    assert bool((near[:first] == -1).all())
    assert bool((near[first + n :] == -1).all())
