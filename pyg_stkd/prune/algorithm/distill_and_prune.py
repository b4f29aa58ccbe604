"""Algorithm 1: distil and prune, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from pyg_stkd import checks
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.training import Criterion, Unpack, unpack
from pyg_stkd.prune.algorithm.checkpoint import check_path, load_stages, save_stages
from pyg_stkd.prune.algorithm.parallel import inner
from pyg_stkd.prune.algorithm.stage import Algorithm, MakeOptimizer, Stage, Validate
from pyg_stkd.prune.masked.processes import first
from pyg_stkd.prune.pruner import Pruner
from pyg_stkd.prune.structure.example import unwrap

__all__ = ["distill_and_prune"]


def distill_and_prune(
    distiller: Distiller | DistributedDataParallel,
    pruner: Pruner,
    loader: Iterable[Any],
    criterion: Criterion,
    *,
    optimizer: MakeOptimizer,
    epochs: int | Iterable[int] = 10,
    calibration: int | Iterable[Any] | None = None,
    validate: Validate | None = None,
    guard: float | None = None,
    max_rollbacks: int = 2,
    checkpoint: str | Path | None = None,
    unpack: Unpack = unpack,
    unlabelled: Iterable[Any] | None = None,
    share: float = 0.5,
) -> Iterator[Stage]:
    r"""Distil and prune, Algorithm 1, as a generator that yields the report of each stage.

    Each stage scores the student on calibration batches (in eval mode, with the full loss
    :math:`\mathcal{L}` of task and distillation), prunes it to the next share of
    :obj:`pruner.keep`, makes it small, estimates batch norms anew, and fine-tunes it with
    :math:`\mathcal{L}` and a new optimizer. Train the student before the first stage. With
    :obj:`granularity="weight"` the masks stay.

    Under :mod:`torch.distributed` every process calls it, with batches of its own and the distiller
    in :class:`~torch.nn.parallel.DistributedDataParallel`. Scores, means, statistics, losses and
    metrics are averaged over the processes, and all keep the same channels. The wrapper that was
    given knows the parameters of before: afterwards wrap the distiller in it anew.

    Args:
        distiller (Distiller): Teacher, student and losses, wrapped or not.
        pruner (Pruner): A pruner of the distiller's student.
        loader (iterable): Batches, of tuples :obj:`(*inputs, target)` or
            :class:`~torch_geometric.data.Data`, read as :func:`~pyg_stkd.distill.fit` reads them:
            with :obj:`train_mask` the task's loss counts its nodes alone.
        criterion (callable): The task loss, of output and target.
        optimizer (callable): Makes an optimizer of parameters.
        epochs (int or list of int): Epochs of fine-tuning, or of each stage. The last stage
            deserves the most. (default: :obj:`10`)
        calibration (int or iterable, optional): The number of batches to score on, or such
            batches. (default: all of :obj:`loader`)
        validate (callable, optional): Returns a metric of the student, lower is better.
        guard (float, optional): By how much of its value before a stage the metric may rise;
            beyond it the stage is rolled back and a share halfway (geometrically) tried first.
            (default: never)
        max_rollbacks (int): How often a stage may be rolled back. (default: :obj:`2`)
        checkpoint (str, optional): A file that is written after each stage. Where it exists, the
            stages in it are not done again, given the same distiller and pruner at their start.
            The random numbers of torch, NumPy and Python are in it, and those of the generators
            that loaders and the score hold: the end is as if there had been no interruption.
        unpack (callable, optional): Returns :obj:`(args, kwargs, target)` of a batch.
        unlabelled (iterable, optional): Batches of the same kind without labels, for fine-tuning.
            They take turns with those of :obj:`loader`, and the distiller's losses alone count on
            them; a list is gone through in random order. (default: :obj:`None`)
        share (float): The share of steps that are on unlabelled batches, below 1.
            (default: :obj:`0.5`)

    Raises:
        TypeError: If :obj:`distiller` is none, or batches cannot be read.
        ValueError: If the pruner's model is not the student, an option does not fit, the losses
            cannot follow the student, or the checkpoint is damaged, that of another model or
            cannot be written. Nothing is pruned then.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from pyg_stkd.distill import Distiller, SoftTargetLoss
        >>> from pyg_stkd.prune import Magnitude
        >>> teacher, student = GCN(4, 16, 2, 3), GCN(4, 32, 3, 3)
        >>> distiller = Distiller(teacher, student, [SoftTargetLoss()])
        >>> pruner = Pruner(student, Magnitude(), keep=(0.5, 0.3))
        >>> x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> loader = [(x, torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), y)]
        >>> for stage in distill_and_prune(
        ...     distiller, pruner, loader, torch.nn.functional.cross_entropy,
        ...     optimizer=torch.optim.Adam, epochs=1,
        ... ):
        ...     print(stage.stage, stage.share <= stage.target, sorted(stage.losses))
        1 True ['loss', 'soft_target', 'task']
        2 True ['loss', 'soft_target', 'task']
    """
    if unwrap(inner(distiller).student) is not pruner.model:
        raise ValueError("'pruner' must be one of the distiller's student (got another model)")
    stages = len(pruner.keep)
    per_stage = list(epochs) if isinstance(epochs, Iterable) else [epochs] * stages
    per_stage = [checks.count("epochs", number, least=0) for number in per_stage]
    if len(per_stage) != stages:
        raise ValueError(f"'epochs' must be a number, or one for each stage (got {per_stage})")
    if guard is not None:
        checks.number("guard", guard, least=0)
        if validate is None:
            raise ValueError(f"'guard' must come with 'validate' (got {guard})")
    checks.count("max_rollbacks", max_rollbacks, least=0)
    checks.number("share", share, least=0, below=1)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        check_path(path)
    run = Algorithm(
        distiller, pruner, loader, criterion, optimizer, calibration, validate, guard,
        max_rollbacks, unpack, unlabelled, share,
    )  # fmt: skip
    return _stages(run, per_stage, path)


def _stages(run: Algorithm, epochs: list[int], path: Path | None) -> Iterator[Stage]:
    reports: list[Stage] = []
    numbers = run.numbers
    if path is not None and first(path.exists()):
        reports, state = load_stages(path, run.distiller, run.pruner, run.maps, numbers)
        yield from reports[:-1]
        # What comes next draws the numbers that it would have drawn without an interruption: also
        # whoever is given the last report.
        if state is not None:
            numbers.restore(state)
        yield reports[-1]
    while run.pruner.stage < len(run.pruner.keep):
        reports.append(run.stage(epochs[run.pruner.stage]))
        if path is not None:
            save_stages(path, run.distiller, run.pruner, reports, numbers)
        yield reports[-1]
