"""One stage of Algorithm 1: score, prune, shrink, fine-tune, and go back if it went wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.fitting.batches import Batches
from pyg_stkd.distill.fitting.streams import Stream, interleave
from pyg_stkd.distill.training import (
    Batch,
    Criterion,
    Unpack,
    batches_of,
    of_models,
    total_loss,
    unpack,
)
from pyg_stkd.prune.algorithm.adapters import StudentMaps, check_adapters, narrow_adapters
from pyg_stkd.prune.algorithm.compensate import add_means
from pyg_stkd.prune.algorithm.parallel import apart, inner, wrapped_alike
from pyg_stkd.prune.algorithm.random_numbers import RandomNumbers
from pyg_stkd.prune.algorithm.rehearsal import maps_by_trial, needs_trial, rehearse
from pyg_stkd.prune.algorithm.steps import check_calibration, fine_tune, measure, recalibrate
from pyg_stkd.prune.compaction.compact import plain_copy
from pyg_stkd.prune.masked.processes import average, first, several
from pyg_stkd.prune.masked.pruned import Pruned
from pyg_stkd.prune.masked.snapshot import Snapshot
from pyg_stkd.prune.pruner import Pruner

__all__ = ["Algorithm", "MakeOptimizer", "Stage", "Validate"]

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
        unlabelled (dict): The mean loss of the last epoch's unlabelled batches and its terms.
    """

    losses: dict[str, float]
    metric: float | None
    flops: int
    seconds: float
    attempts: tuple[float, ...] = field(default=())
    unlabelled: dict[str, float] = field(default_factory=dict)


class _Called(nn.Module):
    """A model that is run as the student is."""

    def __init__(self, distiller: Distiller, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.call = distiller.call_student

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.model, *args, **kwargs)


