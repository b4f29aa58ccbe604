"""Clouds of a batch: their sizes, their centres, and which are worked on together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["centred", "cloud_sizes", "like_clouds"]

# A call of its own costs a cloud as much as this share of a chunk of distances.
_CALL = 1 / 16


def cloud_sizes(num_points: int, batch: Tensor | None) -> list[int]:
    """Return the sizes of the clouds that have points; refuse clouds in several pieces."""
    if batch is None or num_points == 0:
        return [num_points] * (num_points > 0)
    if not bool((batch[1:] >= batch[:-1]).all()):
        raise ValueError("'batch' must be sorted, so that each cloud is in one piece (got not)")
    return batch.unique_consecutive(return_counts=True)[1].tolist()


def like_clouds(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Group clouds of about one size, largest first: padding them costs less than separate calls.

    Small clouds only (several make a chunk of :obj:`limit` distances), or clouds of one size.
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        n, m = sizes[groups[-1][0] if groups else i], sizes[i]
        small = 2 * n * n <= limit and n * n - m * m <= _CALL * limit
        if groups and (m == n or small):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def centred(x: Tensor, starts: Sequence[int], move: bool, more: int) -> Tensor:
    """Return checked points, with some more of any value behind the last one.

    If :obj:`move` is set, each cloud goes to the origin, where float32 has more digits.
    """
    num_points, width = x.shape
    if move and num_points > 0:
        every = torch.arange(num_points, device=x.device)
        start = torch.tensor(starts, device=x.device)
        mean = embedding_bag(every, x, start, mode="mean", include_last_offset=True)
        size = start.diff()
        size[-1] += more
        out = mean.repeat_interleave(size, dim=0, output_size=num_points + more)
        torch.sub(x, out[:num_points], out=out[:num_points])
        out[num_points:] = 0
    else:
        out = x.new_zeros(num_points + more, width)
        out[:num_points] = x
    # No copy of all points is needed to see that the usual ones are far from overflow.
    low, high = out.aminmax() if out.numel() > 0 else (out.new_zeros(()), out.new_zeros(()))
    reach = float(torch.maximum(-low, high))
    usual = 8 * width * reach * reach < torch.finfo(x.dtype).max
    # Twice: a sum of four such numbers must not overflow either.
    if not usual and not bool((out.square().sum(-1) * 4).isfinite().all()):
        raise ValueError(
            "'x' must be finite, with squared distances within the range of its dtype "
            "(got NaN, infinite or too large values)"
        )
    return out
