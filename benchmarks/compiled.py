"""Under torch.compile: whole training steps of a distiller, and our parts beside their rivals.

    python benchmarks/compiled.py --prepare             # compiles, which may take its time
    python benchmarks/compiled.py                       # prints; --write stores
    python benchmarks/compiled.py --only GAT lsp        # some of it

Nearly all of the time goes to compilers. torch keeps what they make, so ``--prepare`` may do that
while others use the machine, and what is left for a quiet one are minutes; with ``--out`` they may
be several visits.

A step of a pair of the papers is the forward pass of both models, the losses, the backward pass and
Adam, eager and with the distiller compiled; graph breaks are counted and listed with their reasons.
The parts are timed forward and backward beside what a user would compile without this package: the
naive formulas of the losses and primitives, PyG's GATConv, ChebConv and GCNConv, and the published
EdgeConv, search of neighbours and STGCN block. One thread, CPU time, candidates in turn,
compilation left out. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch_geometric.nn
from correlation import B, C, E, N, T, naive_scd, naive_tcd
from edge_conv import block
from harness import interleave, summary
from primitives import naive_lsp
from published_dgcnn import GridEdgeConv, nearest
from scale import store
from st_conv import neighbours
from st_peers import PublishedBlock, laplacian
from teacher_cache import proteins, shapes, traffic
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize
from torch_geometric.utils import softmax

import pyg_stkd.nn
from pyg_stkd.functional import (
    contrast,
    gsp,
    knn_graph,
    lsp,
    sddmm,
    segment_softmax,
    spatial_correlation,
    temporal_correlation,
)
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF, Cosine, Kernel
from pyg_stkd.report import write_atomic

PAIRS = {"GAT": proteins, "DGCNN": shapes, "STGCN": traffic}
# Nodes, edges, widths of teacher and student; those of PPI's batches, and of a larger graph.
LSP = {"lsp, N 4,744": (4744, 128_000, 256, 68), "lsp, N 60,000": (60_000, 900_000, 128, 32)}
CONV = {"GATConv 136 to 2x68": (136, 2, 68), "GATConv 1024 to 4x256": (1024, 4, 256)}
EDGE, BLOCK = "DynamicEdgeConv 64 to 64, k=20", "STConv 64-16-64, N 228"
CORRELATIONS = ("L_SCD", "L_TCD")
# Nodes, widths of teacher and student, the similarity: by features, and by pairs.
GSP: dict[str, tuple[int, int, int, Kernel]] = {
    "gsp, N 4,744": (4744, 256, 68, Cosine()),
    "gsp, N 256": (256, 256, 68, Cosine()),
    "gsp, N 1,024, RBF": (1024, 256, 68, RBF()),
}
CONTRAST = {"contrast, N 256": 256, "contrast, N 2,048": 2048}
SEQUENCE = ("ChebConv 64 to 64, N 228", "GCNConv 64 to 64, N 228")
EDGES = ("sddmm, E 128k, F 64", "segment_softmax, E 128k")
KNN = "knn_graph 8x1,024, F 64, k=20"
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


def edge_steps() -> dict[str, Step]:
    """Return forward and backward of a dynamic edge convolution, ours and the published one."""
    clouds, points = 8, 1024
    x = torch.randn(clouds, 64, points, requires_grad=True)
    flat = x.detach().transpose(1, 2).reshape(-1, 64).requires_grad_()
    batch = torch.arange(clouds).repeat_interleave(points)
    ours, theirs = pyg_stkd.nn.DynamicEdgeConv(block(64, 64), 20), GridEdgeConv(64, 64, 20)
    rival, compiled = torch.compile(theirs, dynamic=False), torch.compile(ours, dynamic=False)
    mine, others = [flat, *ours.parameters()], [x, *theirs.parameters()]
    return {
        "rival": lambda: torch.autograd.grad(rival(x).sum(), others),
        "eager": lambda: torch.autograd.grad(ours(flat, batch).sum(), mine),
        "compiled": lambda: torch.autograd.grad(compiled(flat, batch).sum(), mine),
    }


def block_steps() -> dict[str, Step]:
    """Return forward and backward of a block of STGCN, ours and the published one."""
    edges, x = neighbours(228), torch.randn(32, 12, 228, 64, requires_grad=True)
    z, graph = x.detach().permute(0, 3, 1, 2).contiguous().requires_grad_(), Graph(edges, 228)
    ours = pyg_stkd.nn.STConv(64, 16, 64, num_nodes=228)
    theirs = PublishedBlock(64, (64, 16, 64), 3, 3, laplacian(edges, 228))
    rival, compiled = torch.compile(theirs, dynamic=False), torch.compile(ours, dynamic=False)
    mine, others = [x, *ours.parameters()], [z, *theirs.parameters()]
    return {
        "rival": lambda: torch.autograd.grad(rival(z).square().mean(), others),
        "eager": lambda: torch.autograd.grad(ours(x, graph).square().mean(), mine),
        "compiled": lambda: torch.autograd.grad(compiled(x, graph).square().mean(), mine),
    }


def correlation_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of a loss of sequences, ours and the naive formula."""
    edges = torch.randint(N, (2, E))
    graph = Graph(edges, N)
    t = torch.randn(B, T, N, C) / 8
    s = (t + torch.randn_like(t) / 30).requires_grad_()
    if name == "L_SCD":
        naive = lambda s, t: naive_scd(s, t, graph.edge_index)  # noqa: E731
        loss = lambda s, t: spatial_correlation(s, t, graph)  # noqa: E731
    else:
        naive, loss = naive_tcd, temporal_correlation
    rival, ours = torch.compile(naive, dynamic=False), torch.compile(loss, dynamic=False)
    return {
        "rival": lambda: torch.autograd.grad(rival(s, t), s),
        "eager": lambda: torch.autograd.grad(loss(s, t), s),
        "compiled": lambda: torch.autograd.grad(ours(s, t), s),
    }


