from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional import knn_graph
from pyg_stkd.functional.neighbours import doubt


def test_no_more_than_the_doubtful_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = 0
    measure = doubt._distance

    def count(x: Tensor, row: Tensor, index: Tensor) -> Tensor:
        nonlocal pairs
        pairs += index.numel()
        return measure(x, row, index)

    monkeypatch.setattr(doubt, "_distance", count)
    knn_graph(torch.randn(2000, 64, generator=torch.manual_seed(0)), 20)
    assert 0 < pairs < 0.03 * 2000 * 20
    pairs = 0
    knn_graph(torch.zeros(2000, 64), 20)  # all are equal, whatever the rounding
    assert pairs == 0


def test_rounding_covers_the_errors_of_the_hardest_sums() -> None:
    for width in (5, 64, 300):
        for x in (
            torch.randn(400, 1) * torch.full((width,), 3.14159),  # which all round the same way
            torch.randn(400, width),
            torch.randn(400, width).mul(2).exp(),
        ):
            moved = x - x.mean(dim=0)
            norm = moved.square().sum(1)
            score = torch.addmm(norm, moved, moved.t(), beta=-1, alpha=2)
            true = torch.stack([(x.double() - point).square().sum(1) for point in x.double()])
            error = (norm.double().view(-1, 1) - score - true).abs().amax(dim=1)
            rounding = doubt.Rounding.of(torch.float32, width)
            assert (2 * error < rounding.gap(norm, score.amin(dim=1))).all()


def test_the_quick_bound_leaves_nobody_out() -> None:
    rounding = doubt.Rounding.of(torch.float32, 64)
    norm = torch.rand(5000) * 100
    steps = torch.rand(5000, 5) * torch.logspace(-9, 1, 5000).view(-1, 1)
    score = norm.view(-1, 1) - steps.cumsum(1)  # from the nearest to the last
    score[::7, 4] = -torch.inf
    score[::21, 1:] = -torch.inf
    first, _, kth, after, last = score.unbind(1)
    least = rounding.gap(norm, last, norm.amax())
    exact = (kth - after < least) | ((norm - first) * doubt._SMALL < least)
    close = torch.zeros(5000, dtype=torch.bool)
    close[doubt._close(score, norm, rounding)] = True
    assert (
        doubt._close(score.numpy(), norm.numpy(), rounding).tolist()
        == close.nonzero()[:, 0].tolist()
    )
    assert 100 < int(exact.sum()) < 4900
    assert bool((close | ~exact).all())


def test_the_search_among_all_of_a_cloud() -> None:
    x = torch.randn(150, 6) * torch.logspace(0, 12, 150).view(-1, 1)
    row = torch.tensor([3, 70, 149])
    distance = (x.double()[row, None] - x.double()).square().sum(-1)
    distance[torch.arange(3), row] = torch.inf
    expected = distance.argsort(dim=1, stable=True)[:, :9]
    assert torch.equal(doubt._search(x, row, 9), expected)


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("first", [1, 2, 3, 4, 5, 6, 7])
def test_as_many_as_are_in_doubt_are_put_right(
    first: int, loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = 7
    x = torch.randn(60, 6)
    distance = (x.double()[:, None] - x.double()).square().sum(-1)
    order = distance.fill_diagonal_(-1 if loop else torch.inf).argsort(dim=1)[:, : k + 2]
    # The scores cannot tell those from the first in doubt to the k+1-th from each other.
    mixed = torch.cat([order[:, :first], order[:, first : k + 1].flip(1), order[:, k + 1 :]], dim=1)
    score = -torch.arange(k + 2.0).clamp(max=first)
    score[-1] = -k - 1
    found = doubt.Found.of(torch.empty(60, k, dtype=torch.int64), torch.float32)
    found.write(mixed, score[found.places(k + 2, loop)], 0)
    widths = []
    measure = doubt._distance

    def note(x: Tensor, row: Tensor, index: Tensor) -> Tensor:
        widths.append(index.size(1))
        return measure(x, row, index)

    monkeypatch.setattr(doubt, "_distance", note)
    rounding = doubt.Rounding(factor=1e-4, floor=0.0)
    doubt.settle(found, x, torch.ones(60), rounding, [0, 60], loop)
    assert torch.equal(found.near, order[:, :k])
    assert widths == ([] if first == k else [5] if first > 3 else [k + 2 - loop])
