"""Clouds of a batch: their sizes, their centres, and which are worked on together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = [
    "are_usual",
    "centred",
    "cloud_sizes",
    "has_tiny",
    "has_tiny_norm",
    "have_vanished",
    "in_range",
    "like_clouds",
    "square_norms",
]

# A call of its own costs a cloud as much as this share of a chunk of distances.
_CALL = 1 / 16
# Numbers that the second cache of a core holds.
_CACHE = 1 << 16


def cloud_sizes(num_points: int, batch: Tensor | None) -> list[int]:
    """Return the sizes of the clouds that have points; refuse clouds in several pieces."""
    if batch is None or num_points == 0:
        return [num_points] * (num_points > 0)
    cloud, size = batch.unique_consecutive(return_counts=True)
    if not bool((cloud[1:] > cloud[:-1]).all()):
        raise ValueError("'batch' must be sorted, so that each cloud is in one piece (got not)")
    return size.tolist()


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


def in_range(x: Tensor, tiny: bool) -> Tensor:
    """Return finite points, moved by a power of 2 to where squared distances are usual numbers.

    Points of which some are :obj:`tiny` are moved up, as far as their largest one allows.
    """
    if x.numel() == 0:
        return x
    low, high = x.aminmax()
    reach = float(torch.maximum(-low, high))
    if not reach < math.inf:  # NaN is not
        raise ValueError("'x' must be finite (got NaN or infinite values)")
    top = (math.frexp(torch.finfo(x.dtype).max)[1] - math.ceil(math.log2(x.size(1)))) // 2 - 3
    exponent = math.frexp(reach)[1]
    usual = -top // 2 < exponent <= top and not tiny
    if usual or reach == 0:
        return x
    steps = top - exponent
    return x * 2.0 ** (steps // 2) * 2.0 ** (steps - steps // 2)


def has_tiny(x: Tensor) -> bool:
    """Tell whether points are so near to 0 that squares of their gaps may lose digits."""
    size = x.abs()
    least = float(size.masked_fill_(size == 0, torch.inf).amin()) if x.numel() else 1.0
    info = torch.finfo(x.dtype)
    return least * info.eps < 2 * math.sqrt(info.tiny / info.eps)


def has_tiny_norm(norm: Tensor, x: Tensor) -> bool:
    """Tell whether points other than 0 are so near to it that their squares may lose digits."""
    info = torch.finfo(x.dtype)
    least = x.size(1) * info.tiny / info.eps
    if norm.numel() == 0 or float(norm.amin()) >= least:
        return False
    return bool((x[: norm.numel()][norm < least] != 0).any())


def have_vanished(scaled: Tensor, x: Tensor) -> bool:
    """Tell whether points lost coordinates when they were moved into range."""
    return scaled is not x and bool(((scaled == 0) & (x != 0)).any())


def are_usual(norm: Tensor) -> bool:
    """Tell whether squared norms, and sums of some, are far from both ends of their range."""
    most, info = float(norm.amax()) if norm.numel() else 0.0, torch.finfo(norm.dtype)
    return math.sqrt(info.tiny) < most < info.max / 64  # NaN is not


def centred(x: Tensor, starts: Sequence[int], move: bool, more: int) -> Tensor:
    """Return points, with some more of any value behind the last one.

    If :obj:`move` is set, each cloud goes to the origin, where float32 has more digits.
    """
    num_points, width = x.shape
    out = x.new_empty(num_points + more, width)
    out[num_points:] = 0
    if not move or num_points == 0:
        out[:num_points] = x
        return out
    size = starts[1]
    if starts == [*range(0, num_points + 1, size)]:  # clouds of one size: no copies of means
        given, moved = (part.unflatten(0, (-1, size)) for part in (x, out[:num_points]))
        torch.sub(given, given.mean(dim=1, keepdim=True), out=moved)
    else:
        start = torch.tensor(starts, device=x.device)
        every = torch.arange(num_points, device=x.device)
        mean = embedding_bag(every, x, start, mode="mean", include_last_offset=True)
        mean = mean.repeat_interleave(start.diff(), dim=0, output_size=num_points)
        torch.sub(x, mean, out=out[:num_points])
    return out


def square_norms(x: Tensor) -> Tensor:
    """Return the squared norms of points, a part that fits a cache after the other."""
    out = x.new_empty(x.size(0))
    step = max(1, _CACHE // x.size(1)) if x.device.type == "cpu" else max(1, x.size(0))
    for i in range(0, x.size(0), step):
        torch.sum(x[i : i + step].square(), dim=1, out=out[i : i + step])
    return out
