"""Means over all processes, so that how a batch is cut among them does not matter."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["global_mean", "share_of_process", "several_processes"]


def global_mean(total: Tensor, count: int | Tensor) -> Tensor:
    r"""Return this process's part of a mean over all processes.

    :class:`~torch.nn.parallel.DistributedDataParallel` averages gradients over processes, each of
    which counts the same however many nodes it has. The mean of what this function returns over the
    :math:`W` processes is the mean over all :math:`n` terms:

    .. math::
        \mathcal{L}_r = \frac{W}{n} \sum_{i \in r} \ell_i, \qquad
        \frac{1}{W} \sum_r \mathcal{L}_r = \frac{1}{n} \sum_i \ell_i

    Call it in every process, also where there are no terms. Without a process group it is the mean.

    Args:
        total (Tensor): The sum of the terms of this process, with gradients, a scalar.
        count (int or Tensor): Their number.

    Raises:
        ValueError: If :obj:`total` is no scalar.

    Example:
        >>> error = torch.tensor([1.0, 2.0, 6.0])
        >>> global_mean(error.sum(), error.numel())
        tensor(3.)
    """
    if total.dim() != 0:
        raise ValueError(f"'total' must be a scalar (got shape {list(total.shape)})")
    own = torch.as_tensor(count, dtype=torch.float64, device=total.device)
    every = own.clone()
    if several_processes():
        dist.all_reduce(every)
        every /= dist.get_world_size()
    return total / every.masked_fill(every == 0, 1.0).to(total.dtype)


def share_of_process(count: int, device: torch.device) -> Tensor:
    """Return the factor that makes a mean over the terms of one process its part of all.

    Example:
        >>> share_of_process(3, torch.device("cpu"))
        tensor(1., dtype=torch.float64)
    """
    return global_mean(torch.tensor(float(count), dtype=torch.float64, device=device), count)


def several_processes() -> bool:
    """Return whether this is one of several processes of torch.distributed."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
