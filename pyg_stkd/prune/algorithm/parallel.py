"""Distillers in DistributedDataParallel: what is inside, and the same around what it became."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pyg_stkd import checks
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.prune.masked.processes import several

__all__ = ["apart", "inner", "wrapped_alike"]

_OPTIONS = (
    "device_ids",
    "output_device",
    "dim",
    "process_group",
    "find_unused_parameters",
    "gradient_as_bucket_view",
    "static_graph",
)


def inner(distiller: nn.Module) -> Distiller:
    """Return the distiller itself.

    Raises:
        TypeError: If there is none.
        ValueError: If there are several processes, and none averages the gradients.
    """
    is_parallel = isinstance(distiller, DistributedDataParallel)
    own: Any = distiller.module if is_parallel else distiller
    checks.instance("distiller", own, Distiller)
    if several() and not is_parallel:
        raise ValueError(
            "'distiller' must be in DistributedDataParallel where torch.distributed has several "
            "processes (got a plain one)"
        )
    return own


@contextmanager
def apart(distiller: Distiller) -> Iterator[None]:
    """Compute losses on what this process has, without waiting for others."""
    reduction = distiller.reduction
    distiller.reduction = "process"
    try:
        yield
    finally:
        distiller.reduction = reduction


def wrapped_alike(model: nn.Module, distiller: nn.Module) -> nn.Module:
    """Return a model in the wrapper of another, which must know the parameters of now."""
    if not isinstance(distiller, DistributedDataParallel):
        return model
    # torch has had two names for whether buffers are sent round.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    options = {name: getattr(distiller, name) for name in (*_OPTIONS, sync)}
    return type(distiller)(model, bucket_cap_mb=distiller.bucket_bytes_cap / 2**20, **options)
