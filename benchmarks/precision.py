"""Students trained in bfloat16 beside those in float32, on the synthetic sets.

    python benchmarks/precision.py --write

The three pairs of the papers at a small size. Planned before the first run, for all pairs alike:

* The teacher is trained once, in float32. Students are distilled from the same start over the same
  batches in the same order, with models and losses under ``torch.autocast`` in bfloat16 or without
  (losses compute in float32 either way).
* Adam's rate falls from 0.005 to 0 by half a cosine, step by step, as in
  :func:`pyg_stkd.distill.fit`: at a constant rate the last step's score is one of many that jump.
* The score is that of the last weights on the test set, without autocast.
* Ten seeds that no earlier run had, 10 to 19, all of them in the table, and no others.
* The difference is paired by seed, with its 95 % interval. The bar: the mean difference is at most
  the standard deviation of the scores in float32.

What was trained is kept in --out, and is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scale import store
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch_geometric.loader import DataLoader

from pyg_stkd import Distiller
from pyg_stkd.datasets import (
    StandardScaler,
    SyntheticProteins,
    SyntheticShapes,
    SyntheticTraffic,
    WindowDataset,
)
from pyg_stkd.distill import LSPLoss, STCDLoss
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.metrics import masked_mae
from pyg_stkd.nn import DGCNN, GAT, STGCN
from pyg_stkd.report import interval, write_atomic

STEPS = 12


@dataclass
class Task:
    """A pair of models, its data, and how well a model does."""

    teacher: Callable[[], nn.Module]
    student: Callable[[], nn.Module]
    losses: Callable[[], Any]
    batches: list[tuple[tuple[Any, ...], Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[nn.Module], float]
    unit: str
    epochs: tuple[int, int]  # of the teacher, of a student
    rate: float = 0.005


def proteins() -> Task:
    """GAT and LSP on protein graphs; micro F1 in percent."""
    train, test = (list(SyntheticProteins(s, 0.15, num_graphs=12)) for s in ("train", "test"))

    def score(model: nn.Module) -> float:
        out = torch.cat([model(d.x, d.edge_index) for d in test]).float() > 0
        y = torch.cat([d.y for d in test]).bool()
        return 200 * float((out & y).sum() / (out.sum() + y.sum()))

    return Task(
        lambda: GAT(50, 64, 121, num_layers=3, heads=4),
        lambda: GAT(50, 16, 121, num_layers=3, heads=2),
        lambda: [LSPLoss("convs.1", "convs.1", RBF("median"), normalize="l2")],
        [((d.x, d.edge_index), d.y) for d in train],
        F.binary_cross_entropy_with_logits,
        score,
        "F1 %",
        (40, 40),
    )


def shapes() -> Task:
    """DGCNN and LSP on point clouds; accuracy in percent."""
    train, test = (SyntheticShapes(train, 400, 64) for train in (True, False))
    batches = [((b.pos, b.batch), b.y) for b in DataLoader(train, 20)]
    held = [((b.pos, b.batch), b.y) for b in DataLoader(test, 40)]

    def score(model: nn.Module) -> float:
        right = [(model(*x).argmax(-1) == y).float() for x, y in held]
        return 100 * float(torch.cat(right).mean())

    classes = len(train.classes)
    return Task(
        lambda: DGCNN(3, classes, (32, 32, 64, 128), (64,), k=12),
        lambda: DGCNN(3, classes, (12, 12, 24), (32,), k=8),
        lambda: [LSPLoss("convs.2", "convs.1", RBF("median"), normalize="l2")],
        batches,
        F.cross_entropy,
        score,
        "accuracy %",
        (20, 20),
    )


def traffic() -> Task:
    """STGCN, responses and correlations on traffic; error in miles per hour."""
    series = SyntheticTraffic(32, 2016)
    train, _, test = series.split(0.7, 0.1, 0.2, overlap=STEPS)
    scaler = StandardScaler.fit(train)
    graph = Graph(series.edge_index, 32)
    roads = graph, graph.sort_edges(series.edge_weight)
    windows = WindowDataset(train, STEPS, STEPS, scaler, scale_target=True, stride=4)
    batches = [((x, *roads), y.where(m, torch.nan)) for x, y, m in DataLoader(windows, 32)]
    held = list(DataLoader(WindowDataset(test, STEPS, STEPS, scaler, stride=4), 64))

    def score(model: nn.Module) -> float:
        errors = [
            masked_mae(scaler.inverse_transform(model(x, *roads).float(), 0), y, m)
            for x, y, m in held
        ]
        return float(torch.stack(errors).mean())

    return Task(
        lambda: STGCN(1, 16, STEPS, num_blocks=2),
        lambda: STGCN(1, 6, STEPS, num_blocks=2),
        lambda: STCDLoss("blocks.0", "blocks.0", alpha=0.3, kernel=RBF("median"), normalize="l2"),
        batches,
        lambda out, y: masked_mae(out, y.nan_to_num(), ~y.isnan()),
        score,
        "MAE mph",
        (8, 8),
    )


TASKS = {"GAT": proteins, "DGCNN": shapes, "STGCN": traffic}


def fit(task: Task, module: nn.Module, epochs: int, seed: int, half: bool = False) -> None:
    """Train a model, or a distiller's student."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=task.rate)
    falling = CosineAnnealingLR(optimizer, T_max=epochs * len(task.batches))
    module.train()
    for _ in range(epochs):
        for i in torch.randperm(len(task.batches)).tolist():
            args, y = task.batches[i]
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
                if isinstance(module, Distiller):
                    out, losses = module(*args, target=y)
                else:
                    out, losses = module(*args), {}
            loss = sum(losses.values())
            if "response" not in losses:  # which holds the loss of the task
                loss = loss + task.loss(out.float(), y)
            assert torch.isfinite(loss), "losses must be finite"
            loss.backward()
            optimizer.step()
            falling.step()


