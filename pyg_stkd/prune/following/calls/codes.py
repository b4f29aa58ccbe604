"""Codes by which a few replays tell many channels apart."""

from __future__ import annotations

import math
from itertools import combinations, islice

import torch
from torch import Tensor

__all__ = ["channel_codes", "decode"]


def channel_codes(count: int) -> Tensor:
    """Return a code of bits for each of some channels: all of one weight, :obj:`[count, bits]`.

    None is part of another: where two channels meet, more bits are set than in any code.

    Example:
        >>> channel_codes(3)
        tensor([[ True, False, False],
                [False,  True, False],
                [False, False,  True]])
        >>> channel_codes(64).shape
        torch.Size([64, 8])
    """
    bits = 2
    while math.comb(bits, bits // 2) < count:
        bits += 1
    chosen = torch.tensor(list(islice(combinations(range(bits), bits // 2), count)))
    return torch.zeros(count, bits, dtype=torch.bool).scatter_(1, chosen, True)


def decode(codes: Tensor, seen: Tensor) -> Tensor:
    """Return which channel each entry has noticed: -1 for none, -2 for several.

    Args:
        codes (Tensor): What :func:`channel_codes` returned.
        seen (Tensor): For each entry the bits at which it changed, as one integer.

    Example:
        >>> decode(channel_codes(3), torch.tensor([0, 1, 4, 5]))
        tensor([-1,  0,  2, -2])
    """
    values = (codes.long() << torch.arange(codes.size(1))).sum(1)
    ordered, places = values.sort()
    found = torch.searchsorted(ordered, seen.contiguous()).clamp_(max=len(ordered) - 1)
    known = places[found]
    known = torch.where(ordered[found] == seen, known, torch.full_like(known, -2))
    return torch.where(seen == 0, torch.full_like(known, -1), known)
