"""What every benchmark here shares: interleaved timing, peak memory, the machine, writing results.

Times are CPU seconds of the process with one thread (wall seconds on a GPU): a busy machine
stretches wall time, and both are kept. Candidates take turns, so that a slow minute hits all.
"""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from pyg_stkd import timing
from pyg_stkd.report import machine, write_atomic

RESULTS = Path(__file__).parent / "results"


def interleave(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int = 9,
    warmup: int = 2,
    device: str = "cpu",
) -> dict[str, dict[str, list[float]]]:
    """Time each candidate in turn; return its 'cpu' and 'wall' seconds, one a repeat."""
    return timing.interleave(candidates, repeats, warmup, device, collect=True)


def summary(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the interquartile range, both in milliseconds."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return 1e3 * median, 1e3 * (high - low)


def runs(compiled: Callable[[], Any]) -> bool:
    """Tell whether a call under torch.compile works here: it needs a C++ compiler."""
    try:
        compiled()
    except Exception as reason:  # of many kinds, by platform
        print(f"torch.compile is left out: {type(reason).__name__}")
        return False
    return True


def peak_memory(fn: Callable[[], Any], device: str = "cpu") -> int:
    """Return the most bytes that torch's allocator held during a call, above those held before.

    On CPU the allocator's own records (torch.profiler) are added up in the order of time;
    scratch space that a library such as MKL takes by itself is not seen.
    """
    fn()  # lazily built, lasting state is not part of the call
    gc.collect()
    if torch.device(device).type == "cuda":
        _synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        fn()
        _synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        fn()
    held = peak = 0
    records = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for record in sorted(records, key=lambda e: e.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    return peak


def path_of(name: str, device: str) -> Path:
    """Return where results are: those of a GPU have files of their own, such as ``gat_cuda``."""
    kind = torch.device(device).type
    return RESULTS / (name if kind == "cpu" else f"{name}_{kind}")


def write(name: str, rows: list[dict[str, Any]], raw: Any, note: str, device: str = "cpu") -> None:
    """Write ``results/<name>.json`` (all times) and ``.md`` (the rows as a table), atomically."""
    info = machine()
    on_cpu = torch.device(device).type == "cpu"
    where = f"{info['cpu']}, {info['threads']} thread(s)" if on_cpu else info["gpu"]
    versions = f"torch {info['torch']}, PyG {info['torch_geometric']}"
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    text = f"{where}; {versions}; {info['date']}. {note}\n\n{table}\n"
    path = path_of(name, device)
    write_atomic(path.with_suffix(".md"), text.encode())
    document = {"machine": info, "note": note, "rows": rows, "raw": raw}
    write_atomic(path.with_suffix(".json"), (json.dumps(document, indent=1) + "\n").encode())


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
