"""What the pruning example trains: fixed batches, a teacher that is asked once, a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import traffic
from torch import Tensor, nn
from traffic_task import Task

from pyg_stkd import Distiller
from pyg_stkd.distill import ResponseLoss, TeacherCache


class Batches:
    """The training batches, the same windows together, in a new order each time."""

    def __init__(self, task: Task, size: int, seed: int) -> None:
        self._graph = task.graph
        self._batches = [task.train_batch(index)[:2] for index in task.fixed_batches(size, seed)]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for i in torch.randperm(len(self._batches)).tolist():
            x, y = self._batches[i]
            yield i, x, *self._graph, y

    def __len__(self) -> int:
        return len(self._batches)


def make_distiller(teacher: nn.Module, student: nn.Module, alpha: float) -> tuple[Distiller, Any]:
    """Return a distiller, and what makes its arguments of a batch, asking the teacher but once."""
    gate = "outlier" if alpha else None  # without distillation: the task's loss alone
    distiller = Distiller(teacher, student, [ResponseLoss(alpha, gate, error=traffic.ERROR)])
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
