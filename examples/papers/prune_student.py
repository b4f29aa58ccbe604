"""What the pruning example trains: fixed batches, a teacher that is asked once, a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import traffic
from experiment import passes
from torch import Tensor, nn
from traffic_task import Task

from pyg_stkd import Distiller
from pyg_stkd.distill import OutputLoss, ResponseLoss, TeacherCache
from pyg_stkd.metrics import masked_mae


class Batches:
    """Batches that students train on, the same windows together, in a new order each time.

    An epoch has as many steps as the whole training part has batches, however many have labels, or
    a share of these.
    """

    def __init__(
        self, task: Task, size: int, seed: int, part: str = "labelled", share: float = 1.0
    ) -> None:
        windows = [task.train_batch(index)[:2] for index in task.fixed_batches(size, seed, part)]
        self.fixed = [((part, i), x, *task.graph, y) for i, (x, y) in enumerate(windows)]
        self._steps = round(share * -(-len(task.parts["train"]) // size))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for i in passes(len(self.fixed), self._steps):
            yield self.fixed[i]

    def __len__(self) -> int:
        return self._steps


def task_loss(out: Tensor, target: Tensor) -> Tensor:
    """Return the error over the readings that there are."""
    return masked_mae(out, target, ~target.isnan())


def no_more(out: Tensor, target: Tensor) -> Tensor:
    """Return 0: the response loss holds the task's loss."""
    return out.new_zeros(())


def make_distiller(
    teacher: nn.Module, student: nn.Module, alpha: float, recipe: bool
) -> tuple[Distiller, Any]:
    """Return a distiller, and what makes its arguments of a batch, asking the teacher but once."""
    gate = "outlier" if alpha else None  # without distillation: the task's loss alone
    paper = ResponseLoss(alpha, gate, error=traffic.ERROR)
    distiller = Distiller(teacher, student, [OutputLoss(traffic.ERROR) if recipe else paper])
    recall = TeacherCache(distiller)

    def unpack(batch: tuple[Any, ...]) -> tuple[Any, dict[str, Any], Tensor]:
        i, *inputs, y = batch
        return inputs, {"teacher": recall(i, *inputs)}, y

    return distiller, unpack


def copy_of(teacher: nn.Module) -> nn.Module:
    """Return what is to be pruned: the teacher, without its dropout."""
    student = copy.deepcopy(teacher).requires_grad_()
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return student
