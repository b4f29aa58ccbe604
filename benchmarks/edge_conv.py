"""Times edge convolutions, nearest neighbours, DGCNN and the union loss against their peers.

Peers: the published DGCNN composition (``published_dgcnn.py``), PyG's ``EdgeConv`` on the
neighbours of torch-cluster (left out where that is not installed), expanded distances with
``topk``, and the naive gather formula on a coalesced union. Before anything is timed, outputs are
compared.

Run ``python benchmarks/edge_conv.py [--device cuda] [--only NAME ...]``.
"""

from __future__ import annotations

import argparse
import copy
import json
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import harness
import torch
from published_dgcnn import (
    ClusterEdgeConv,
    GridDGCNN,
    GridEdgeConv,
    cluster_knn_graph,
    naive_union_lsp,
    nearest,
)
from torch import Tensor, nn

from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.functional.structures.local import lsp
from pyg_stkd.graph import union_edges
from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv
from pyg_stkd.nn.models.dgcnn import DGCNN

B, N = 8, 1024
COMPILED = "published, torch.compile"
Run = Callable[[], Any]
# Name, candidates (ours first), and by candidate the bars of time and of memory.
Case = tuple[str, dict[str, Run], dict[str, tuple[str, str]]]


def block(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * width_in, width_out, bias=False),
        nn.BatchNorm1d(width_out),
        nn.LeakyReLU(0.2),
    )


def step(model: nn.Module, *inputs: Tensor) -> Run:
    """Forward and backward of a fixed scalar."""
    weight = torch.randn_like(model(*inputs))

    def run() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        inputs[0].grad = None
        (model(*inputs) * weight).sum().backward()

    return run


def forward(model: nn.Module, *inputs: Tensor) -> Run:
    @torch.no_grad()
    def run() -> Tensor:
        return model(*inputs)

    return run


def layers(width_in: int, width_out: int, k: int, device: str) -> Iterator[Case]:
    grid = GridEdgeConv(width_in, width_out, k)
    ours = DynamicEdgeConv(block(width_in, width_out), k)
    # The grid has its differences first and the centre second.
    weight = grid.net[0].weight.detach().view(width_out, 2, width_in)
    ours.nn[0].weight.data = weight.flip(1).reshape(width_out, -1)
    models = {"ours": ours, "published": grid}
    if cluster_knn_graph is not None:
        models["PyG + torch-cluster"] = ClusterEdgeConv(block(width_in, width_out), k)
        models["PyG + torch-cluster"].conv.nn.load_state_dict(copy.deepcopy(ours.nn.state_dict()))
    x = torch.randn(B, width_in, N, device=device)
    flat = x.transpose(1, 2).reshape(B * N, width_in)
    batch = torch.arange(B, device=device).repeat_interleave(N)
    for model in models.values():
        model.to(device)

    def inputs(name: str) -> tuple[Tensor, ...]:
        if name == "published":
            return (x.clone().requires_grad_(),)
        return (flat.clone().requires_grad_(), batch)

    out = {name: model(*inputs(name)) for name, model in models.items()}
    out["published"] = out["published"].transpose(1, 2).reshape(B * N, width_out)
    for name, value in out.items():  # a near tie may pick another neighbour in float32
        wrong = ((value - out["ours"]).abs() > 1e-3).float().mean()
        assert wrong < 1e-3, f"{name} differs from ours in {wrong:.2%} of the values"

    title = f"EdgeConv {width_in} to {width_out}, k={k}"
    steps = {name: step(model, *inputs(name)) for name, model in models.items()}
    compiled = torch.compile(grid, dynamic=False)
    if harness.runs(lambda: compiled(x)):
        steps[COMPILED] = step(compiled, *inputs("published"))
    peers = [name for name in steps if name != "ours"]
    least = {64: "8x", 256: "9x"}.get(width_out, "") if width_in > 32 else ""
    bars = dict.fromkeys(peers, (least, "6x" if least else ""))
    yield f"{title}, train step", steps, bars
    peers = [name for name in models if name != "ours"]
    for model in models.values():
        model.eval()
    runs = {name: forward(model, *inputs(name)) for name, model in models.items()}
    yield f"{title}, eval forward", runs, dict.fromkeys(peers, ("9x" if least else "", ""))


def models(device: str) -> Iterator[Case]:
    x = torch.randn(B, 3, N, device=device)
    flat = x.transpose(1, 2).reshape(B * N, 3)
    batch = torch.arange(B, device=device).repeat_interleave(N)
    for name, ours in (("student", DGCNN.student()), ("teacher", DGCNN.teacher())):
        grid = GridDGCNN(40, ours.channels, ours.mlp_channels, ours.k)
        sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, grid)]
        assert sizes[0] == sizes[1], f"the peer has another size: {sizes}"
        runs = {"ours": step(ours.to(device), flat, batch), "published": step(grid.to(device), x)}
        compiled = torch.compile(grid, dynamic=False)
        if harness.runs(lambda compiled=compiled: compiled(x)):
            runs[COMPILED] = step(compiled, x)
        yield f"DGCNN {name}, train step", runs, {"published": ("3x" * (name == "student"), "")}


