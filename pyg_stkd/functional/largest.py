"""The largest scores of each row, in an order that does not depend on chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["largest", "largest_by_groups", "largest_by_keys", "num_groups"]


def largest(score: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest scores of each row, largest (then smallest column) first.

    A stable sort makes ties deterministic, which topk does not promise.
    """
    if score.device.type == "cpu" or score.dtype != torch.float32:
        return score.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return largest_by_keys(score, k)


def largest_by_keys(score: Tensor, k: int) -> Tensor:
    """Do the same for float32 by one integer without ties: ordered bits, then the column."""
    bits = (score + 0.0).view(torch.int32)  # -0 and 0 are equal
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    last = score.size(1) - 1
    key = (bits.long() << 32) + (last - torch.arange(last + 1, device=score.device))
    return last - (key.topk(k, dim=1).values & 0xFFFFFFFF)


def num_groups(n: int, k: int) -> int:
    """Return how many groups the columns are split into, 0 if sorting all is as fast."""
    groups = 1 << math.ceil(math.log2(max(3 * k, 16)))
    return groups if n >= 4 * groups else 0


def largest_by_groups(score: Tensor, k: int, groups: int) -> Tensor:
    """Do the same in two exact steps: the k-th largest of group maxima bounds the k-th score.

    Groups are strided, since near points are often stored side by side.
    """
    num_rows, n = score.shape
    top = score.view(num_rows, n // groups, groups).amax(dim=1)
    bound = top.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    group = _where(top >= bound)
    if group.numel() == num_rows * k:
        inside = torch.arange(0, n, groups, device=score.device).view(-1, 1)
        column = (inside + (group & (groups - 1)).view(num_rows, 1, k)).view(num_rows, -1)
        value = score.gather(1, column)  # ascending columns
        place = _where(value >= bound)
        row, column = place // column.size(1), column.view(-1).index_select(0, place)
    else:  # ties at the bound may be in further groups
        value, place = score, _where(score >= bound)
        row = place // n
        column = place - row * n
    # Few are left, in rows of different lengths: pad, and sort them.
    count = torch.bincount(row, minlength=num_rows)
    width = int(count.max())
    if width > n // 2:
        return largest(score, k)
    shift = torch.arange(0, num_rows * width, width, device=score.device) - (
        count.cumsum(0) - count
    )
    target = shift.index_select(0, row).add_(torch.arange(row.numel(), device=score.device))
    padded = score.new_full((num_rows * width,), -math.inf)
    padded.index_copy_(0, target, value.view(-1).index_select(0, place))
    index = column.new_zeros(num_rows * width).index_copy_(0, target, column)
    order = padded.view(num_rows, width).sort(dim=1, descending=True, stable=True).indices[:, :k]
    return index.view(num_rows, width).gather(1, order)


def _where(mask: Tensor) -> Tensor:
    return mask.view(-1).nonzero().view(-1)