def students(name: str, seeds: Sequence[int], path: Path) -> dict[str, dict[str, float]]:
    """Return the scores of students by precision and seed."""
    kept: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    kept = {kind: kept.get(kind, {}) for kind in ("teacher", "float32", "bfloat16")}
    left = [seed for seed in seeds if str(seed) not in kept["bfloat16"]]
    if not left:
        return kept
    task = TASKS[name]()
    torch.manual_seed(0)
    teacher = task.teacher()
    fit(task, teacher, task.epochs[0], 0)
    with torch.no_grad():
        kept["teacher"] = {"0": task.score(teacher.eval())}
    for seed in left:
        found = {}
        for kind in ("float32", "bfloat16"):
            torch.manual_seed(seed)
            student = task.student()
            distiller = Distiller(teacher, student, task.losses())
            fit(task, distiller, task.epochs[1], seed, kind == "bfloat16")
            distiller.remove_hooks()
            with torch.no_grad():
                found[kind] = task.score(student.eval())
        for kind, score in found.items():
            kept[kind][str(seed)] = score
        write_atomic(path, json.dumps(kept).encode())
        print(name, seed, found, flush=True)
    return kept


def main() -> None:
    """Train all, print the table and, with --write, store it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=list(TASKS), help="of GAT, DGCNN, STGCN")
    parser.add_argument("--out", type=Path, default=Path("runs/precision-falling"))
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(args.first, args.first + args.seeds)
    rows, raw = [], {}
    for name in args.only:
        kept = students(name, seeds, args.out / f"{name}.json")
        # Those that were asked for: more of them after a look would be chosen by their result.
        full, half = ([kept[kind][str(seed)] for seed in seeds] for kind in ("float32", "bfloat16"))
        gap = interval([b - a for a, b in zip(full, half, strict=True)])
        noise = statistics.stdev(full)
        rows.append(
            {
                "student": name,
                "score": TASKS[name]().unit,
                "teacher": f"{kept['teacher']['0']:.2f}",
                "float32": f"{statistics.mean(full):.2f}",
                "bfloat16": f"{statistics.mean(half):.2f}",
                "difference": f"{gap.mean:+.2f}",
                "95 %": f"{gap.low:+.2f} to {gap.high:+.2f}",
                "spread of seeds": f"{noise:.2f}",
                "within": "yes" if abs(gap.mean) <= noise else "no",
            }
        )
        raw[name] = kept
        print(rows[-1], flush=True)
    if args.write:
        only = "" if args.only == list(TASKS) else f" --only {' '.join(args.only)}"
        some = "" if (args.first, args.seeds) == (10, 10) else f" --first {args.first}"
        some += f" --seeds {args.seeds}" if some else ""
        command = f"python benchmarks/precision.py{some}{only} --write"
        note = (
            f"Means of the seeds {seeds[0]} to {seeds[-1]} at a rate that falls to 0, the "
            "difference with its interval paired by seed; the spread is the standard deviation in "
            "float32. The bar: the difference is within it."
        )
        store("precision", rows, command, note, raw)


if __name__ == "__main__":
    main()