def neighbours(device: str) -> Iterator[Case]:
    for width in (3, 64):
        num_clouds = 32
        x = torch.randn(num_clouds, width, N, device=device)
        flat = x.transpose(1, 2).reshape(-1, width).contiguous()
        cloud = torch.arange(num_clouds, device=device)
        batch = cloud.repeat_interleave(N)
        runs: dict[str, Run] = {
            "ours": lambda f=flat, b=batch: knn_graph(f, 20, b, loop=True),
            "distances + topk": lambda x=x: nearest(x, 20),
        }
        name = f"knn_graph 32 x 1,024, C={width}, k=20"
        yield name, runs, {"distances + topk": ("2.3x", "")}
        # Of their own: after a peer that takes much memory, the next one waits for some.
        runs, bars = {"ours": runs["ours"]}, {}
        for reach in (N // 8, N // 2):
            spread = torch.linspace(0, reach, num_clouds // 2).long()
            size = N + torch.stack([spread, -spread], dim=1).view(-1)
            pairs = float(size.square().sum()) / (num_clouds * N * N)
            code = f"ours, {N - reach} to {N + reach} points ({pairs:.2f}x the pairs)"
            ragged = cloud.repeat_interleave(size.to(device))
            runs[code] = lambda f=flat, b=ragged: knn_graph(f, 20, b, loop=True)
            bars[code] = ("at most 1x", "")
        yield f"{name}, ragged", runs, bars


def union(device: str) -> Iterator[Case]:
    teacher = torch.randn(B * N, 256, device=device) / 16
    student = (torch.randn(B * N, 64, device=device) / 8).requires_grad_()
    batch = torch.arange(B, device=device).repeat_interleave(N)
    a = knn_graph(teacher, 20, batch, loop=True)
    b = knn_graph(student, 10, batch, loop=True)

    def ours() -> None:
        student.grad = None
        lsp(student, teacher, union_edges(a, b, B * N)).backward()

    def naive() -> None:
        student.grad = None
        naive_union_lsp(student, teacher, a, b).backward()

    # Random features of many channels are about equally far apart; only the time matters here.
    warnings.filterwarnings("ignore", message=".* is blind here")
    ours()
    grad = student.grad
    naive()
    torch.testing.assert_close(student.grad, grad, rtol=1e-3, atol=1e-8)
    yield (
        "Union LSP, k 20 and 10, F 256 and 64",
        {"ours": ours, "coalesce + gather": naive},
        {"coalesce + gather": ("18x", "")},
    )


def peak_memory(run: Run, device: str) -> int:
    """Add what NumPy held at most, which torch does not see, to what torch held at most."""
    peak = harness.peak_memory(run, device)
    tracemalloc.start()
    run()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + held


def stored(device: str, work: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows and times of other work, so that parts may run one by one."""
    path = harness.path_of("edge_conv", device).with_suffix(".json")
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = [row for row in known.get("rows", []) if row["work"] != work]
    return rows, {name: times for name, times in known.get("raw", {}).items() if name != work}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=["layers", "models", "neighbours", "union"])
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    groups: dict[str, Callable[[], Iterator[Case]]] = {
        "layers": lambda: (
            case
            for widths in ((64, 64, 20), (128, 256, 20), (32, 64, 10))
            for case in layers(*widths, args.device)
        ),
        "models": lambda: models(args.device),
        "neighbours": lambda: neighbours(args.device),
        "union": lambda: union(args.device),
    }
    clock = "wall" if torch.device(args.device).type == "cuda" else "cpu"
    note = (
        f"8 clouds of 1,024 points unless stated, neighbours included, {clock} time, median; "
        "time and memory as multiples of ours, the bar is the least. Memory is the peak of torch's "
        "allocator plus that of NumPy's."
    )
    for group in args.only:
        for name, candidates, bars in groups[group]():
            times = harness.interleave(candidates, args.repeats, device=args.device)
            base = harness.summary(times["ours"][clock])[0]
            memory = {c: peak_memory(f, args.device) for c, f in candidates.items()}
            rows, raw = stored(args.device, name)
            for candidate in candidates:
                time, spread = harness.summary(times[candidate][clock])
                bar = bars.get(candidate, ("", ""))
                row: dict[str, Any] = {"work": name, "code": candidate}
                row |= {"ms": f"{time:.1f}", "IQR": f"{spread:.1f}"}
                row |= {"time": f"{time / base:.2f}x", "bar": bar[0]}
                row["peak MB"] = f"{memory[candidate] / 1e6:.1f}"
                row |= {"memory": f"{memory[candidate] / memory['ours']:.1f}x", "bar of it": bar[1]}
                rows.append(row)
                print(row, flush=True)
            rows.sort(key=lambda row: row["work"])  # stable
            harness.write("edge_conv", rows, raw | {name: times}, note, args.device)


if __name__ == "__main__":
    main()
