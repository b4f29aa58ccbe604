"""LSP paper, Table 2, its other columns: time and peak memory of a training step of each method.

    python benchmarks/reproduce/lsp_step.py              # --write stores

The paper's GATs at full width on graphs of PPI's size: a step is the forward pass, the losses, the
backward pass and Adam, with the teacher run along and with its cache. One thread, CPU time, all
methods in turn; memory is what a step takes beyond what is there before it. Raw results:
benchmarks/results/lsp_step.json.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

sys.path.append(str(Path(__file__).parents[1]))
from harness import interleave, peak_memory, summary, write
from lsp_table2 import losses_of
from teacher_cache import proteins, step_of

from pyg_stkd import Distiller
from pyg_stkd.nn import GAT

METHODS = ("KD", "FitNet", "AT", "LSP", "logits")
WAYS = {"with its teacher": "teacher", "with the cache": "cache in memory"}


def pair_of(method: str, batches: list[Any]) -> Distiller:
    """Return a teacher and a student with the losses of a method, all maps made."""
    torch.manual_seed(0)
    teacher, student = GAT.teacher(50, 121), GAT.student(50, 121)
    pair = Distiller(teacher, student, losses_of(method, 1.0, len(student.convs) - 1))
    x, more, y = batches[0]
    pair.check(*x, target=y, **more)
    return pair.train()


def steps(folder: str) -> dict[tuple[str, str], Any]:
    """Return a training step of the student alone, and of each method in both ways."""
    batches = proteins()[1]
    task = binary_cross_entropy_with_logits
    alone = pair_of("logits", batches)
    found = {("student alone", ""): step_of("alone", alone, batches, task, folder)}
    for method in METHODS:
        for shown, way in WAYS.items():
            pair = pair_of(method, batches)
            found[method, shown] = step_of(way, pair, batches, task, folder)
    return found


def main() -> None:
    """Measure all methods, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=8, help="steps of each")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        taken = steps(folder)
        for step in taken.values():  # the caches see each batch once
            for _ in range(4):
                step()
        keys = {" ".join(key).strip(): key for key in taken}
        times = interleave({name: taken[key] for name, key in keys.items()}, args.repeats, warmup=1)
        memory = {name: peak_memory(taken[key]) for name, key in keys.items()}
    cpu = {keys[name]: found["cpu"] for name, found in times.items()}
    peak = {keys[name]: value for name, value in memory.items()}
    own = ("student alone", "")
    base = statistics.median(cpu[own])
    rows: list[dict[str, str]] = []
    for method in ("student alone", *METHODS):
        row = {"method": method}
        for shown in ("",) if method == "student alone" else WAYS:
            ms, spread = summary(cpu[method, shown])
            name = shown or "with its teacher"
            row[f"ms {name}"] = f"{ms:.1f} ({spread:.1f})"
            row[f"of the student's, {name}"] = f"{ms / 1e3 / base:.2f}x"
            row[f"peak MiB {name}"] = f"{peak[method, shown] / 2**20:.0f}"
        rows.append(row)
        print(row, flush=True)
    if args.write:
        note = (
            "Run `python benchmarks/reproduce/lsp_step.py --write`. A training step of the 5x2x68 "
            "GAT on a graph of PPI's size, median and interquartile range of "
            f"{args.repeats} in turn, CPU time; the teacher is the 3x4x256 GAT."
        )
        raw = {"seconds": {" ".join(k).strip(): v for k, v in cpu.items()}, "bytes": memory}
        write("lsp_step", rows, raw, note)


if __name__ == "__main__":
    main()
