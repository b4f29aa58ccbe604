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


def largest(score: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest scores of each row, largest (then smallest column) first.

    Ties are deterministic, which topk does not promise.
    """
    if score.dtype != torch.float32:
        return score.sort(dim=1, descending=True, stable=True).indices[:, :k]
    if score.device.type != "cpu":
        return largest_by_keys(score, k)
    return torch.from_numpy(_largest(score.numpy(), k))


def largest_by_keys(score: Tensor, k: int) -> Tensor:
    """Do the same for float32 by one integer without ties: ordered bits, then the column."""
    bits = (score + 0.0).view(torch.int32)  # -0 and 0 are equal
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    last = score.size(1) - 1
    key = (bits.long() << 32) + (last - torch.arange(last + 1, device=score.device))
    return last - (key.topk(k, dim=1).values & _COLUMN)


def num_groups(n: int, k: int) -> int:
    """Return how many groups the columns are split into, 0 if sorting all is as fast."""
    groups = 1 << math.ceil(math.log2(max(3 * k, 16)))
    return groups if n >= 4 * groups else 0


def largest_by_groups(score: Tensor, k: int, groups: int) -> Tensor:
    """Do the same on CPU in two exact steps: the k-th largest group maximum bounds the k-th score.

    Groups are strided, since near points are often stored side by side.
    """
    num_rows, n = score.shape
    rest = n % groups
    top = score[:, : n - rest].unflatten(1, (-1, groups)).amax(dim=1)
    if rest:
        torch.maximum(top[:, :rest], score[:, n - rest :], out=top[:, :rest])
    num_threads = min(torch.get_num_threads(), num_rows)
    if num_threads == 1:
        return torch.from_numpy(_above_bound(score.numpy(), top.numpy(), k))
    parts = (np.array_split(part.numpy(), num_threads) for part in (score, top))
    with ThreadPoolExecutor(num_threads) as pool:
        found = pool.map(_above_bound, *parts, [k] * num_threads)
        return torch.from_numpy(np.concatenate(list(found)))


def _above_bound(score: Array, top: Array, k: int) -> Array:
    """Sort only the scores from the k-th largest group maximum on."""
    num_rows, n = score.shape
    groups = top.shape[1]
    bound = np.partition(top, groups - k, axis=1)[:, groups - k, None]
    # Few scores are left: look for words of eight flags before looking for flags.
    left = score >= bound
    if n % 8:
        left = np.pad(left, ((0, 0), (0, -n % 8)))
    wide = left.shape[1]
    words = left.view(np.int64).ravel()
    word = np.flatnonzero(words != 0)
    flag = np.flatnonzero(words[word].view(bool))
    place = (word << 3)[flag >> 3] + (flag & 7)
    row = place // wide
    count = np.bincount(row, minlength=num_rows)
    width = int(count.max())
    if width > n // 2:
        return _largest(score, k)
    value = score.ravel().take(place - (wide - n) * row)
    column = place - wide * row
    used = np.arange(width) < count[:, None]
    if score.dtype == np.float32:
        key = np.full((num_rows, width), _LAST)
        key[used] = _keys(value, column)
        key.sort(axis=1)
        return key[:, :k] & _COLUMN
    negative = np.full((num_rows, width), math.inf, dtype=score.dtype)
    index = np.zeros((num_rows, width), dtype=np.int64)
    negative[used], index[used] = -value, column
    order = negative.argsort(axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, axis=1)


def _largest(score: Array, k: int) -> Array:
    if score.dtype != np.float32:
        return (-score).argsort(axis=1, kind="stable")[:, :k]
    key = _keys(score, np.arange(score.shape[1]))
    key.partition(k - 1, axis=1)
    return np.sort(key[:, :k], axis=1) & _COLUMN


def _keys(score: Array, column: Array) -> Array:
    """Return integers without ties that ascend as scores fall, then as columns rise."""
    bits = (score + np.float32(0)).view(np.int32)  # -0 and 0 are equal
    bits ^= ~((bits >> 31) & 0x7FFFFFFF)
    return (bits.astype(np.int64) << 32) | column
