"""Which runs an experiment has, and in how many processes they are."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from tqdm import tqdm

Go = Callable[..., Any]

_go: Go | None = None  # of a process that is not the first


def default_workers() -> int:
    """Return one process a core where a process can be forked, else one."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def each(go: Go, runs: Sequence[tuple[Any, ...]], workers: int, bar: tqdm) -> list[Any]:
    """Return what calls return that leave their results in a store, made several at a time.

    The thin models here leave most of a second thread idle: each process has one. What it did is
    then asked for again, and is in the store.
    """
    start = bar.n
    if workers > 1 and len(runs) > 1:
        tqdm.monitor_interval = 0  # its thread would be there when a process is forked
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(min(workers, len(runs)), fork, _begin, (go,)) as pool:
            for future in as_completed([pool.submit(_call, run) for run in runs]):
                future.result()
                bar.update()
    results = []
    for done, run in enumerate(runs, start + 1):
        results.append(go(*run))
        bar.update(max(0, done - bar.n))
    return results


def tune_and_run(
    configs: Callable[[str, dict[str, Any] | None], list[dict[str, Any]]],
    go: Callable[[str, int, dict[str, Any]], dict[str, Any]],
    methods: Sequence[str],
    seeds: int,
    trials: int,
    workers: int = 1,
) -> list[dict[str, Any]]:
    """Tune each method on the first seed, then run it from every seed; return all results.

    Every method has the same number of trials, of :obj:`configs(method, chosen)`: what was chosen
    for the student alone is inherited by the methods after it. Results of tuning are marked.
    With several workers no run may need another one of the same call.
    """
    results: list[dict[str, Any]] = []
    student: dict[str, Any] | None = None
    count = len(methods) * (seeds + (trials if trials > 1 else 0))
    with tqdm(total=count, desc="runs") as bar:
        plan: list[tuple[str, int, dict[str, Any]]] = []
        for method in methods:
            candidates = configs(method, student)[:trials]
            chosen, best = candidates[0], -math.inf
            if trials > 1:
                tried = each(go, [(method, 0, config) for config in candidates], workers, bar)
                for config, result in zip(candidates, tried, strict=True):
                    short = {key: value for key, value in result.items() if key != "history"}
                    results.append(short | {"trial": True})
                    if result["val"] > best:
                        chosen, best = config, result["val"]
            student = chosen if method == "student" else student
            plan += [(method, seed, chosen) for seed in range(seeds)]
            if trials > 1:
                results += each(go, plan, workers, bar)
                plan = []
        return results + each(go, plan, workers, bar)


def _begin(go: Go) -> None:
    """Keep what a forked process is to call, which need not be pickled."""
    global _go
    _go = go
    torch.set_num_threads(1)


def _call(run: tuple[Any, ...]) -> None:
    assert _go is not None
    _go(*run)
