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
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["MORE", "Found", "Rounding", "settle"]

# How many more than the best are found: the last of them is seldom in doubt. As seldom do errors
# reach as many of the nearest and one more, from the last on.
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

    def gap(self, norm: Any, last: Any, largest: Any = None) -> Any:
        """Return by how much two scores must differ at least to be in the right order.

        Both are :obj:`last` or better: such points are within the distance of that score, and
        their norms at most larger by that than the centre's, whose square is given. Where there is
        no last one, nothing is known but the :obj:`largest` squared norm of all.

        Tensors or arrays: NumPy takes a part of torch's time for few numbers.
        """
        root = norm**0.5
        reach = (norm - last).clip(0) ** 0.5
        if largest is not None:
            reach[last == -math.inf] = largest**0.5 - root[last == -math.inf]
        return (reach + 2 * root) ** 2 * self.factor + self.floor


class Found(NamedTuple):
    """The best of each point, best first; where asked, a few more than the nearest, and scores."""

    near: Any  # [N, k]
    more: Any = None  # [N, m - k]
    score: Any = None  # [N, 5], see `places`

    @classmethod
    def of(cls, near: Tensor, dtype: torch.dtype) -> Found:
        """Make room for more than :obj:`near`."""
        num_points = near.size(0)
        # Column by column; a point alone in its cloud has none.
        score = torch.full((5, num_points), -math.inf, dtype=dtype, device=near.device)
        return cls(near, near.new_empty(num_points, MORE), score.t())

    @property
    def wanted(self) -> int:
        return self.near.shape[-1] + (0 if self.more is None else MORE)

    def places(self, wanted: int, loop: bool) -> list[int]:
        """Return which scores are kept: of the first, of the last but some and the last of the
        nearest, of the next, and of the last found.
        """
        if self.score is None:
            return []
        k, first = self.near.shape[-1], int(loop)
        places = first, max(first, k - 2 - MORE), k - 1, k, k + MORE - 1
        return [min(place, wanted - 1) for place in places]

    def map(self, function: Callable[[Any], Any]) -> Found:
        """Return the same of all parts."""
        more, score = (None if part is None else function(part) for part in self[1:])
        return Found(function(self.near), more, score)

    def write(self, column: Any, score: Any, start: Any) -> None:
        """Write the columns of the best, which are counted on from :obj:`start`, and scores kept.

        All are tensors, or arrays.
        """
        k, wanted = self.near.shape[-1], column.shape[-1]
        column += start
        self.near[..., :wanted] = column[..., :k]
        if self.more is None or self.score is None:
            return
        self.score[...] = score
        if wanted > k:
            self.more[..., : wanted - k] = column[..., k:]
        if wanted < k + MORE:  # there is no more
            self.score[..., wanted - k - MORE :] = -math.inf


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
    score, norm = _few(found.score), _few(norm)
    row = _close(score, norm, rounding)
    if len(row) == 0:
        return
    first, inner, kth, after, last = score[row].T
    fewest = min((b - a for a, b in pairwise(starts)), default=0) - int(not loop)
    whole = fewest >= found.wanted  # each cloud has a last one
    least = rounding.gap(norm[row], last, None if whole else norm.max())
    hard = last > kth - least  # one that was not found may be among the nearest
    order = (norm[row] - first) * _SMALL < least  # of all that was found
    edge = (after > kth - least) & ~order & ~hard
    far = edge & (after > inner - least)
    edge, order = edge & ~far, (order | far) & ~hard
    row, some, all_found = (torch.as_tensor(row[part]) for part in (hard, edge, order))
    absent = None if whole else starts
    _order(found, x, some, absent, loop, max(int(loop), found.near.size(1) - 1 - MORE))
    _order(found, x, all_found, absent, loop, int(loop))
    if row.numel() == 0:
        return
    for i, rows in _runs(_cloud(starts, row), row):
        points = x[starts[i] : starts[i + 1]]
        degree = min(found.near.size(1), points.size(0) - (not loop))
        near = _search(points, rows - starts[i], degree - loop)
        found.near[rows, int(loop) : degree] = near + starts[i]


def _few(x: Tensor) -> Any:
    """Return a tensor as what is quick for one number a point: on CPU an array of NumPy's."""
    return x.numpy() if x.device.type == "cpu" else x


def _cloud(starts: Sequence[int], row: Tensor) -> Tensor:
    """Return the cloud of each point."""
    return torch.bucketize(row, torch.tensor(starts[1:], device=row.device), right=True)


def _close(score: Any, norm: Any, rounding: Rounding) -> Any:
    """Return the points that may be in doubt: a quick bound, at most twice too large."""
    first, _, kth, after, last = score.T
    # (2 |x| + d)^2 <= 10 |x|^2 - 2 s, of a squared distance d^2 = |x|^2 - s
    most = (norm - last * 0.2) * (10 * rounding.factor) + rounding.floor
    close = (after >= kth - most) | ((norm - first) * _SMALL <= most)
    return close.nonzero()[0] if isinstance(close, np.ndarray) else close.nonzero()[:, 0]


def _order(
    found: Found, x: Tensor, row: Tensor, starts: Sequence[int] | None, loop: bool, begin: int
) -> None:
    """Sort what is found of some points, from a column on that is not the point itself.

    The starts of clouds are given if some are too small.
    """
    if row.numel() == 0:
        return
    column = torch.cat([found.near[row, begin:], found.more[row]], dim=1)
    if starts is None:
        column = column.sort(dim=1).values
        distance = _distance(x, row, column)
    else:
        sizes = torch.tensor(starts, device=x.device).diff()[_cloud(starts, row)]
        others = (sizes - int(not loop) - begin).unsqueeze(1)
        absent = torch.arange(column.size(1), device=x.device) >= others
        column = column.masked_fill_(absent, x.size(0)).sort(dim=1).values  # none, behind all
        distance = _distance(x, row, column.clamp(max=x.size(0) - 1))
        distance.masked_fill_(column == x.size(0), torch.inf)
    order = distance.argsort(dim=1, stable=True)[:, : found.near.size(1) - begin]
    found.near[row, begin:] = column.gather(1, order)


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
        distance[rough] = _distance(x, part[centre[rough]], index[rough, None]).view(-1)
        order = _sorted(centre, distance, index)
        count = torch.bincount(centre, minlength=part.numel())
        first = count.cumsum(0) - count
        best = first.unsqueeze(1) + torch.arange(k, device=x.device)
        out[i : i + step] = index[order[best]]
    return out


def _distance(x: Tensor, row: Tensor, index: Tensor) -> Tensor:
    """Return squared distances to some points [N, m] by differences, in float64 if there is one."""
    out = _wide(x.new_empty(index.shape))
    step = max(1, _PAIRS // (x.size(1) * index.size(1)))
    for i in range(0, row.numel(), step):
        others = _wide(x.index_select(0, index[i : i + step].view(-1)))
        gap = others.view(-1, index.size(1), x.size(1))
        gap.sub_(_wide(x.index_select(0, row[i : i + step])).unsqueeze(1))
        torch.sum(gap.square_(), dim=-1, out=out[i : i + step])
    return out


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()


def _runs(group: Tensor, value: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cut values into those of each group, which are side by side."""
    number, count = group.unique_consecutive(return_counts=True)
    yield from zip(number.tolist(), value.split(count.tolist()), strict=True)
