"""The one stopwatch of the package, of its examples and of its benchmarks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["interleave"]


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int = 9,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    collect: bool = False,
) -> dict[str, dict[str, list[float]]]:
    r"""Time calls in turn; return the seconds of each, by CPU and by wall clock.

    In turn, because a machine's speed drifts: what is compared is measured side by side. By both
    clocks, because CPU time (of all threads of this process) hardly depends on what else runs on
    the machine, and says nothing about a GPU.

    Args:
        calls (dict): What to time, by name.
        repeats (int): How often each call counts. (default: :obj:`9`)
        warmup (int): How often each is called before. (default: :obj:`2`)
        device (torch.device or str): What must have finished before a clock is read.
            (default: :obj:`"cpu"`)
        collect (bool): Whether garbage is collected before each call, for calls that are long
            against that. (default: :obj:`False`)

    Example:
        >>> times = interleave({"sum": lambda: sum(range(100))}, repeats=3)
        >>> sorted(times["sum"]), len(times["sum"]["wall"])
        (['cpu', 'wall'], 3)
    """
    times: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in calls}
    for i in range(warmup + repeats):
        for name, call in calls.items():
            if collect:
                gc.collect()
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            _wait(device)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if i >= warmup:
                times[name]["cpu"].append(cpu)
                times[name]["wall"].append(wall)
    return times


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
