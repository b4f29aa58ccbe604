"""What distilling adds to a training step: with the teacher run along, and with its cache.

    python benchmarks/teacher_cache.py              # --write stores

The three pairs of the papers at full width: GAT on graphs of PPI's size with LSP, DGCNN on clouds
of 1,024 points with LSP over the union of both models' graphs, STGCN on 228 sensors with responses
and correlations. A step is the forward pass, the losses, the backward pass and Adam; four batches
take turns. One thread, CPU time, candidates in turn; the bars are for the cache.

What remains with the cache is the student's own half of the losses, forward and backward; for
DGCNN, whose student finds other neighbours in each step, also the union of both graphs and the
teacher's structure on it, which "teacher's graph" leaves out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from harness import interleave, summary
from scale import store
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd import Distiller
from pyg_stkd.datasets import SyntheticProteins
from pyg_stkd.distill import LSPLoss, STCDLoss, TeacherCache
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import DGCNN, GAT, STGCN
from pyg_stkd.report import write_atomic

BATCHES = 4
BARS = {"GAT": 1.15, "DGCNN": 1.2, "DGCNN, teacher's graph": 1.2, "STGCN": 1.1}
WAYS = ("alone", "teacher", "cache in memory", "cache on disk")
Batch = tuple[tuple[Any, ...], dict[str, Any], Tensor]


def proteins() -> tuple[Distiller, list[Batch], Callable[..., Tensor]]:
    """Return the pair of Table 2, its batches, and the loss of the task."""
    graphs = SyntheticProteins("train", 1.0, num_graphs=BATCHES + 4)
    batches = [((d.x, Graph(d.edge_index, d.num_nodes)), {}, d.y) for d in list(graphs)[:BATCHES]]
    loss = LSPLoss("convs.1", "convs.3", RBF(sigma="median"), normalize="l2")
    pair = Distiller(GAT.teacher(50, 121), GAT.student(50, 121), [loss])
    return pair, batches, F.binary_cross_entropy_with_logits


def shapes(graph: str = "union") -> tuple[Distiller, list[Batch], Callable[..., Tensor]]:
    """Return the pair of Table 4, its batches, and the loss of the task."""
    clouds, points = 8, 1024
    batch = torch.arange(clouds).repeat_interleave(points)
    batches = [
        ((torch.randn(clouds * points, 3),), {"batch": batch},
         torch.randint(40, (clouds,)))
        for _ in range(BATCHES)
    ]  # fmt: skip
    loss = LSPLoss("convs.3", "convs.2", RBF(sigma="median"), graph, normalize="l2")
    pair = Distiller(DGCNN.teacher(40, 3), DGCNN.student(40, 3), [loss])
    return pair, batches, F.cross_entropy


def traffic() -> tuple[Distiller, list[Batch], Callable[..., Tensor]]:
    """Return a pair of forecasters and its batches; the responses hold the loss of the task."""
    nodes, size = 228, 32
    place = torch.rand(nodes, 2)
    near = torch.cdist(place, place).fill_diagonal_(9).topk(8, largest=False).indices
    edges = torch.stack([near.flatten(), torch.arange(nodes).repeat_interleave(8)])
    graph = Graph(edges, nodes)
    batches = [
        ((torch.randn(size, 12, nodes, 1), graph), {}, torch.randn(size, 12, nodes))
        for _ in range(BATCHES)
    ]
    losses = STCDLoss("blocks.1", "blocks.1", (1.0, 1.0, 1.0), alpha=0.3, kernel=RBF("median"))
    pair = Distiller(STGCN.teacher(1, 12), STGCN.student(1, 12), losses)
    return pair, batches, lambda out, y: out.new_zeros(())


PAIRS = dict(zip(BARS, (proteins, shapes, partial(shapes, "teacher"), traffic), strict=True))


def step_of(way: str, pair: Distiller, batches: list[Batch], task: Any, folder: str) -> Any:
    """Return a training step on the next batch, in one of the ways."""
    cache = None
    if way.startswith("cache"):
        cache = TeacherCache(pair, Path(folder) if way == "cache on disk" else None)
    turn = cycle(enumerate(batches))
    module: nn.Module = pair.student if way == "alone" else pair
    optimizer = torch.optim.Adam(pair.parameters(), lr=1e-4)
    alone = _first_is_task(pair)

    def step() -> None:
        i, (args, kwargs, y) = next(turn)
        optimizer.zero_grad()
        if way == "alone":
            out = module(*args, **kwargs)
            loss = alone(out, y) if alone is not None else task(out, y)
        else:
            known = None if cache is None else cache(i, *args, **kwargs)
            out, losses = module(*args, target=y, teacher=known, **kwargs)
            loss = task(out, y) + sum(losses.values())
        loss.backward()
        optimizer.step()

    return step


def measure(name: str, repeats: int) -> dict[str, list[float]]:
    """Return the CPU seconds of a step of a pair in each way, by round."""
    torch.manual_seed(0)
    pair, batches, task = PAIRS[name]()
    x, more, y = batches[0]
    pair.check(*x, target=y, **more)
    pair.train()
    with tempfile.TemporaryDirectory() as folder:
        steps = {way: step_of(way, pair, batches, task, folder) for way in WAYS}
        # An epoch each: the first fills the caches.
        epochs = {way: partial(_repeat, step) for way, step in steps.items()}
        times = interleave(epochs, repeats, warmup=1)
    return {way: [t / BATCHES for t in times[way]["cpu"]] for way in WAYS}


def _repeat(step: Callable[[], None]) -> None:
    for _ in range(BATCHES):
        step()


def _first_is_task(pair: Distiller) -> Callable[[Tensor, Tensor], Tensor] | None:
    return F.mse_loss if len(pair.losses) > 1 else None


def main() -> None:
    """Time all pairs, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="rounds over the batches")
    parser.add_argument("--only", nargs="*", default=["GAT", "DGCNN", "STGCN"])
    parser.add_argument("--out", type=Path, help="keep results here, and do not measure them again")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, raw = [], {}
    for name in (name for name in PAIRS if name.split(",")[0] in args.only):
        kept = None if args.out is None else args.out / f"{name}.json"
        if kept is not None and kept.exists():
            cpu = json.loads(kept.read_text())
        else:
            cpu = measure(name, args.repeats)
        if kept is not None:
            write_atomic(kept, json.dumps(cpu).encode())
        alone = summary(cpu["alone"])[0]
        row = {"pair": name, "student alone": f"{alone:.1f} ms"}
        row |= {way: f"{summary(cpu[way])[0] / alone:.2f}x" for way in WAYS[1:]}
        row["bar"] = f"at most {BARS[name]:.2f}x"
        rows.append(row)
        raw[name] = cpu
        print(row, flush=True)
    if args.write:
        note = "A training step, CPU time, as a multiple of the student's alone (median)."
        command = "python benchmarks/teacher_cache.py --write"
        store("teacher cache", rows, command, note, raw)


if __name__ == "__main__":
    main()
