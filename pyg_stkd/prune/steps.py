"""What a stage of Algorithm 1 is made of: batches, calibration, fine-tuning, measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pyg_stkd.prune.cost import count_flops, latency

__all__ = [
    "Batch",
    "Unpack",
    "fine_tune",
    "measure",
    "of_models",
    "recalibrate",
    "total_loss",
    "unpack",
]

# Arguments, keyword arguments, target.
Batch: TypeAlias = tuple[Sequence[Any], Mapping[str, Any], Any]
Unpack: TypeAlias = Callable[[Any], Batch]

_OF_DISTILLER = ("nodes", "teacher", "teacher_args")


def unpack(batch: Any) -> Batch:
    r"""Return the model's arguments and the target of a batch.

    A :class:`~torch_geometric.data.Data` gives :obj:`x`, :obj:`edge_index` and :obj:`y`; a tuple
    all but its last entry, and that.

    Example:
        >>> unpack((1, 2, 3))
        ((1, 2), {}, 3)
    """
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[:-1], {}, batch[-1]
    if all(hasattr(batch, name) for name in ("x", "edge_index", "y")):
        return (batch.x, batch.edge_index), {}, batch.y
    raise TypeError(
        "'loader' must give tuples (*inputs, target) or Data with x, edge_index and y; else give "
        f"unpack=batch -> (args, kwargs, target) (got {type(batch).__name__})"
    )


def total_loss(
    distiller: nn.Module, batch: Batch, criterion: Callable[[Any, Any], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the full loss of a batch and its terms by name."""
    args, kwargs, target = batch
    out, losses = distiller(*args, target=target, **kwargs)
    task = criterion(out, target)
    terms = {"task": task, **losses}
    return task + sum(losses.values()), terms


def fine_tune(
    distiller: nn.Module,
    batches: Iterable[Batch],
    criterion: Callable[[Any, Any], Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, float]:
    """Train for one epoch and return the means of the loss and its terms."""
    distiller.train()
    sums: dict[str, float] = {}
    count = 0
    for batch in batches:
        optimizer.zero_grad()
        loss, terms = total_loss(distiller, batch, criterion)
        loss.backward()
        optimizer.step()
        count += 1
        for name, value in {"loss": loss, **terms}.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    if count == 0:
        raise ValueError("'loader' must give at least one batch (got none)")
    return {name: value / count for name, value in sums.items()}


@torch.no_grad()
def recalibrate(model: nn.Module, run: Callable[[], None]) -> None:
    """Estimate the statistics of batch norms anew, as the mean over what :obj:`run` feeds in."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    ]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        run()
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def measure(model: nn.Module, batch: Batch) -> tuple[int, float]:
    """Return the FLOPs and the seconds of one forward (see :mod:`pyg_stkd.prune.cost`)."""
    args, kwargs, _ = batch
    kwargs = of_models(kwargs)
    return count_flops(model, args, kwargs), latency(model, args, kwargs)


def of_models(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments without those that :class:`Distiller` keeps for itself.

    Example:
        >>> of_models({"edge_weight": 1, "nodes": [0], "teacher": {}})
        {'edge_weight': 1}
    """
    return {name: value for name, value in kwargs.items() if name not in _OF_DISTILLER}


def batches_of(loader: Iterable[Any], unpack: Unpack, count: int | None = None) -> Iterator[Batch]:
    """Return the batches of a loader, unpacked, at most :obj:`count` of them.

    Example:
        >>> list(batches_of([(1, 2), (3, 4)], unpack, count=1))
        [((1,), {}, 2)]
    """
    for i, batch in enumerate(loader):
        if count is not None and i >= count:
            return
        yield unpack(batch)