def gsp_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of global structures, ours and the naive formula."""
    nodes, wide, narrow, kernel = GSP[name]
    s, t = torch.randn(nodes, narrow, requires_grad=True), torch.randn(nodes, wide)
    s.data /= narrow**0.5
    t /= wide**0.5

    def similarities(z: Tensor) -> Tensor:
        if isinstance(kernel, Cosine):
            z = normalize(z, dim=-1)
            return z @ z.t()
        return torch.exp(-0.5 * torch.cdist(z, z).square())

    rival = torch.compile(lambda s, t: mse_loss(similarities(s), similarities(t)), dynamic=False)
    loss = lambda s, t: gsp(s, t, kernel)  # noqa: E731
    ours = torch.compile(loss, dynamic=False)
    return {
        "rival": lambda: torch.autograd.grad(rival(s, t), s),
        "eager": lambda: torch.autograd.grad(loss(s, t), s),
        "compiled": lambda: torch.autograd.grad(ours(s, t), s),
    }


def contrast_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of the contrast of nodes, ours and the naive formula."""
    nodes, width = CONTRAST[name], 256
    s, t = torch.randn(nodes, width, requires_grad=True), torch.randn(nodes, width)

    def naive(s: Tensor, t: Tensor) -> Tensor:
        logits = normalize(s, dim=-1) @ normalize(t, dim=-1).t() / 0.075
        return cross_entropy(logits, torch.arange(nodes))

    rival, ours = torch.compile(naive, dynamic=False), torch.compile(contrast, dynamic=False)
    return {
        "rival": lambda: torch.autograd.grad(rival(s, t), s),
        "eager": lambda: torch.autograd.grad(contrast(s, t), s),
        "compiled": lambda: torch.autograd.grad(ours(s, t), s),
    }


def sequence_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of a spectral layer on sequences, ours and PyG's."""
    edges, x = neighbours(228), torch.randn(32, 12, 228, 64, requires_grad=True)
    graph, more = Graph(edges, 228), (3,) if name.startswith("Cheb") else ()
    kind = name.split()[0]
    ours: nn.Module = getattr(pyg_stkd.nn, kind)(64, 64, *more)
    theirs: nn.Module = getattr(torch_geometric.nn, kind)(64, 64, *more)
    theirs.load_state_dict(ours.state_dict())
    rival, compiled = torch.compile(theirs, dynamic=False), torch.compile(ours, dynamic=False)
    mine, others = [x, *ours.parameters()], [x, *theirs.parameters()]
    return {
        "rival": lambda: torch.autograd.grad(rival(x, edges).square().mean(), others),
        "eager": lambda: torch.autograd.grad(ours(x, graph).square().mean(), mine),
        "compiled": lambda: torch.autograd.grad(compiled(x, graph).square().mean(), mine),
    }


def edges_steps(name: str) -> dict[str, Step]:
    """Return forward and backward of a primitive, ours and gathers."""
    nodes, graph = 4744, Graph(torch.randint(4744, (2, 128_000)), 4744)
    source, target = graph.edge_index
    if name == EDGES[0]:
        inputs = [torch.randn(nodes, 64, requires_grad=True) for _ in range(2)]
        naive = lambda a, b: (a[target] * b[source]).sum(-1)  # noqa: E731
        function = lambda a, b: sddmm(graph, a, b)  # noqa: E731
    else:
        inputs = [torch.randn(source.numel(), requires_grad=True)]
        naive = lambda score: softmax(score, target, num_nodes=nodes)  # noqa: E731
        function = lambda score: segment_softmax(graph, score)  # noqa: E731
    rival, ours = torch.compile(naive, dynamic=False), torch.compile(function, dynamic=False)
    return {
        "rival": lambda: torch.autograd.grad(rival(*inputs).square().sum(), inputs),
        "eager": lambda: torch.autograd.grad(function(*inputs).square().sum(), inputs),
        "compiled": lambda: torch.autograd.grad(ours(*inputs).square().sum(), inputs),
    }


