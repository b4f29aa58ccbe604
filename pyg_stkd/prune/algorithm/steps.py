"""What a stage of Algorithm 1 is made of: calibration, fine-tuning, measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pyg_stkd import checks
from pyg_stkd.distill.training import Batch, Criterion, of_models, total_loss
from pyg_stkd.modes import eval_mode
from pyg_stkd.prune.masked.cost import count_flops, latency
from pyg_stkd.prune.masked.processes import several, summed, together

__all__ = ["check_calibration", "fine_tune", "measure", "recalibrate"]


def fine_tune(
    distiller: nn.Module,
    batches: Iterable[tuple[Batch, bool]],
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, float], dict[str, float]]:
    """Train for one epoch and return the means of the loss and its terms.

    They are means over the processes too: those of labelled batches, and those of unlabelled ones.
    """
    distiller.train()
    sums: dict[bool, dict[str, float]] = {True: {}, False: {}}
    for batch, labelled in batches:
        optimizer.zero_grad()
        loss, terms = total_loss(distiller, batch, criterion if labelled else None)
        loss.backward()
        optimizer.step()
        total = sums[labelled]
        for name, value in {"count": loss.new_ones(()), "loss": loss, **terms}.items():
            total[name] = total.get(name, 0.0) + float(value.detach())
    if not sums[True]:
        raise ValueError("'loader' must give at least one batch (got none)")
    return _means(sums[True]), _means(sums[False])


def _means(sums: dict[str, float]) -> dict[str, float]:
    if not sums:
        return {}
    values = summed(torch.tensor(list(sums.values()), dtype=torch.float64)).tolist()
    means = {name: value / values[0] for name, value in zip(sums, values, strict=True)}
    del means["count"]
    return means


@torch.no_grad()
def recalibrate(model: nn.Module, run: Callable[[], None]) -> None:
    """Estimate the statistics of batch norms anew, as the mean over what :obj:`run` feeds in.

    Norms that see no batch, and all where :obj:`run` fails, keep the statistics that they have.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    ]
    if not norms:
        return
    momenta = {norm: norm.momentum for norm in norms}
    before = {norm: {k: v.clone() for k, v in _statistics(norm).items()} for norm in norms}
    counts = dict.fromkeys(norms, 0)

    def count(norm: _NormBase, _: Any) -> None:
        if counts[norm] == 0:
            norm.reset_running_stats()
        counts[norm] += 1
        norm.momentum = 1.0 / counts[norm]  # the mean over all batches

    handles = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        with eval_mode(model):
            for norm in norms:
                norm.train()
            with together():
                run()
        _share(counts)
    except BaseException:
        for norm, statistics in before.items():
            for key, value in _statistics(norm).items():
                value.copy_(statistics[key])
        raise
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def _share(counts: dict[_NormBase, int]) -> None:
    """Give the norms of all processes the mean of their statistics, over all their batches."""
    for norm, count in counts.items() if several() else ():
        total = int(summed(torch.tensor(count)))
        for value in _statistics(norm).values() if total else ():
            if value.is_floating_point():  # those of a norm that has seen nothing do not count
                seen = value * count if count else torch.zeros_like(value)
                value.copy_(summed(seen) / total)
            else:
                value.fill_(total)


def _statistics(norm: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in norm._buffers.items() if value is not None}


def measure(model: nn.Module, batch: Batch) -> tuple[int, float]:
    """Return the FLOPs and the seconds of one forward (see :mod:`pyg_stkd.prune.cost`)."""
    args, kwargs, _ = batch
    kwargs = of_models(kwargs)
    return count_flops(model, args, kwargs), latency(model, args, kwargs)


def check_calibration(calibration: Any) -> None:
    """Raise for what gives no batches, or gives them once: they are run through several times.

    Example:
        >>> check_calibration(2)
        >>> check_calibration([(1, 2), (3, 4)])
    """
    if calibration is None:
        return
    if isinstance(calibration, Integral):
        checks.count("calibration", calibration)
    elif not isinstance(calibration, Iterable) or isinstance(calibration, Iterator):
        raise TypeError(
            "'calibration' must be a number, or batches that can be run through more than once "
            f"(got {type(calibration).__name__})"
        )
    elif isinstance(calibration, Sized) and _length(calibration) == 0:
        raise ValueError("'calibration' must give at least one batch (got none)")


def _length(batches: Sized) -> int | None:
    try:
        return len(batches)
    except TypeError:  # a DataLoader of an IterableDataset
        return None
