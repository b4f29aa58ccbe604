"""The largest scores of each row, in an order that does not depend on chance."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["largest", "largest_by_groups", "largest_by_keys", "num_groups"]

# On CPU, NumPy sorts short rows several times faster than torch, which handles any stride.
Array = np.ndarray[Any, Any]
_LAST = np.iinfo(np.int64).max
_COLUMN = 0xFFFFFFFF
# Threads take turns at Python's lock and cost time to start: each wants as many scores, about.
_SHARE = 1 << 21


def largest(score: Tensor, k: int, at: list[int]) -> tuple[Tensor, Tensor]:
    """Return the columns of the k largest scores of each row, largest first, and some of these.

    Among equal scores the smaller column comes first, which topk does not promise.

    Args:
        score (Tensor): Scores, a row by row.
        k (int): How many are wanted.
        at (list[int]): Which of these scores are returned.
    """
    if score.dtype != torch.float32:
        value, column = score.sort(dim=1, descending=True, stable=True)
        return column[:, :k], value[:, at]
    if score.device.type != "cpu":
        return largest_by_keys(score, k, at)
    best, some = _largest(score.numpy(), k, at)
    return torch.from_numpy(best), torch.from_numpy(some)


def largest_by_keys(score: Tensor, k: int, at: list[int]) -> tuple[Tensor, Tensor]:
    """Do the same for float32 by one integer without ties: ordered bits, then the column."""
    bits = (score + 0.0).view(torch.int32)  # -0 and 0 are equal
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    last = score.size(1) - 1
    key = (bits.long() << 32) + (last - torch.arange(last + 1, device=score.device))
    column = last - (key.topk(k, dim=1).values & _COLUMN)
    return column, score.gather(1, column[:, at])


def num_groups(n: int, k: int) -> int:
    """Return how many groups the columns are split into, 0 if sorting all is as fast."""
    groups = 1 << math.ceil(math.log2(max(2.5 * k, 16)))
    return groups if n >= 4 * groups else 0


def largest_by_groups(
    score: Tensor, k: int, groups: int, at: list[int], left: Array | None = None
) -> tuple[Tensor, Tensor]:
    """Do the same on CPU in two exact steps: the k-th largest group maximum bounds the k-th score.

    Groups are strided, since near points are often stored side by side. What is left above the
    bound is flagged in :obj:`left`, if that is given.
    """
    num_rows, n = score.shape
    rest = n % groups
    top = score[:, : n - rest].unflatten(1, (-1, groups)).amax(dim=1)
    if rest:
        torch.maximum(top[:, :rest], score[:, n - rest :], out=top[:, :rest])
    left = np.empty((num_rows, n), dtype=bool) if left is None else left
    num_threads = min(torch.get_num_threads(), num_rows, score.numel() // _SHARE)
    if num_threads <= 1:
        column, value = _above_bound(score.numpy(), top.numpy(), left, k, at)
    else:
        parts = (np.array_split(part, num_threads) for part in (score.numpy(), top.numpy(), left))
        same = [k] * num_threads, [at] * num_threads
        with ThreadPoolExecutor(num_threads) as pool:
            found = zip(*pool.map(_above_bound, *parts, *same), strict=True)
            column, value = map(np.concatenate, found)
    return torch.from_numpy(column), torch.from_numpy(value)


def _above_bound(
    score: Array, top: Array, left: Array, k: int, at: list[int]
) -> tuple[Array, Array]:
    """Sort only the scores from the k-th largest group maximum on."""
    num_rows, n = score.shape
    groups = top.shape[1]
    top.partition(groups - k, axis=1)
    np.greater_equal(score, top[:, groups - k, None], out=left)
    # Few scores are left: look for words of eight flags before looking for flags.
    if n % 8:
        left = np.pad(left, ((0, 0), (0, -n % 8)))
    wide = left.shape[1]
    words = left.reshape(-1).view(np.int64)
    word = (words != 0).nonzero()[0]
    flag = words[word].view(bool).nonzero()[0]
    place = word[flag >> 3]
    place <<= 3
    place += flag & 7
    ends = place.searchsorted(np.arange(0, num_rows * wide + 1, wide))
    count = ends[1:] - ends[:-1]
    width = int(count.max())
    if width > n // 2:
        return _largest(score, k, at)
    start = np.arange(0, num_rows * wide, wide).repeat(count)  # of each one's row
    column = place - start
    if n % 8:
        place -= (wide - n) * (start // wide)
    value = score.reshape(-1).take(place)
    used = np.arange(width) < count[:, None]
    if score.dtype == np.float32:
        key = np.full((num_rows, width), _LAST)
        key[used] = _keys(value, column)
        key.sort(axis=1)
        return key[:, :k] & _COLUMN, _scores(key[:, at])
    negative = np.full((num_rows, width), math.inf, dtype=score.dtype)
    index = np.zeros((num_rows, width), dtype=np.int64)
    negative[used], index[used] = -value, column
    order = negative.argsort(axis=1, kind="stable")[:, :k]
    column = np.take_along_axis(index, order, axis=1)
    return column, -np.take_along_axis(negative, order[:, at], axis=1)


def _largest(score: Array, k: int, at: list[int]) -> tuple[Array, Array]:
    if score.dtype != np.float32:
        column = (-score).argsort(axis=1, kind="stable")[:, :k]
        return column, np.take_along_axis(score, column[:, at], axis=1)
    key = _keys(score, np.arange(score.shape[1]))
    key.partition(k - 1, axis=1)
    key = np.sort(key[:, :k], axis=1)
    return key & _COLUMN, _scores(key[:, at])


def _keys(score: Array, column: Array) -> Array:
    """Return integers without ties that ascend as scores fall, then as columns rise."""
    bits = (score + np.float32(0)).view(np.int32)  # -0 and 0 are equal
    bits ^= ~((bits >> 31) & 0x7FFFFFFF)
    return (bits.astype(np.int64) << 32) | column


def _scores(key: Array) -> Array:
    """Return the scores of keys."""
    bits = (key >> 32).astype(np.int32)
    bits ^= (bits >> 31) | np.int32(-(2**31))
    return bits.view(np.float32)
