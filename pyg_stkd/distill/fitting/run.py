"""A training of the recipe: what was asked for, where it is, and its next epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from pyg_stkd.distill.check import dry
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.fitting.batches import Batches
from pyg_stkd.distill.fitting.streams import on_unlabelled
from pyg_stkd.distill.training import Batch, Criterion, of_models, total_loss

__all__ = ["Epoch", "MakeOptimizer", "MakeScheduler", "Run", "Validate"]

MakeOptimizer: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler: TypeAlias = Callable[[torch.optim.Optimizer], LRScheduler]
Validate: TypeAlias = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Epoch:
    r"""The report of one epoch of :func:`~pyg_stkd.distill.fit`.

    Args:
        epoch (int): The number of the epoch, from 1.
        step (int): The steps done so far.
        losses (dict): The mean loss of its labelled steps and its terms, before :obj:`alpha`.
        unlabelled (dict): The same of its unlabelled steps.
        metric (float, optional): What :obj:`validate` said of the student.
        best (bool): Whether no weights before were better; of equals, the last are kept.
        lr (float): The learning rate of the last step.
    """

    epoch: int
    step: int
    losses: dict[str, float]
    unlabelled: dict[str, float]
    metric: float | None
    best: bool
    lr: float


@dataclass
class Run:
    """A training: what was asked for, and where it is."""

    distiller: Distiller
    batches: Batches
    criterion: Criterion | None
    validate: Validate | None
    steps: int
    every: int
    alpha: float | None
    share: float
    mode: str
    step: int = 0
    best_metric: float | None = None
    reports: list[dict[str, Any]] = field(default_factory=list)

    def look(self) -> None:
        """Raise for what would fail at the first step, or at the first validation."""
        with dry(self.distiller):
            self._look(True)
            if self.share > 0:
                try:
                    self._look(False)
                except (RuntimeError, TypeError, ValueError) as error:
                    kind = TypeError if isinstance(error, TypeError) else ValueError
                    raise kind(
                        "'unlabelled' must give what the models and losses take, as 'labelled' "
                        f"does (got {error})"
                    ) from error
        self.best_metric = self._metric()
        if self.best_metric is not None and not math.isfinite(self.best_metric):
            raise ValueError(f"'validate' must return a finite number (got {self.best_metric})")

    def _look(self, labelled: bool) -> None:
        try:
            self._loss(labelled, None)
        except (RuntimeError, TypeError) as error:
            reading = self.batches.reading
            if reading is None or not self._is_refused(self.batches.first(labelled)):
                raise
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"The models must take {reading}, or unpack=batch -> (args, kwargs, target) must "
                f"be given (got {error})"
            ) from error

    def _is_refused(self, batch: Batch) -> bool:
        """Return whether the student by itself does not run on a batch."""
        args, kwargs, _ = batch
        try:
            self.distiller.student(*args, **of_models(kwargs))
        except (RuntimeError, TypeError):
            return True
        return False

    def prepare(self, optimizer: Any, scheduler: MakeScheduler | None) -> None:
        """Make optimizer and scheduler, and keep the weights of now as the best."""
        own = [p for p in self.distiller.parameters() if p.requires_grad]
        if not own:
            raise ValueError(
                "'distiller' must have parameters that require gradients: a copy of a teacher that "
                "a Distiller froze needs .requires_grad_() (got none)"
            )
        if optimizer is None:
            optimizer = torch.optim.Adam(own, lr=0.005)
        elif callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer):
            optimizer = optimizer(own)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                "'optimizer' must be an optimizer, or make one of parameters "
                f"(got {type(optimizer).__name__})"
            )
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in held for p in own):
            raise ValueError("'optimizer' must have parameters of the distiller (got none of them)")
        self.optimizer = optimizer
        if scheduler is None:
            self.scheduler: LRScheduler = CosineAnnealingLR(optimizer, T_max=self.steps)
        else:
            self.scheduler = scheduler(optimizer)
            if not isinstance(self.scheduler, LRScheduler) or isinstance(
                self.scheduler, ReduceLROnPlateau
            ):
                raise TypeError(
                    "'scheduler' must make a scheduler that is stepped without a metric "
                    f"(got {type(self.scheduler).__name__})"
                )
        self.best_state = self._weights()

    def epoch(self) -> Epoch:
        """Train for one epoch."""
        number = len(self.reports)
        self.distiller.set_epoch(number)
        self.distiller.train()
        sums: dict[bool, dict[str, float]] = {True: {}, False: {}}
        counts = {True: 0, False: 0}
        lr = 0.0
        for _ in range(min(self.every, self.steps - self.step)):
            labelled = not on_unlabelled(self.step, self.share)
            lr = self.optimizer.param_groups[0]["lr"]
            self.optimizer.zero_grad()
            loss, terms = self._loss(labelled, self.batches.next(labelled))
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.step += 1
            counts[labelled] += 1
            for name, value in {"loss": loss, **terms}.items():
                sums[labelled][name] = sums[labelled].get(name, 0.0) + float(value.detach())
        means = {k: {n: v / counts[k] for n, v in total.items()} for k, total in sums.items()}
        metric = self._metric()
        best = metric is None or self._is_better(metric)
        if best:
            self.best_metric, self.best_state = metric, self._weights()
        return Epoch(number + 1, self.step, means[True], means[False], metric, best, lr)

    def _loss(self, labelled: bool, batch: Batch | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, of the first one to look at if none is given."""
        error = ValueError if batch is None else FloatingPointError
        batch = self.batches.first(labelled) if batch is None else batch
        criterion = self.criterion if labelled else None
        loss, terms = total_loss(self.distiller, batch, criterion, self.alpha)
        if loss.dim() > 0:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in terms.items())
            raise ValueError(f"'criterion' must return a scalar (got {shapes})")
        if not bool(loss.isfinite()):
            values = ", ".join(f"{name} {value.item()}" for name, value in terms.items())
            raise error(f"The loss must be finite at step {self.step + 1} (got {values})")
        return loss, terms

    def _metric(self) -> float | None:
        if self.validate is None:
            return None
        self.distiller.eval()
        with torch.no_grad():
            value = self.validate(self.distiller.student)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, Real):
            raise TypeError(f"'validate' must return a number (got {type(value).__name__})")
        return float(value)

    def _is_better(self, metric: float) -> bool:
        assert self.best_metric is not None
        # NaN is not; of equals the later one is.
        return metric <= self.best_metric if self.mode == "min" else metric >= self.best_metric

    def _weights(self) -> dict[str, Any]:
        return copy.deepcopy(self.distiller.student.state_dict())
