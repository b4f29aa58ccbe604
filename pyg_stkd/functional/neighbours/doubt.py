r"""Neighbours whose order rounding may have changed, measured again.

Scores that come from inner products in float32 are wrong by some part of the squared norms of
both points, which for a far point is more than the distances of all others. So a few more than the
:math:`k` best are found; where two that follow each other are nearer than their errors may be,
their distances are measured by differences in float64, and where a point that was not found may be
among the best, those of all points that may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["MORE", "Found", "Rounding", "settle"]

# How many more than the best are found: the last of them is seldom in doubt.
MORE = 2
# Elements of the blocks that are alive at once when distances are measured: those of the few in
# doubt stay in the cache of a core, those between all points of a cloud are many.
_PAIRS, _SCORES = 1 << 15, 1 << 19
# The order of the nearest may suffer from errors up to this part of the smallest squared distance.
_SMALL = 1 / 64
# Points of a cloud that its centre is the median of.
_SAMPLE = 63


class Rounding(NamedTuple):
    r"""How wrong scores may be, which are :math:`2 \mathbf{x}_i^\top \mathbf{x}_j -
    \lVert \mathbf{x}_j \rVert^2`, or negative sums of squared differences.

    The error of a sum of :math:`C` products is below :math:`C u`, and grows as
    :math:`\sqrt{C} u` but for the unlikeliest (`Higham and Mary, 2019
    <https://doi.org/10.1137/18M1226312>`_), in units of :math:`(\lVert \mathbf{x}_i \rVert +
    \lVert \mathbf{x}_j \rVert)^2`; those of all other roundings together are below :math:`8 u`.
    """

    factor: float
    floor: float  # of squares that became 0

    @classmethod
    def of(cls, dtype: torch.dtype, width: int, vanish: bool = False) -> Rounding:
        """Return the rounding of scores of vectors of some width."""
        info = torch.finfo(dtype)
        unit = info.eps / 2
        if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
            unit = 2.0**-8  # of bfloat16
        factor = 2 * unit * (8 + min(width, 2 * math.sqrt(width)))
        return cls(factor, 2 * width * info.tiny if vanish else 0.0)

    def gap(self, norm: Tensor, last: Tensor) -> Tensor:
        """Return by how much two scores must differ at least to be in the right order.

        Both are :obj:`last` or better: such points are within the distance of that score, and
        their norms at most larger by that than the centre's, whose square is given. Where there is
        no last one, nothing is known but the largest norm of all.
        """
        root = norm.sqrt()
        reach = (norm - last).clamp_(min=0).sqrt_().add_(root)
        reach = torch.where(last == -torch.inf, root.max(), reach)
        return reach.add_(root).square_().mul_(self.factor).add_(self.floor)


class Found(NamedTuple):
    """The best of each point, best first; where asked, a few more than the nearest, and scores."""

    near: Tensor  # [N, k]
    more: Tensor | None = None  # [N, m - k]
    score: Tensor | None = None  # [N, 4], see `places`

    @classmethod
    def of(cls, near: Tensor, dtype: torch.dtype) -> Found:
        """Make room for more than :obj:`near`."""
        num_points = near.size(0)
        score = torch.empty(num_points, 4, dtype=dtype, device=near.device)
        return cls(near, near.new_empty(num_points, MORE), score)

    @property
    def wanted(self) -> int:
        return self.near.size(-1) + (0 if self.more is None else MORE)

    def places(self, wanted: int, loop: bool) -> list[int]:
        """Return which scores are kept: of the first, the k-th, the next, and the last found."""
        if self.score is None:
            return []
        k = self.near.size(-1)
        return [min(place, wanted - 1) for place in (int(loop), k - 1, k, k + MORE - 1)]

    def map(self, function: Callable[[Tensor], Tensor]) -> Found:
        """Return the same of all parts."""
        more, score = (None if part is None else function(part) for part in self[1:])
        return Found(function(self.near), more, score)

    def write(self, column: Tensor, score: Tensor, start: int | Tensor) -> None:
        """Write the columns of the best, counted from :obj:`start`, and the scores kept."""
        k, wanted = self.near.size(-1), column.size(-1)
        torch.add(column[..., :k], start, out=self.near[..., :wanted])
        if self.more is None or self.score is None:
            return
        self.score.copy_(score)
        if wanted > k:
            torch.add(column[..., k:], start, out=self.more[..., : wanted - k])
        if wanted < k + MORE:  # there is no more
            self.score[..., wanted - k - MORE :] = -torch.inf


def settle(
    found: Found, x: Tensor, norm: Tensor, rounding: Rounding, starts: Sequence[int], loop: bool
) -> None:
    r"""Put right what is found by scores that may be wrong.

    Args:
        found (Found): What is found.
        x (Tensor): The points, as they are compared.
        norm (Tensor): The squared norms that scores were computed with.
        rounding (Rounding): How wrong the scores may be.
        starts (list[int]): Where each cloud starts, and where the last one ends.
        loop (bool): Whether each point is its own first neighbour.
    """
    if found.score is None:
        return
    first, kth, after, last = found.score.unbind(1)
    least = rounding.gap(norm, torch.where(last > -torch.inf, last, torch.minimum(kth, after)))
    doubt = (kth - after < least) | ((norm - first) * _SMALL < least)
    row = doubt.nonzero().view(-1)
    if row.numel() == 0:
        return
    start = torch.tensor(starts, device=x.device)
    cloud = torch.bucketize(row, start[1:], right=True)
    others = start.diff()[cloud] - int(not loop)
    hard = (kth - last < least)[row]  # one that was not found may be among the nearest
    easy = ~hard
    _order(found, x, row[easy], others[easy], loop)
    for i, rows in _runs(cloud[hard], row[hard]):
        points = x[starts[i] : starts[i + 1]]
        degree = min(found.near.size(1), points.size(0) - (not loop))
        near = _search(points, rows - starts[i], degree - loop)
        found.near[rows, int(loop) : degree] = near + starts[i]


def _order(found: Found, x: Tensor, row: Tensor, others: Tensor, loop: bool) -> None:
    """Sort what is found of some points, which have so many others in their clouds."""
    assert found.more is not None
    column = torch.cat([found.near[row], found.more[row]], dim=1)
    place = torch.arange(column.size(1), device=x.device)
    there = place < others.unsqueeze(1)
    centre = row.unsqueeze(1).expand_as(column)[there]
    distance = torch.full_like(column, torch.inf, dtype=_wide(x[:0]).dtype)
    distance[there] = _distance(x, centre, column[there])
    if loop:
        distance[:, 0] = -1
    order = column.argsort(dim=1)
    order = order.gather(1, distance.gather(1, order).argsort(dim=1, stable=True))
    found.near[row] = column.gather(1, order[:, : found.near.size(1)])


def _sorted(group: Tensor, distance: Tensor, index: Tensor) -> Tensor:
    """Return the order by group, then distance, then index."""
    order = index.argsort(stable=True)
    for key in (distance, group):
        order = order[key[order].argsort(stable=True)]
    return order


def _search(x: Tensor, row: Tensor, k: int) -> Tensor:
    """Return the k nearest other points of some points, all that may be among them measured."""
    wide = _wide(x)
    wide = wide - wide[:: -(-x.size(0) // _SAMPLE)].median(dim=0).values  # far points move a mean
    norm = wide.square().sum(dim=1)
    rounding = Rounding.of(wide.dtype, x.size(1))
    out = row.new_empty(row.numel(), k)
    step = max(1, _SCORES // x.size(0))
    for i in range(0, row.numel(), step):
        part = row[i : i + step]
        own = torch.arange(part.numel(), device=x.device)
        score = torch.addmm(norm, wide[part], wide.t(), beta=-1, alpha=2)
        score[own, part] = -torch.inf
        last = score.topk(k, dim=1).values[:, -1]
        least = rounding.gap(norm[part], last)
        centre, index = (score >= (last - least).unsqueeze(1)).nonzero().unbind(1)
        distance = -score[centre, index]
        rough = (least[centre] > 0).nonzero().view(-1)
        distance[rough] = _distance(x, part[centre[rough]], index[rough])
        order = _sorted(centre, distance, index)
        count = torch.bincount(centre, minlength=part.numel())
        first = count.cumsum(0) - count
        best = first.unsqueeze(1) + torch.arange(k, device=x.device)
        out[i : i + step] = index[order[best]]
    return out


def _distance(x: Tensor, row: Tensor, index: Tensor) -> Tensor:
    """Return squared distances of pairs by differences, in float64 where there is one."""
    out = _wide(x.new_empty(row.numel()))
    step = max(1, _PAIRS // x.size(1))
    for i in range(0, row.numel(), step):
        a, b = (_wide(x.index_select(0, at[i : i + step])) for at in (row, index))
        torch.sum(a.sub_(b).square_(), dim=1, out=out[i : i + step])
    return out


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()


def _runs(group: Tensor, value: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cut values into those of each group, which are side by side."""
    number, count = group.unique_consecutive(return_counts=True)
    yield from zip(number.tolist(), value.split(count.tolist()), strict=True)