def knn_steps() -> dict[str, Step]:
    """Return searches of neighbours, ours and the published expansion of distances."""
    x = torch.randn(8, 64, 1024)
    flat = x.transpose(1, 2).reshape(-1, 64)
    batch = torch.arange(8).repeat_interleave(1024)
    rival = torch.compile(lambda x: nearest(x, 20), dynamic=False)
    ours = torch.compile(lambda x: knn_graph(x, 20, batch, loop=True), dynamic=False)
    return {
        "rival": lambda: rival(x),
        "eager": lambda: knn_graph(flat, 20, batch, loop=True),
        "compiled": lambda: ours(flat),
    }


def candidates() -> dict[str, Callable[[], dict[str, Step]]]:
    """Return what is measured by name."""
    every: dict[str, Callable[[], dict[str, Step]]] = {STUDENT: student_steps}
    every |= {name: lambda name=name: pair_steps(name) for name in PAIRS}  # type: ignore[misc]
    every |= {name: lambda name=name: lsp_steps(name) for name in LSP}  # type: ignore[misc]
    every |= {name: lambda name=name: conv_steps(name) for name in CONV}  # type: ignore[misc]
    every |= {EDGE: edge_steps, BLOCK: block_steps}
    for name in CORRELATIONS:
        every[name] = lambda name=name: correlation_steps(name)  # type: ignore[misc]
    every |= {name: lambda name=name: gsp_steps(name) for name in GSP}  # type: ignore[misc]
    every |= {name: lambda name=name: contrast_steps(name) for name in CONTRAST}  # type: ignore[misc]
    every |= {name: lambda name=name: sequence_steps(name) for name in SEQUENCE}  # type: ignore[misc]
    every |= {name: lambda name=name: edges_steps(name) for name in EDGES}  # type: ignore[misc]
    every[KNN] = knn_steps
    return every


def breaks() -> dict[str, int]:
    """Return the reasons of graph breaks since the last reset, and how often each was met."""
    met: Mapping[str, int] = torch._dynamo.utils.counters["graph_break"]
    found = {}
    for text, count in met.items():
        reason, *more = map(str.strip, text.strip().split("\n"))
        where = [line.partition(":")[2].strip() for line in more if line.startswith("Developer")]
        place = re.sub(r" at 0x[0-9a-f]+", "", where[0]) if where else ""
        found[f"{reason} ({place})" if place else reason] = count
    return found


def measure(
    name: str, build: Callable[[], dict[str, Step]], repeats: int, seconds: float
) -> dict[str, Any]:
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
    if repeats == 0:
        return {}
    start = time.perf_counter()
    for step in steps.values():
        step()
    once = time.perf_counter() - start
    times = interleave(steps, max(5, min(repeats, int(seconds / once))), warmup=1)
    return {"cpu": {way: of["cpu"] for way, of in times.items()}, "breaks": found}


def ratio(times: dict[str, list[float]], way: str) -> float:
    """Return what compiled code takes of another way, the median over calls in turn."""
    pairs = zip(times["compiled"], times[way], strict=True)
    return statistics.median(ours / other for ours, other in pairs)


def main() -> None:
    """Time everything, print it and, with --write, store it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="of a quick row")
    parser.add_argument("--seconds", type=float, default=8, help="of a slow row, at least 5 calls")
    parser.add_argument("--prepare", action="store_true", help="compile, and measure nothing")
    parser.add_argument("--only", nargs="*", default=[], help="first words of names")
    parser.add_argument("--out", type=Path, help="keep results here, and do not measure them again")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, raw = [], {}
    for name, build in candidates().items():
        if args.only and re.split("[ ,]", name)[0] not in args.only:
            continue
        if args.prepare:
            measure(name, build, 0, 0)
            continue
        kept = None if args.out is None else args.out / f"{name}.json"
        if kept is not None and kept.exists():
            raw[name] = json.loads(kept.read_text())
        else:
            raw[name] = measure(name, build, args.repeats, args.seconds)
        if kept is not None:
            write_atomic(kept, json.dumps(raw[name]).encode())
        found = raw[name]["breaks"]
        cpu = {way: summary(times)[0] for way, times in raw[name]["cpu"].items()}
        of = {way: ratio(raw[name]["cpu"], way) for way in cpu}
        row = {
            "what": name,
            "eager": f"{cpu['eager']:.1f} ms",
            "compiled": f"{cpu['compiled']:.1f} ms",
            "of eager": f"{of['eager']:.2f}",
            "rival compiled": f"{cpu['rival']:.1f} ms" if "rival" in cpu else "",
            "of rival": f"{of['rival']:.2f}" if "rival" in cpu else "",
            "bar": "at most 1.00",
            "breaks": str(sum(found.values())),
        }
        rows.append(row)
        print(row, *(f"  {count} x {reason}" for reason, count in found.items()), sep="\n")
    if args.write:
        only = f" --only {' '.join(args.only)}" if args.only else ""
        command = f"python benchmarks/compiled.py{only} --write"
        met = sorted({reason for one in raw.values() for reason in one["breaks"]})
        note = "Median CPU time of a call, and of the ratios of 5 to "
        note += f"{args.repeats} calls in turn. Breaks are those of "
        note += "all compilations, their reasons: "
        note += "; ".join(met or ["none was met"]) + "."
        store("compiled", rows, command, note, raw)


if __name__ == "__main__":
    main()
