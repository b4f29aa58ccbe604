"""Sorting indices, and pointers into what is sorted."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.index import index2ptr

from pyg_stkd.graph.exporting import is_exporting, is_transforming

__all__ = ["assumed", "fits_int32", "is_sorted", "places", "pointers", "sort", "usable_in_training"]


def usable_in_training() -> AbstractContextManager[Any]:
    """Leave inference mode: a graph that an evaluation builds may be kept for training."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return nullcontext()
    return torch.inference_mode(False)


def assumed(condition: bool) -> bool:
    """Return a comparison of sizes, true where a compiler cannot know them.

    Such a one (of edges that are no loops, say) is looked at when the compiled code runs, which
    raises a :class:`RuntimeError` if it is not true.

    Example:
        >>> assumed(3 > 1), assumed(1 > 1)
        (True, False)
    """
    if not torch.compiler.is_compiling():
        return condition
    from torch.fx.experimental import symbolic_shapes

    # Before torch 2.8 there is no such question: what cannot be known then breaks the graph.
    guard_or_true = getattr(symbolic_shapes, "guard_or_true", bool)
    if not guard_or_true(condition):
        return False
    torch._check(condition)
    return True


def fits_int32(*counts: int) -> bool:
    """Tell whether numbers up to these need 32 bits only: half the cost of every pass over them.

    Example:
        >>> fits_int32(7, 2**31 - 1), fits_int32(2**31)
        (True, False)
    """
    return all(assumed(count < 2**31) for count in counts)


def is_sorted(index: Tensor) -> bool:
    """Tell whether no entry is below the one before it; the answer is read on the host."""
    rises = index[1:] >= index[:-1]
    if type(rises) is Tensor and rises.device.type == "cpu" and not is_transforming():
        return bool(rises.numpy().all())  # in an eighth of the time
    return bool(rises.all())


def places(mask: Tensor) -> Tensor:
    """Return where a mask is set: on CPU by NumPy, in an eighth of the time.

    Example:
        >>> places(torch.tensor([True, False, True]))
        tensor([0, 2])
    """
    plain = type(mask) is Tensor and mask.device.type == "cpu"
    if plain and not torch.compiler.is_compiling() and not is_transforming():
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().view(-1)


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
    if torch.compiler.is_compiling():  # to which torch's own function would make the size constant
        rows = torch.arange(size + 1, dtype=sorted_index.dtype, device=sorted_index.device)
        narrow = sorted_index.dtype == torch.int32
        return torch.searchsorted(sorted_index, rows, out_int32=narrow)
    return index2ptr(sorted_index, size)
