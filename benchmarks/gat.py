"""GATConv against PyG's: time forward + backward, and peak memory. Writes results/gat.*"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import harness
import torch
import torch_geometric.nn
from torch import Tensor

import pyg_stkd.nn
from pyg_stkd.graph import Graph

SIZES = {"1024 to 4x256": (1024, 4, 256), "136 to 2x68": (136, 2, 68)}


def step(conv: torch.nn.Module, x: Tensor, edges: Any, grad: Tensor) -> Callable[[], list[Tensor]]:
    def run() -> list[Tensor]:
        x.grad = None
        conv.zero_grad()
        out = conv(x, edges)
        out.backward(grad)
        return [out.detach(), x.grad, *(p.grad for _, p in sorted(conv.named_parameters()))]

    return run


def check(candidates: dict[str, Callable[[], list[Tensor]]], bound: float) -> float:
    """Compare outputs and gradients with the first candidate's, relative to the largest value."""
    worst = 0.0
    expected, *others = [run() for run in candidates.values()]
    for other in others:
        for a, b in zip(other, expected, strict=True):
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1.0)))
    assert worst < bound, f"results differ by {worst}"
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--nodes", type=int, default=4744)
    parser.add_argument("--edges", type=int, default=128_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clock = "wall" if args.device.startswith("cuda") else "cpu"
    edge_index = torch.randint(args.nodes, (2, args.edges), device=args.device)
    rows, raw = [], {}
    for name, (width, heads, channels) in SIZES.items():
        ours = pyg_stkd.nn.GATConv(width, channels, heads).to(args.device)
        theirs = torch_geometric.nn.GATConv(width, channels, heads).to(args.device)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(args.nodes, width, device=args.device)
        grad = torch.randn(args.nodes, heads * channels, device=args.device)
        graph = Graph(edge_index, args.nodes)

        double = [x.double().requires_grad_(), edge_index, grad.double()]
        pair = {"PyG": step(theirs.double(), *double), "ours": step(ours.double(), *double)}
        error64 = check(pair, 1e-12)
        x.requires_grad_()
        candidates = {
            "PyG": step(theirs.float(), x, edge_index, grad),
            "ours, Graph": step(ours.float(), x, graph, grad),
            "ours, edge_index": step(ours, x, edge_index, grad),
        }
        compiled = step(torch.compile(theirs, dynamic=False), x, edge_index, grad)
        if harness.runs(compiled):
            candidates["PyG, torch.compile"] = compiled
        error32 = check(candidates, 1e-5)
        memory = {n: harness.peak_memory(run, args.device) for n, run in candidates.items()}
        times = harness.interleave(candidates, args.repeats, device=args.device)
        raw[name] = {"times": times, "memory": memory, "error": [error32, error64]}
        base = harness.summary(times["PyG"][clock])[0]
        for candidate in candidates:
            median, spread = harness.summary(times[candidate][clock])
            peak = memory[candidate]
            rows.append(
                {
                    "layer": name,
                    "code": candidate,
                    f"{clock} ms": f"{median:.1f}",
                    "spread": f"{spread:.1f}",
                    "speed": f"{base / median:.1f}x",
                    "wall ms": f"{harness.summary(times[candidate]['wall'])[0]:.1f}",
                    "peak MB": f"{peak / 1e6:.0f}",
                    "memory": f"1/{memory['PyG'] / peak:.0f}",
                }
            )
    note = (
        f"GATConv forward + backward, N {args.nodes}, E {args.edges} and self-loops, float32; "
        f"median of {args.repeats} interleaved repeats and interquartile range; outputs and "
        "gradients checked against PyG's to 1e-5 (float32) and 1e-12 (float64) first; peak memory "
        "is what torch's allocator held above the start of a call."
    )
    print(note, *rows, sep="\n")
    harness.write("gat", rows, raw, note, args.device)


if __name__ == "__main__":
    main()
