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

from pyg_stkd.functional.neighbours.doubt import MORE, Found
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


class Space(NamedTuple):
    """Memory that one block after the other is worked on in."""

    score: Tensor
    gap: Tensor
    left: Array

    @classmethod
    def of(cls, x: Tensor, clouds: list[Cloud], limit: int) -> Space:
        most = max((rows_at_once(cloud.size, limit) * _wide(cloud) for cloud in clouds), default=0)
        gap = x.new_empty(most if x.size(1) <= DIRECT else 0)
        return cls(x.new_empty(most), gap, np.empty(most, dtype=bool))


def search_cloud(
    x: Tensor, cloud: Cloud, plan: Plan, limit: int, space: Space, found: Found
) -> None:
    """Write what is found of each point of a cloud into its rows.

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
    centres = (x[:n].t().unsqueeze(-1) if direct else x[:n]).split(rows_at_once(n, limit), -2)
    arrays = [None if part is None else part[first : first + n].numpy() for part in found]
    start = rows = 0
    for centre in centres:
        if centre.size(-2) != rows:  # all but the last have as many
            rows = centre.size(-2)
            whole = space.score[: rows * wide].view(rows, wide)
            score, array = whole[:, :known], whole.numpy()
            gap = space.gap[: rows * known].view(rows, known) if direct else whole
            left = space.left[: rows * wide].reshape(rows, wide)
        if direct:
            sum_squares(centre.unbind(), columns.unbind(), gap, score)
        else:
            torch.addmm(columns, centre, x.t(), beta=-1, alpha=2, out=score)
        array[:, n:] = -math.inf
        own = slice(start, start + rows * wide, wide + 1)
        array.reshape(-1)[own] = math.inf if plan.loop else -math.inf
        if groups:
            column, value = largest_by_groups(whole, wanted, groups, at, left)
        else:
            column, value = largest(whole, wanted, at)
        part = slice(start, start + rows)
        _write(arrays, part, column.numpy(), value.numpy(), first)
        start += rows


def _write(
    found: Sequence[Array | None], rows: slice, column: Array, score: Array, first: int
) -> None:
    """Do what :meth:`Found.write` does to some rows."""
    near, more, kept = found
    assert near is not None
    k, wanted = near.shape[1], column.shape[1]
    np.add(column[:, :k], first, out=near[rows, :wanted])
    if more is None or kept is None:
        return
    kept[rows] = score
    if wanted > k:
        np.add(column[:, k:], first, out=more[rows, : wanted - k])
    if wanted < k + MORE:  # there is no more
        kept[rows, wanted - k - MORE :] = -np.inf


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