@dataclass
class Algorithm:
    """What the stages of :func:`~pyg_stkd.prune.distill_and_prune` share, its arguments."""

    wrapper: nn.Module  # the distiller, or that in DistributedDataParallel
    pruner: Pruner
    loader: Iterable[Any]
    criterion: Criterion
    optimizer: MakeOptimizer
    calibration: int | Iterable[Any] | None
    validate: Validate | None
    guard: float | None
    max_rollbacks: int
    unpack: Unpack
    unlabelled: Iterable[Any] | None = None
    share: float = 0.5

    def __post_init__(self) -> None:
        self.distiller = inner(self.wrapper)
        check_calibration(self.calibration)
        if isinstance(self.calibration, Integral):
            self.calibration = int(self.calibration)
        self._kinds: Batches | None = None
        if self.unlabelled is not None:
            own = None if self.unpack is unpack else self.unpack
            self._kinds = Batches(self.loader, self.unlabelled, own, None)
        self.numbers = RandomNumbers(
            self.loader, self.calibration, self.unlabelled, self.pruner.importance
        )
        self.maps: StudentMaps = {}
        by_trial = needs_trial(self.distiller)
        if not by_trial:
            check_adapters(self.distiller, self.pruner)
        batch = self._look()
        if batch is not None and by_trial:
            self.maps = maps_by_trial(self.distiller, batch)
        check_adapters(self.distiller, self.pruner, self.maps)
        if batch is not None and self.pruner.groups:
            rehearse(self.distiller, self.pruner, batch, self.maps)

    def _look(self) -> Batch | None:
        """Return a batch to try things on, random numbers as before; none of what gives it once."""
        source = self.loader if isinstance(self.calibration, int) else self.calibration
        if isinstance(self.loader if source is None else source, Iterator):
            return None
        before = self.numbers.state()
        try:
            return next(self._calibration(), None)
        finally:
            self.numbers.restore(before)

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
            losses, unlabelled, metric = self._attempt(share, epochs, shrink=before is None)
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
        flops, seconds = first(
            measure(_Called(self.distiller, pruner.model), next(self._batches(1)))
        )
        left_now = asdict(pruner.report(target))
        return Stage(
            **left_now, losses=losses, metric=metric, flops=flops, seconds=seconds,
            attempts=tuple(attempts), unlabelled=unlabelled,
        )  # fmt: skip

    def _attempt(
        self, share: float, epochs: int, shrink: bool
    ) -> tuple[dict[str, float], dict[str, float], float | None]:
        """Prune to a share and fine-tune; return the losses of the last epoch and the metric."""
        student = self.pruner.model
        whole = plain_copy(student)
        self.pruner.step(self._losses(), share=share)
        add_means(student, whole, self._run)
        if shrink:
            self._shrink()
        recalibrate(student, lambda: self._run(student))
        losses: dict[str, float] = {}
        unlabelled: dict[str, float] = {}
        parameters = (p for p in self.distiller.parameters() if p.requires_grad)
        optimizer = self.optimizer(parameters)
        wrapped = wrapped_alike(self.distiller, self.wrapper)
        # Begun anew in each stage, so that a checkpoint need not hold a place in it.
        stream = None if self.unlabelled is None else Stream(self.unlabelled, "unlabelled")
        for _ in range(epochs):
            batches = self._epoch(stream)
            losses, unlabelled = fine_tune(wrapped, batches, self.criterion, optimizer)
        for buffer in self.distiller.buffers() if several() else ():
            buffer.data.copy_(first(buffer.data))  # what norms saw last differs
        return losses, unlabelled, self._metric()

    def _epoch(self, stream: Stream | None) -> Iterator[tuple[Batch, bool]]:
        """Return the batches of an epoch, and whether they are labelled."""
        if stream is None:
            yield from ((batch, True) for batch in self._batches())
            return
        assert self._kinds is not None
        for batch, labelled in interleave(self.loader, stream, self.share):
            item = self.unpack(batch) if labelled else self._kinds.read(batch, False)
            yield item, labelled

    def _losses(self) -> Iterator[Tensor]:
        for batch in self._calibration():
            with apart(self.distiller):  # the scores are averaged, not the losses
                loss, _ = total_loss(self.distiller, batch, self.criterion)
            yield loss

    def _batches(self, count: int | None = None) -> Iterator[Batch]:
        return batches_of(self.loader, self.unpack, count)

    def _calibration(self) -> Iterator[Batch]:
        if self.calibration is None or isinstance(self.calibration, int):
            return self._batches(self.calibration)
        return batches_of(self.calibration, self.unpack)

    def _run(self, model: nn.Module) -> None:
        count = 0
        for args, kwargs, _ in self._calibration():
            self.distiller.call_student(model, *args, **of_models(kwargs))
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
            value = float(self.validate(self.pruner.model))
        return float(average({"": torch.tensor(value, dtype=torch.float64)})[""])

    def _is_worse(self, metric: float | None, before: float | None) -> bool:
        assert metric is not None
        assert before is not None
        assert self.guard is not None
        return not metric <= before + self.guard * abs(before)  # NaN is worse

    def _shrink(self) -> None:
        narrow_adapters(self.distiller, self.pruner, self.maps)
        self.pruner.shrink()

    def _snapshot(self) -> tuple[Snapshot, dict[str, Tensor]]:
        if any(is_lazy(parameter) for parameter in self.distiller.parameters()):
            with torch.no_grad(), apart(self.distiller):  # adapters take their widths
                total_loss(self.distiller, next(self._calibration()), self.criterion)
        state = self.distiller.state_dict()
        values = {name: value.clone() for name, value in state.items() if not is_lazy(value)}
        return self.pruner.snapshot(), values

    def _restore(self, snapshot: tuple[Snapshot, dict[str, Tensor]]) -> None:
        masks, values = snapshot
        self.pruner.restore(masks)
        # Not strict: losses that do not count yet may still be lazy.
        self.distiller.load_state_dict(values, strict=False)
