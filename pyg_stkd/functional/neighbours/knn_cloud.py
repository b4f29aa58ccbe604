"""The nearest neighbours within one large cloud on CPU, a block of distances after the other.

Views and fills are NumPy's here, which takes a tenth of torch's time for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_stkd.functional.neighbours.doubt import Found
from pyg_stkd.functional.neighbours.largest import largest, largest_by_groups, num_groups

__all__ = [
    "ALIGN",
    "DIRECT",
    "Cloud",
    "Plan",
    "Space",
    "rows_at_once",
    "search_cloud",
    "sum_squares",
]

Array = np.ndarray[Any, Any]

# Kernels are faster on rows that are aligned in memory.
ALIGN = 16
# Up to this width, distances are summed coordinate by coordinate: without cancellation, and no
# slower than a matrix product.
DIRECT = 4


class Cloud(NamedTuple):
    """A cloud among others."""

    first: int  # its first point
    size: int
    wanted: int  # the best of each point


class Plan(NamedTuple):
    """What is searched for."""

    starts: list[int]  # of each cloud, and the end of the last one
    others: list[int]  # how many points may be found in each
    loop: bool
    norm: Tensor  # squared, or 0 where differences are summed


class Block(NamedTuple):
    """Room for the scores of some rows, those behind the last point too, and a flag of each."""

    whole: Tensor
    score: Tensor
    array: Array  # the whole
    left: Array


class Space(NamedTuple):
    """Memory that one block after the other is worked on in."""

    score: Tensor
    gap: Tensor
    left: Array
    blocks: dict[tuple[int, int, int], Block]

    def block(self, rows: int, known: int, wide: int) -> Block:
        """Return room for rows of so many scores each, made once: clouds are often of one size."""
        shape = rows, known, wide
        if shape not in self.blocks:
            whole = self.score[: rows * wide].view(rows, wide)
            left = self.left[: rows * wide].reshape(rows, wide)
            self.blocks[shape] = Block(whole, whole[:, :known], whole.numpy(), left)
        return self.blocks[shape]

    @classmethod
    def of(cls, x: Tensor, clouds: list[Cloud], limit: int) -> Space:
        most = max((rows_at_once(cloud.size, limit) * _wide(cloud) for cloud in clouds), default=0)
        gap = x.new_empty(most if x.size(1) <= DIRECT else 0)
        return cls(x.new_empty(most), gap, np.empty(most, dtype=bool), {})


def search_cloud(
    x: Tensor, cloud: Cloud, plan: Plan, limit: int, space: Space, found: Found
) -> None:
    """Write what is found of each point of a cloud into its rows, which are arrays.

    At most about :obj:`limit` scores exist at a time. Their rows are aligned, for which :obj:`x`
    goes on behind the last point; what is behind is masked.
    """
    first, n, wanted = cloud
    wide, known = _wide(cloud), -(-n // ALIGN) * ALIGN
    groups, at = num_groups(n, wanted), found.places(wanted, plan.loop)
    x = x[first : first + known]
    direct = x.size(1) <= DIRECT
    # Whole numbers stay whole, so that equal distances are equal: no roots.
    columns = x.t().contiguous() if direct else plan.norm[first : first + known].unsqueeze(0)
    most = rows_at_once(n, limit)
    for start in range(0, n, most):
        rows = min(most, n - start)
        whole, score, array, left = space.block(rows, known, wide)
        centre = x[start : start + rows]
        if direct:
            gap = space.gap[: rows * known].view(rows, known)
            sum_squares(centre.t().unsqueeze(-1).unbind(), columns.unbind(), gap, score)
        else:
            torch.addmm(columns, centre, x.t(), beta=-1, alpha=2, out=score)
        array[:, n:] = -math.inf
        own = slice(start, start + rows * wide, wide + 1)
        array.reshape(-1)[own] = math.inf if plan.loop else -math.inf
        if groups:
            column, value = largest_by_groups(whole, wanted, groups, at, left)
        else:
            column, value = largest(whole, wanted, at)
        part = slice(first + start, first + start + rows)
        found.map(lambda each: each[part]).write(column.numpy(), value.numpy(), first)  # noqa: B023


def sum_squares(
    centres: Sequence[Tensor], columns: Sequence[Tensor], gap: Tensor, score: Tensor
) -> None:
    """Write negative squared distances, summed coordinate by coordinate."""
    total = score.new_zeros(())
    for centre, column in zip(centres, columns, strict=True):
        torch.sub(centre, column, out=gap)
        total = torch.addcmul(total, gap, gap, value=-1, out=score)


def rows_at_once(n: int, limit: int) -> int:
    """Return how many of n points have all their distances within the limit, about."""
    return -(-n // max(1, round(n * n / limit)))


def _wide(cloud: Cloud) -> int:
    step = max(num_groups(cloud.size, cloud.wanted), ALIGN)
    return -(-cloud.size // step) * step
