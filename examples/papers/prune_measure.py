"""What a forecast costs: operations, and CPU time beside that of the teacher."""

from __future__ import annotations

import statistics

import torch
from torch import nn
from traffic_task import Task

from pyg_stkd.prune.masked.cost import count_flops
from pyg_stkd.timing import interleave

SIZES = (1, 32)  # windows at once


def flops(model: nn.Module, task: Task) -> int:
    """Count the operations for one window, propagation over the edges included."""
    return count_flops(model, (task.train_batch([0])[0], *task.graph))


def cost(model: nn.Module, teacher: nn.Module, task: Task) -> dict[str, list[float]]:
    """Return the milliseconds of a model and of the teacher, in turn, for each batch size.

    CPU time of one thread, so that other work on the machine counts little (wall time elsewhere).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _in_turn(model, teacher, task)
    finally:
        torch.set_num_threads(threads)


def _in_turn(model: nn.Module, teacher: nn.Module, task: Task) -> dict[str, list[float]]:
    clock = "cpu" if task.device == "cpu" else "wall"
    found = {}
    for size in SIZES:
        x = task.train_batch(list(range(min(size, len(task.windows["train"])))))[0]
        calls = {
            name: lambda each=each, x=x: each(x, *task.graph)
            for name, each in {"model": model.eval(), "teacher": teacher.eval()}.items()
        }
        with torch.no_grad():
            times = interleave(calls, 7 if size > 1 else 23, device=task.device)
        found[str(size)] = [
            round(1e3 * statistics.median(times[name][clock]), 4) for name in ("model", "teacher")
        ]
    return found
