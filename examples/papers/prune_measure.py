"""What a forecast costs: operations, and CPU time beside that of the teacher."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn
from traffic_task import Task

from pyg_stkd.prune.masked.cost import count_flops

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
    on_cpu = task.device == "cpu"
    found = {}
    for size in SIZES:
        x = task.train_batch(list(range(min(size, len(task.windows["train"])))))[0]
        times: dict[nn.Module, list[float]] = {model.eval(): [], teacher.eval(): []}
        with torch.no_grad():
            for i in range(9 if size > 1 else 25):
                for each, seconds in times.items():
                    _synchronize()
                    start = time.process_time() if on_cpu else time.perf_counter()
                    each(x, *task.graph)
                    _synchronize()
                    end = time.process_time() if on_cpu else time.perf_counter()
                    if i >= 2:
                        seconds.append(1e3 * (end - start))
        found[str(size)] = [round(statistics.median(times[m]), 4) for m in (model, teacher)]
    return found


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
