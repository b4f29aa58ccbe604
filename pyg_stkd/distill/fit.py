"""The recipe: distil on labelled and unlabelled inputs in one call."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from pyg_stkd import checks
from pyg_stkd.distill.cache import TeacherCache
from pyg_stkd.distill.check import dry
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.fit_batches import Batches
from pyg_stkd.distill.fit_file import load_fit, save_fit
from pyg_stkd.distill.streams import on_unlabelled
from pyg_stkd.distill.training import Criterion, Unpack, total_loss

__all__ = ["Epoch", "fit", "Run"]

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


def fit(
    distiller: Distiller,
    labelled: Iterable[Any],
    unlabelled: Iterable[Any] | None = None,
    *,
    criterion: Criterion | None = None,
    validate: Validate | None = None,
    steps: int,
    optimizer: torch.optim.Optimizer | MakeOptimizer | None = None,
    scheduler: MakeScheduler | None = None,
    alpha: float | None = None,
    share: float = 0.5,
    every: int | None = None,
    mode: Literal["min", "max"] = "min",
    cache: bool | str | Path | TeacherCache = True,
    checkpoint: str | Path | None = None,
    unpack: Unpack | None = None,
) -> Iterator[Epoch]:
    r"""Train a student by the recipe, as a generator that yields the report of each epoch.

    Labelled and unlabelled batches take turns at a fixed number of steps: on the first the task's
    loss and the distiller's losses count, on the second the distiller's alone. The learning rate
    falls by half a cosine, and at the end, or where the loop over the epochs is left, the student
    has the weights that were best on validation, those that it came with included. Without losses
    of its own (``Distiller(teacher, student)``) a distiller compares outputs as numbers.

    Batches are tuples :obj:`(*inputs, target)`, the target left out in unlabelled ones if you
    like, or :class:`~torch_geometric.data.Data` with :obj:`x`, :obj:`edge_index` and :obj:`y`. With
    :obj:`train_mask` the task's loss counts its nodes and the distiller's losses all: the other
    nodes of a graph are its unlabelled part. In a batch of a
    :class:`~torch_geometric.loader.NeighborLoader` its seeds count alone.

    Args:
        distiller (Distiller): Teacher, student and losses.
        labelled (iterable): Batches with labels, given again in each pass. A list is gone through
            in random order.
        unlabelled (iterable, optional): Batches of the same kind without labels.
            (default: :obj:`None`)
        criterion (callable, optional): The task's loss, of output and target, which only
            :obj:`alpha=1` goes without. (default: :obj:`None`)
        validate (callable, optional): Returns a metric of the student, lower is better unless
            :obj:`mode="max"`. It runs before the first step and after each epoch, in eval mode
            and without gradients. (default: the last weights stay)
        steps (int): Steps of the optimizer in all, at least 1.
        optimizer (callable or Optimizer, optional): Makes an optimizer of parameters, or is one
            that has those of the distiller. (default: Adam at 0.005)
        scheduler (callable, optional): Makes a scheduler of the optimizer that is stepped after
            each step. (default: half a cosine to 0)
        alpha (float, optional): The share of the teacher in the loss of a labelled batch,
            :math:`(1 - \alpha) \mathcal{L}_y + \alpha \sum_k \mathcal{L}_k`; at 1 no label is
            looked at. (default: the plain sum)
        share (float): The share of steps that are on unlabelled batches, from 0 to 1.
            (default: :obj:`0.5`)
        every (int, optional): The steps of an epoch. (default: a fiftieth of :obj:`steps`)
        mode (str): :obj:`"max"` if a higher metric is better. (default: :obj:`"min"`)
        cache (bool, str or TeacherCache): Whether the teacher runs on each batch of a list once
            only, and what the losses need of it is kept in memory. Switch it off where that is too
            much, or batches in a list are changed in place. A folder keeps it on disk, for later
            runs on the same lists; a cache of one's own may also serve several students of a
            teacher. (default: :obj:`True`)
        checkpoint (str, optional): A file that is written after each epoch. Where it exists,
            training goes on from it and ends as it would have without an interruption.
        unpack (callable, optional): Returns :obj:`(args, kwargs, target)` of a batch of any other
            kind; the target of an unlabelled one does not count. Among :obj:`kwargs` may be what
            the distiller takes, such as :obj:`teacher_args` and :obj:`nodes`.

    Raises:
        TypeError: If an argument is of another type, a wrapped distiller among them (several
            processes need a loop of their own), or batches cannot be read.
        ValueError: Before the first step, if an option is out of its range, a loader is empty or
            unlike the other, outputs do not fit, a loss or :obj:`validate` is not finite, or
            the checkpoint is that of another training.
        FloatingPointError: If a loss is not finite later on.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from pyg_stkd import Distiller
        >>> x, edge_index = torch.randn(6, 4), torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
        >>> y, test = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([4, 5])
        >>> distiller = Distiller(GCN(4, 16, 2, 3), GCN(4, 4, 2, 3))
        >>> def validate(student):
        ...     return float((student(x, edge_index)[test].argmax(-1) != y[test]).float().mean())
        >>> epochs = fit(
        ...     distiller, labelled=[(x, edge_index, y)], unlabelled=[(2 * x, edge_index)],
        ...     criterion=torch.nn.functional.cross_entropy, validate=validate, steps=20, every=10,
        ... )
        >>> for epoch in epochs:
        ...     print(epoch.epoch, epoch.step, sorted(epoch.losses), sorted(epoch.unlabelled))
        1 10 ['loss', 'output', 'task'] ['loss', 'output']
        2 20 ['loss', 'output', 'task'] ['loss', 'output']
    """
    if isinstance(distiller, DistributedDataParallel):
        raise TypeError(
            "'distiller' must be a Distiller: fit trains in one process. For several, write the "
            "loop, as examples/distributed.py does (got DistributedDataParallel)"
        )
    checks.instance("distiller", distiller, Distiller)
    steps = checks.count("steps", steps)
    every = checks.count("every", max(1, round(steps / 50)) if every is None else every)
    share = 0.0 if unlabelled is None else checks.number("share", share, least=0, most=1)
    alpha = None if alpha is None else checks.number("alpha", alpha, least=0, most=1)
    checks.choice("mode", mode, ("min", "max"))
    for name, call in (("criterion", criterion), ("validate", validate), ("unpack", unpack)):
        if call is not None and not callable(call):
            raise TypeError(f"'{name}' must be callable (got {type(call).__name__})")
    if criterion is None and alpha != 1:
        raise ValueError(f"'criterion' must be given unless alpha=1 (got None and alpha={alpha})")
    batches = Batches(labelled, unlabelled, unpack, _cache(distiller, cache))
    run = Run(distiller, batches, criterion, validate, steps, every, alpha, share, mode)
    run.look()
    run.prepare(optimizer, scheduler)
    return run.epochs(None if checkpoint is None else Path(checkpoint))


def _cache(distiller: Distiller, given: bool | str | Path | TeacherCache) -> TeacherCache | None:
    """Return what keeps the teacher's word, if anything is asked of it."""
    if isinstance(given, TeacherCache):
        if not given.serves(distiller):
            raise ValueError(
                "'cache' must keep what the distiller asks of its teacher (got that of another "
                "teacher, or without some of the layers)"
            )
    elif not isinstance(given, (bool, str, Path)):
        raise TypeError(
            f"'cache' must be a bool, a folder or a TeacherCache (got {type(given).__name__})"
        )
    if given is False or len(distiller.losses) == 0:
        return None
    if isinstance(given, TeacherCache):
        return given
    return TeacherCache(distiller, None if given is True else given)


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
            for labelled in (True, False) if self.share > 0 else (True,):
                self._loss(labelled, None)
        self.best_metric = self._metric()
        if self.best_metric is not None and not math.isfinite(self.best_metric):
            raise ValueError(f"'validate' must return a finite number (got {self.best_metric})")

    def prepare(self, optimizer: Any, scheduler: MakeScheduler | None) -> None:
        """Make optimizer and scheduler, and keep the weights of now as the best."""
        own = [p for p in self.distiller.parameters() if p.requires_grad]
        if optimizer is None:
            optimizer = torch.optim.Adam(own, lr=0.005)
        elif not isinstance(optimizer, torch.optim.Optimizer):
            optimizer = optimizer(own)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in held for p in own):
            raise ValueError("'optimizer' must have parameters of the distiller (got none of them)")
        self.optimizer = optimizer
        if scheduler is None:
            self.scheduler: LRScheduler = CosineAnnealingLR(optimizer, T_max=self.steps)
        else:
            self.scheduler = scheduler(optimizer)
        self.best_state = self._weights()

    def epochs(self, path: Path | None) -> Iterator[Epoch]:
        """Train, and give the student its best weights in the end."""
        if path is not None and path.exists():
            load_fit(path, self)
            yield from (Epoch(**report) for report in self.reports)
        try:
            while self.step < self.steps:
                epoch = self._epoch()
                self.reports.append(asdict(epoch))
                if path is not None:
                    save_fit(path, self)
                yield epoch
        finally:
            if self.validate is not None:
                self.distiller.student.load_state_dict(self.best_state)

    def _epoch(self) -> Epoch:
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

    def _loss(self, labelled: bool, item: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, of the first one to look at if none is given."""
        error = ValueError if item is None else FloatingPointError
        item = self.batches.first(labelled) if item is None else item
        criterion = item.task(self.criterion) if labelled and self.criterion is not None else None
        loss, terms = total_loss(self.distiller, item.batch, criterion, self.alpha)
        if loss.dim() > 0 or not bool(loss.isfinite()):
            values = ", ".join(f"{name} {value.tolist()}" for name, value in terms.items())
            if loss.dim() > 0:
                raise ValueError(f"'criterion' must return a scalar (got {values})")
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
