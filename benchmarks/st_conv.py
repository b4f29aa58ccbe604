"""STConv and STGCN against PyTorch Geometric Temporal's block and the published STGCN.

Run ``python benchmarks/st_conv.py``. One thread, CPU seconds, candidates in turn, equal weights,
forward + backward, for the blocks (not for the whole model) with a gradient for the input; the
outputs are compared first. T = 12, widths 64-16-64, K = 3, the 8 nearest neighbours of random
points as edges. "Than compiled": how much faster than the peer under torch.compile.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import harness
import torch
from st_peers import (
    PublishedBlock,
    PublishedSTGCN,
    copy_published,
    copy_stgcn,
    copy_temporal,
    laplacian,
    temporal_block,
)
from torch import Tensor, nn

from pyg_stkd.nn.models.stgcn import STGCN
from pyg_stkd.nn.sequence.st_conv import STConv

LARGE = 100_000


def neighbours(num_nodes: int, k: int = 8, seed: int = 0) -> Tensor:
    """Return edges from the k nearest of random points to each."""
    points = torch.rand(num_nodes, 2, generator=torch.Generator().manual_seed(seed))
    near = torch.cdist(points, points).topk(k + 1, largest=False).indices[:, 1:]
    return torch.stack([near.flatten(), torch.arange(num_nodes).repeat_interleave(k)])


def step(model: nn.Module, x: Tensor, *graph: Tensor) -> Callable[[], None]:
    """Return forward + backward; all that it allocates is freed at its end."""

    def run() -> None:
        model(x, *graph).square().mean().backward()
        model.zero_grad()
        x.grad = None

    return run


def compare(
    title: str, ours: nn.Module, peer: nn.Module, x: Tensor, edges: Tensor, bar: float, repeats: int
) -> tuple[dict[str, Any], Any]:
    """Check that both agree, then time and weigh both."""
    published = not title.startswith("PyG Temporal")
    z = x.permute(0, 3, 1, 2).contiguous() if published else x
    z = z.detach().requires_grad_(x.requires_grad)
    with torch.no_grad():
        expected = peer(z) if published else peer(z, edges)
        out = ours(x, edges)
    if out.dim() == 3:
        expected = expected[:, :, 0]
    elif published:
        expected = expected.permute(0, 2, 3, 1)
    error = float((out - expected).abs().max())
    assert error < 1e-4, f"{title}: outputs differ by {error}"
    runs = {"ours": step(ours, x, edges), "peer": step(peer, z, *([] if published else [edges]))}
    both = step(torch.compile(peer, dynamic=False), z, *([] if published else [edges]))
    if harness.runs(both):
        runs["peer, torch.compile"] = both
    times = harness.interleave(runs, repeats)
    memory = {name: harness.peak_memory(run) for name, run in runs.items()}
    a, b, *compiled = (harness.summary(times[name]["cpu"])[0] for name in runs)
    row = {
        "against": title,
        "ours ms": f"{a:.0f}",
        "peer ms": f"{b:.0f}",
        "faster": f"{b / a:.2f}x",
        "bar": f"{bar}x",
        "than compiled": f"{compiled[0] / a:.2f}x" if compiled else "",
        "ours MB": f"{memory['ours'] / 1e6:.0f}",
        "peer MB": f"{memory['peer'] / 1e6:.0f}",
        "memory": f"{memory['ours'] / memory['peer']:.2f}x",
        "largest difference": f"{error:.0e}",
    }
    print(row, flush=True)
    return row, {"times": times, "memory": memory}


def large(num_nodes: int = LARGE) -> None:
    """Print the peak resident memory (bytes) of a process that runs one step on a large graph."""
    edges = torch.stack(
        [torch.randint(num_nodes, (8 * num_nodes,)), torch.arange(num_nodes).repeat_interleave(8)]
    )
    step(STConv(64, 16, 64), torch.randn(1, 12, num_nodes, 64, requires_grad=True), edges)()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main(repeats: int) -> None:
    rows, raw = [], {}
    x = torch.randn(32, 12, 228, 64, requires_grad=True)
    edges = neighbours(228)
    peer, source = temporal_block(228, 64, 16, 64, 3, 3)
    ours = STConv.pyg_temporal(228, 64, 16, 64)
    copy_temporal(ours, peer)
    title = f"PyG Temporal's STConv ({source}), N=228, B=32"
    cases = [(title, ours, peer, x, edges, 4.0, repeats)]

    published = PublishedBlock(64, (64, 16, 64), 3, 3, laplacian(edges, 228))
    block = STConv(64, 16, 64, num_nodes=228)
    copy_published(block, published)
    cases.append(("published block, N=228, B=32", block, published, x, edges, 1.35, repeats))

    edges = neighbours(170)
    model = STGCN(1, 16, 12, num_nodes=170)
    whole = PublishedSTGCN(1, 12, 12, 3, laplacian(edges, 170))
    copy_stgcn(model, whole)
    x = torch.randn(32, 12, 170, 1)
    cases.append(("published STGCN, N=170, B=32", model, whole, x, edges, 1.6, repeats))

    edges = neighbours(8600)
    x = torch.randn(2, 12, 8600, 64, requires_grad=True)
    published = PublishedBlock(64, (64, 16, 64), 3, 3, laplacian(edges, 8600))
    block = STConv(64, 16, 64, num_nodes=8600)
    copy_published(block, published)
    few = max(2, repeats // 3)
    cases.append(("published block, N=8600, B=2", block, published, x, edges, 4.0, few))
    for case in cases:
        row, raw[case[0]] = compare(*case)
        rows.append(row)

    code = [sys.executable, __file__, "--large"]
    peak = int(subprocess.run(code, capture_output=True, text=True, check=True).stdout)
    rows.append({"against": f"(alone) N={LARGE}, B=1, process", "ours MB": f"{peak / 1e6:.0f}"})
    raw["large"] = peak
    harness.write("st_conv", rows, raw, __doc__.partition("\n\n")[2].replace("\n", " ").strip())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--large", action="store_true", help="only the large graph")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.large:
        large()
    else:
        main(args.repeats)
