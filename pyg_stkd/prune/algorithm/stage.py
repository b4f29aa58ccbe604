"""One stage of Algorithm 1: score, prune, shrink, fine-tune, and go back if it went wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.training import (
    Batch,
    Criterion,
    Unpack,
    batches_of,
    of_models,
    total_loss,
)
from pyg_stkd.prune.algorithm.adapters import check_adapters, narrow_adapters
from pyg_stkd.prune.algorithm.compensate import add_means
from pyg_stkd.prune.algorithm.steps import check_calibration, fine_tune, measure, recalibrate
from pyg_stkd.prune.masked.compact import plain_copy
from pyg_stkd.prune.masked.pruned import Pruned
from pyg_stkd.prune.masked.snapshot import Snapshot
from pyg_stkd.prune.pruner import Pruner

__all__ = ["Algorithm", "Stage"]

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Validate = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Stage(Pruned):
    r"""The report of one stage: what :class:`Pruned` tells, and what came of it.

    Args:
        losses (dict): The mean loss of the last epoch and its terms.
        metric (float, optional): What :obj:`validate` said after fine-tuning.
        flops (int): Operations of the model's matrix products and convolutions for a batch.
        seconds (float): The time of one forward of that batch.
        attempts (tuple of float): Shares that were tried and rolled back.
    """

    losses: dict[str, float]
    metric: float | None
    flops: int
    seconds: float
    attempts: tuple[float, ...] = field(default=())


@dataclass
class Algorithm:
    """What the stages of :func:`~pyg_stkd.prune.distill_and_prune` share, its arguments."""

    distiller: Distiller
    pruner: Pruner
    loader: Iterable[Any]
    criterion: Criterion
    optimizer: MakeOptimizer
    calibration: int | Iterable[Any] | None
    validate: Validate | None
    guard: float | None
    max_rollbacks: int
    unpack: Unpack

    def __post_init__(self) -> None:
        check_calibration(self.calibration)
        check_adapters(self.distiller, self.pruner)

    def stage(self, epochs: int) -> Stage:
        """Do the next stage of the pruner."""
        pruner = self.pruner
        target = pruner.keep[pruner.stage]
        share = target
        attempts: list[float] = []
        before = self._metric() if self.guard is not None else None
        while True:
            left = pruner.spent
            snapshot = None if before is None else self._snapshot()
            losses, metric = self._attempt(share, epochs, shrink=before is None)
            if (
                snapshot is not None
                and self._is_worse(metric, before)
                and len(attempts) < self.max_rollbacks
            ):
                self._restore(snapshot)
                attempts.append(share)
                share = math.sqrt(left * share)
                continue
            if before is not None:
                self._shrink()
            if share <= target:
                break
            share = target
        pruner.stage += 1
        flops, seconds = measure(pruner.model, next(self._batches(1)))
        left_now = asdict(pruner.report(target))
        return Stage(
            **left_now, losses=losses, metric=metric, flops=flops, seconds=seconds,
            attempts=tuple(attempts),
        )  # fmt: skip

    def _attempt(
        self, share: float, epochs: int, shrink: bool
    ) -> tuple[dict[str, float], float | None]:
        """Prune to a share and fine-tune; return the losses of the last epoch and the metric."""
        student = self.pruner.model
        whole = plain_copy(student)
        self.pruner.step(self._losses(), share=share)
        add_means(student, whole, self._run)
        if shrink:
            self._shrink()
        recalibrate(student, lambda: self._run(student))
        losses: dict[str, float] = {}
        parameters = (p for p in self.distiller.parameters() if p.requires_grad)
        optimizer = self.optimizer(parameters)
        for _ in range(epochs):
            losses = fine_tune(self.distiller, self._batches(), self.criterion, optimizer)
        return losses, self._metric()

    def _losses(self) -> Iterator[Tensor]:
        for batch in self._calibration():
            yield total_loss(self.distiller, batch, self.criterion)[0]

    def _batches(self, count: int | None = None) -> Iterator[Batch]:
        return batches_of(self.loader, self.unpack, count)

    def _calibration(self) -> Iterator[Batch]:
        if self.calibration is None or isinstance(self.calibration, int):
            return self._batches(self.calibration)
        return batches_of(self.calibration, self.unpack)

    def _run(self, model: nn.Module) -> None:
        count = 0
        for args, kwargs, _ in self._calibration():
            model(*args, **of_models(kwargs))
            count += 1
        if count == 0:
            given = self.calibration is None or isinstance(self.calibration, int)
            raise ValueError(
                f"'{'loader' if given else 'calibration'}' must give at least one batch, each time "
                "that it is run through (got none)"
            )

    def _metric(self) -> float | None:
        if self.validate is None:
            return None
        self.distiller.eval()
        with torch.no_grad():
            return float(self.validate(self.pruner.model))

    def _is_worse(self, metric: float | None, before: float | None) -> bool:
        assert metric is not None
        assert before is not None
        assert self.guard is not None
        return not metric <= before + self.guard * abs(before)  # NaN is worse

    def _shrink(self) -> None:
        narrow_adapters(self.distiller, self.pruner)
        self.pruner.shrink()

    def _snapshot(self) -> tuple[Snapshot, dict[str, Tensor]]:
        if any(is_lazy(parameter) for parameter in self.distiller.parameters()):
            with torch.no_grad():  # adapters take their widths
                total_loss(self.distiller, next(self._calibration()), self.criterion)
        state = self.distiller.state_dict()
        values = {name: value.clone() for name, value in state.items() if not is_lazy(value)}
        return self.pruner.snapshot(), values

    def _restore(self, snapshot: tuple[Snapshot, dict[str, Tensor]]) -> None:
        masks, values = snapshot
        self.pruner.restore(masks)
        # Not strict: losses that do not count yet may still be lazy.
        self.distiller.load_state_dict(values, strict=False)
