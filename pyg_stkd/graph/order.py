"""Sorting indices, and pointers into what is sorted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pyg_stkd.graph.exporting import is_exporting

__all__ = ["fits_int32", "is_sorted", "pointers", "sort", "usable_in_training"]


def usable_in_training() -> AbstractContextManager[Any]:
    """Leave inference mode: a graph that an evaluation builds may be kept for training."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return nullcontext()
    return torch.inference_mode(False)


def fits_int32(*counts: int) -> bool:
    """Tell whether numbers up to these need 32 bits only: half the cost of every pass over them.

    A number that a compiler cannot know (of edges that are no loops, say) is taken to be small,
    and looked at when the compiled code runs, which raises a :class:`RuntimeError` if it is not.

    Example:
        >>> fits_int32(7, 2**31 - 1), fits_int32(2**31)
        (True, False)
    """
    if not torch.compiler.is_compiling():
        return max(counts) < 2**31
    from torch.fx.experimental.symbolic_shapes import guard_or_true

    for count in counts:
        if not guard_or_true(count < 2**31):
            return False
        torch._check(count < 2**31)
    return True


def is_sorted(index: Tensor) -> bool:
    """Tell whether no entry is below the one before it; the answer is read on the host."""
    return bool((index[1:] >= index[:-1]).all())


def sort(index: Tensor) -> tuple[Tensor, Tensor]:
    """Sort so that equal entries keep their order, also where a runtime has no stable sort."""
    if not is_exporting():
        values, perm = torch.sort(index, stable=True)
        return values, perm
    place = torch.arange(index.numel(), device=index.device)  # keys without ties
    perm = (index * index.numel() + place).sort().indices
    return index.index_select(0, perm), perm


def pointers(sorted_index: Tensor, size: int) -> Tensor:
    """Return where each of the numbers below :obj:`size` begins, and where the last ends."""
    if is_exporting():
        sorted_index = sorted_index.long()
        count = sorted_index.new_zeros(size + 1)
        return count.index_add(0, sorted_index + 1, torch.ones_like(sorted_index)).cumsum(0)
    return torch._convert_indices_from_coo_to_csr(
        sorted_index, size, out_int32=sorted_index.dtype == torch.int32
    )
