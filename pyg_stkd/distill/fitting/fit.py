"""The recipe: distil on labelled and unlabelled inputs in one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.parallel import DistributedDataParallel

from pyg_stkd import checks
from pyg_stkd.distill.cache import TeacherCache
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.fitting.batches import Batches
from pyg_stkd.distill.fitting.file import load_fit, save_fit
from pyg_stkd.distill.fitting.run import Epoch, MakeOptimizer, MakeScheduler, Run, Validate
from pyg_stkd.distill.training import Criterion, Unpack

__all__ = ["fit"]


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
            looked at, and none need be there: Data may be without :obj:`y`, the target of tuples
            may be :obj:`None`. (default: the plain sum)
        share (float): The share of steps that are on unlabelled batches, from 0 to 1.
            (default: :obj:`0.5`)
        every (int, optional): The steps of an epoch. (default: a fiftieth of :obj:`steps`, or as
            many as have steps of both kinds)
        mode (str): :obj:`"max"` if a higher metric is better. Where no weights were better than
            those before the first step, as with the wrong one, a warning says so.
            (default: :obj:`"min"`)
        cache (bool, str or TeacherCache): Whether the teacher runs on each batch of a list once
            only, and what the losses need of it is kept in memory. Switch it off where that is too
            much, or batches in a list are changed in place. A folder keeps it on disk, for later
            runs on the same lists; a cache of one's own may also serve several students of a
            teacher. Either needs lists: batches of a DataLoader are not known again.
            (default: :obj:`True`)
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
    share = 0.0 if unlabelled is None else checks.number("share", share, least=0, most=1)
    every = checks.count("every", _epoch(steps, share) if every is None else every)
    alpha = None if alpha is None else checks.number("alpha", alpha, least=0, most=1)
    checks.choice("mode", mode, ("min", "max"))
    for name, call in (("criterion", criterion), ("validate", validate), ("unpack", unpack)):
        if call is not None and not callable(call):
            raise TypeError(f"'{name}' must be callable (got {type(call).__name__})")
    if criterion is None and alpha != 1:
        raise ValueError(f"'criterion' must be given unless alpha=1 (got None and alpha={alpha})")
    batches = Batches(labelled, unlabelled, unpack, _cache(distiller, cache), alpha != 1)
    if not isinstance(cache, bool) and not batches.listed:
        raise ValueError(
            "'cache' must be given with batches in lists: those of other loaders are not known "
            f"again (got a loader of type {type(labelled).__name__})"
        )
    run = Run(distiller, batches, criterion, validate, steps, every, alpha, share, mode)
    run.look()
    run.prepare(optimizer, scheduler)
    return _train(run, None if checkpoint is None else Path(checkpoint))


def _epoch(steps: int, share: float) -> int:
    """Return the steps of an epoch, both kinds among them unless one is rare."""
    rarer = min(share, 1 - share)
    both = math.ceil(1 / rarer) if rarer >= 0.1 else 1
    return min(steps, max(round(steps / 50), both))


def _train(run: Run, path: Path | None) -> Iterator[Epoch]:
    """Train, and give the student its best weights in the end."""
    if path is not None and path.exists():
        load_fit(path, run)
        yield from (Epoch(**report) for report in run.reports)
    try:
        while run.step < run.steps:
            epoch = run.epoch()
            run.reports.append(asdict(epoch))
            if path is not None:
                save_fit(path, run)
            yield epoch
        _warn_if_none_was_better(run)
    finally:
        if run.validate is not None:
            run.distiller.student.load_state_dict(run.best_state)


def _warn_if_none_was_better(run: Run) -> None:
    """Warn where the student ends with the weights that it began with: nothing else would tell."""
    if run.validate is None or any(report["best"] for report in run.reports):
        return
    last = run.reports[-1]["metric"]
    other = ("an error", "smaller", "min") if run.mode == "max" else ("a score", "larger", "max")
    warnings.warn(
        f"No weights of this training were better on 'validate' than those before it (mode="
        f"{run.mode!r}: {run.best_metric:.4g} before, {last:.4g} at the end), which the student "
        f"has again: if it is {other[0]}, better when {other[1]}, it needs mode='{other[2]}'",
        stacklevel=3,
    )


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
