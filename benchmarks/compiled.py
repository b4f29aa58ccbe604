"""Under torch.compile: whole training steps of a distiller, and our parts beside their rivals.

    python benchmarks/compiled.py                       # prints; --write stores
    python benchmarks/compiled.py --only GAT lsp        # some of it

A step of a pair of the papers is the forward pass of both models, the losses, the backward pass and
Adam, eager and with the distiller compiled; graph breaks are counted, with their reasons. The parts
are timed forward and backward beside what a user would compile without this package: the naive
formula of LSP on edges sorted by target, and PyG's GATConv. One thread, CPU time, candidates in
turn, compilation left out. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch_geometric.nn
from harness import interleave, summary
from primitives import naive_lsp
from scale import store
from teacher_cache import proteins, shapes, traffic
from torch import Tensor, nn

import pyg_stkd.nn
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph
from pyg_stkd.report import write_atomic

PAIRS = {"GAT": proteins, "DGCNN": shapes, "STGCN": traffic}
# Nodes, edges, widths of teacher and student; those of PPI's batches, and of a larger graph.
LSP = {"lsp, N 4,744": (4744, 128_000, 256, 68), "lsp, N 60,000": (60_000, 900_000, 128, 32)}
CONV = {"GATConv 136 to 2x68": (136, 2, 68), "GATConv 1024 to 4x256": (1024, 4, 256)}
STUDENT = "STGCN student"
Step = Callable[[], Any]


def training(module: nn.Module, batches: Any, of: Callable[[nn.Module, Any], Tensor]) -> Step:
    """Return a training step of a module on the next batch."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    turn = cycle(batches)

    def step() -> None:
        optimizer.zero_grad()
        of(module, next(turn)).backward()
        optimizer.step()

    return step


def pair_steps(name: str) -> dict[str, Step]:
    """Return the steps of a distiller, eager and compiled."""
    pair, batches, task = PAIRS[name]()
    x, more, y = batches[0]
    pair.check(*x, target=y, **more)
    pair.train()

    def loss(module: nn.Module, batch: Any) -> Tensor:
        args, kwargs, target = batch
        out, losses = module(*args, target=target, **kwargs)
        total: Tensor = task(out, target) + sum(losses.values())
        return total

    return {
        "eager": training(pair, batches, loss),
        "compiled": training(torch.compile(pair), batches, loss),
    }


def student_steps() -> dict[str, Step]:
    """Return steps of the forecaster alone, eager and compiled."""
    pair, batches, _ = traffic()
    student = pair.student.train()

    def loss(module: nn.Module, batch: Any) -> Tensor:
        args, kwargs, target = batch
        return torch.nn.functional.mse_loss(module(*args, **kwargs), target)

    return {
        "eager": training(student, batches, loss),
        "compiled": training(torch.compile(student), batches, loss),
    }


def lsp_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of LSP, ours and the naive formula on sorted edges."""
    nodes, edges, wide, narrow = LSP[name]
    graph = Graph(torch.randint(nodes, (2, edges)), nodes)
    s, t = torch.randn(nodes, narrow, requires_grad=True), torch.randn(nodes, wide)
    s.data /= narrow**0.5
    t /= wide**0.5
    naive = torch.compile(naive_lsp, dynamic=False)
    ours = torch.compile(lambda s, t: lsp(s, t, graph), dynamic=False)
    return {
        "rival": lambda: torch.autograd.grad(naive(s, t, graph.edge_index), s),
        "eager": lambda: torch.autograd.grad(lsp(s, t, graph), s),
        "compiled": lambda: torch.autograd.grad(ours(s, t), s),
    }


def conv_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of a layer of graph attention, ours and PyG's."""
    width, heads, channels = CONV[name]
    nodes, edge_index = 4744, torch.randint(4744, (2, 128_000))
    graph = Graph(edge_index, nodes)
    ours = pyg_stkd.nn.GATConv(width, channels, heads)
    theirs = torch_geometric.nn.GATConv(width, channels, heads)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(nodes, width, requires_grad=True)

    def run(conv: Any, edges: Any) -> Step:
        inputs = [x, *ours.parameters()] if edges is graph else [x, *theirs.parameters()]
        return lambda: torch.autograd.grad(conv(x, edges).sum(), inputs)

    return {
        "rival": run(torch.compile(theirs, dynamic=False), edge_index),
        "eager": run(ours, graph),
        "compiled": run(torch.compile(ours, dynamic=False), graph),
    }


def candidates() -> dict[str, Callable[[], dict[str, Step]]]:
    """Return what is measured by name."""
    every: dict[str, Callable[[], dict[str, Step]]] = {STUDENT: student_steps}
    every |= {name: lambda name=name: pair_steps(name) for name in PAIRS}  # type: ignore[misc]
    every |= {name: lambda name=name: lsp_steps(name) for name in LSP}  # type: ignore[misc]
    every |= {name: lambda name=name: conv_steps(name) for name in CONV}  # type: ignore[misc]
    return every


def breaks() -> dict[str, int]:
    """Return the reasons of graph breaks since the last reset, and how often each was met."""
    found: Mapping[str, int] = torch._dynamo.utils.counters["graph_break"]
    return {reason.strip().split("\n")[0]: count for reason, count in found.items()}


def measure(name: str, build: Callable[[], dict[str, Step]], repeats: int) -> dict[str, Any]:
    """Return the CPU seconds of each way, and the graph breaks of the compiled one."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    steps, found = build(), {}
    for way, step in steps.items():
        torch._dynamo.utils.counters.clear()
        start = time.perf_counter()
        for _ in range(4):  # batches take turns
            step()
        print(f"{name}, {way}: first steps {time.perf_counter() - start:.0f} s", flush=True)
        found = breaks() if way == "compiled" else found
    times = interleave(steps, repeats, warmup=1)
    return {"cpu": {way: of["cpu"] for way, of in times.items()}, "breaks": found}


def main() -> None:
    """Time everything, print it and, with --write, store it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=[], help="first words of names")
    parser.add_argument("--out", type=Path, help="keep results here, and do not measure them again")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, raw = [], {}
    for name, build in candidates().items():
        if args.only and re.split("[ ,]", name)[0] not in args.only:
            continue
        kept = None if args.out is None else args.out / f"{name}.json"
        if kept is not None and kept.exists():
            raw[name] = json.loads(kept.read_text())
        else:
            raw[name] = measure(name, build, args.repeats)
        if kept is not None:
            write_atomic(kept, json.dumps(raw[name]).encode())
        found = raw[name]["breaks"]
        cpu = {way: summary(times)[0] for way, times in raw[name]["cpu"].items()}
        rival = cpu.get("rival", cpu["eager"])
        row = {
            "what": name,
            "eager": f"{cpu['eager']:.1f} ms",
            "compiled": f"{cpu['compiled']:.1f} ms",
            "of eager": f"{cpu['compiled'] / cpu['eager']:.2f}",
            "rival compiled": f"{rival:.1f} ms" if "rival" in cpu else "",
            "of rival": f"{cpu['compiled'] / rival:.2f}" if "rival" in cpu else "",
            "bar": "at most 1.00",
            "breaks": str(sum(found.values())),
        }
        rows.append(row)
        print(row, found, flush=True)
    if args.write:
        only = f" --only {' '.join(args.only)}" if args.only else ""
        command = f"python benchmarks/compiled.py{only} --write"
        note = "Median CPU time of a call; breaks are those of all compilations, reasons in json."
        store("compiled", rows, command, note, raw)


if __name__ == "__main__":
    main()
