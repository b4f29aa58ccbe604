"""An epoch of LSP over graphs of up to 100 million edges, which stay on disk.

    python benchmarks/large_graph.py                             # 1, 3 and 10 million edges
    python benchmarks/large_graph.py --millions 1 3 10 30 100    # 3 GB on disk, --write stores

A directed graph whose degrees follow a power law, 20 edges a node, lies in memory-mapped files
(CSR, sorted by target) with 64 features a node and 64 that a teacher said of it. An epoch goes
through runs of target nodes of at most a million edges: all sources of their edges are gathered, a
graph attention student runs on them, and every edge is in the loss once. Each size runs in a
process of its own; memory is what the process holds itself, and with the pages of files.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scale import store
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd import Distiller
from pyg_stkd.distill import LSPLoss
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import GATConv
from pyg_stkd.report import write_atomic

WIDTH, DEGREE, CLASSES = 64, 20, 8
POWER = 0.7  # of a node's rank: degrees then fall as 1 / degree ** (1 + 1 / 0.7)
CHUNK = 1 << 22
GIB = 2**30


def make_graph(folder: Path, num_edges: int, seed: int = 0) -> None:
    """Write rowptr, col, x and the teacher's features, a chunk after the other."""
    rng = np.random.default_rng(seed)
    nodes = num_edges // DEGREE
    step = next(p for p in range(int(0.618 * nodes) | 1, nodes, 2) if math.gcd(p, nodes) == 1)
    rank = np.arange(nodes, dtype=np.int64) * step % nodes  # of each node: no order to profit from
    node_of = np.empty(nodes, dtype=np.int32)
    node_of[rank] = np.arange(nodes, dtype=np.int32)
    share = (rank + 1.0) ** -POWER
    ends = np.concatenate([[0.0], np.cumsum(share)])
    rowptr = np.rint(ends * (num_edges / ends[-1])).astype(np.int64)
    np.save(folder / "rowptr.npy", rowptr)
    col = _new(folder / "col.npy", np.int32, num_edges)
    for i in range(0, num_edges, CHUNK):
        uniform = rng.random(min(CHUNK, num_edges - i))
        col[i : i + CHUNK] = node_of[(nodes * uniform ** (1 / (1 - POWER))).astype(np.int64)]
    for name in ("x", "teacher"):
        out = _new(folder / f"{name}.npy", np.float32, nodes, WIDTH)
        for i in range(0, nodes, CHUNK // WIDTH):
            size = min(CHUNK // WIDTH, nodes - i)
            out[i : i + size] = rng.standard_normal((size, WIDTH), dtype=np.float32)


def _new(path: Path, dtype: Any, *shape: int) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def blocks(
    rowptr: NDArray[np.int64], col: NDArray[np.int32], most: int
) -> Iterator[tuple[NDArray[np.int64], int, Graph]]:
    """Yield runs of target nodes: all nodes they need, targets first, how many are targets, and
    the edges that enter these. A node of more edges than :obj:`most` is a run of its own.
    """
    nodes = rowptr.size - 1
    place = np.full(nodes, -1, dtype=np.int32)  # of a node in the block
    start = 0
    while start < nodes:
        stop = int(np.searchsorted(rowptr, rowptr[start] + most, side="right")) - 1
        stop = max(stop, start + 1)
        sources = np.asarray(col[rowptr[start] : rowptr[stop]])
        targets = np.arange(start, stop)
        place[start:stop] = np.arange(stop - start, dtype=np.int32)
        others = np.unique(sources[place[sources] < 0])
        every = np.concatenate([targets, others])
        place[others] = np.arange(stop - start, every.size, dtype=np.int32)
        row = np.repeat(np.arange(stop - start), np.diff(rowptr[start : stop + 1]))
        edges = torch.from_numpy(np.stack([place[sources], row]).astype(np.int64))
        place[every] = -1
        yield every, stop - start, Graph(edges, every.size)
        start = stop


class Student(nn.Module):
    """A layer of graph attention, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = GATConv(WIDTH, 8, heads=4), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.head(self.conv(x, graph).relu())


def epoch(folder: Path, student: nn.Module, most: int, rate: float = 1e-3) -> dict[str, float]:
    """Train a student for an epoch; return the loss over all nodes, and what was counted."""
    rowptr = np.load(folder / "rowptr.npy")
    # Copy-on-write: torch has no tensors that cannot be written to.
    col, x, teacher = (np.load(folder / f"{n}.npy", mmap_mode="c") for n in ("col", "x", "teacher"))
    loss = LSPLoss("", "conv", RBF(), normalize="l2")
    distiller = Distiller(torch.from_numpy(teacher), student, [loss])
    optimizer = torch.optim.SGD(distiller.parameters(), lr=rate)
    seen, total, own, number = 0, 0.0, 0, 0
    for nodes, count, graph in blocks(rowptr, col, most):
        index = torch.from_numpy(nodes)
        features = torch.from_numpy(x[nodes])
        targets = torch.arange(count)
        out, losses = distiller(features, graph, nodes=targets, teacher_args=(index,))
        label = index[:count] % CLASSES
        optimizer.zero_grad()
        (F.cross_entropy(out[:count], label) + losses["lsp"]).backward()
        optimizer.step()
        seen, number = seen + graph.num_edges, number + 1
        total += losses["lsp"].item() * count
        own = max(own, _own_memory())
        # A graph and those made of it hold each other: this returns their memory at once.
        del out, losses, graph, features
        gc.collect()
    return {"edges": seen, "blocks": number, "lsp": total / (rowptr.size - 1), "own": own}


def _own_memory() -> int:
    """Return the bytes of memory that are not pages of files (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def one(millions: int, folder: Path, most: int) -> dict[str, float]:
    """Measure a graph of so many edges, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cpu, wall = time.process_time(), time.perf_counter()
    found = epoch(folder, Student(), most)
    found |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"millions": millions, **found, "peak": peak}


def measure(millions: int, folder: Path, most: int) -> dict[str, Any]:
    """Make a graph and measure it, each in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        make = "import sys, large_graph as g; g.make_graph(g.Path(sys.argv[1]), int(sys.argv[2]))"
        here = Path(__file__).parent
        subprocess.run(
            [sys.executable, "-c", make, place, str(millions * 10**6)], check=True, cwd=here
        )
        command = [sys.executable, __file__, "--one", place, "--millions", str(millions)]
        command += ["--most", str(most)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(out)
    assert found["edges"] == millions * 10**6, "every edge is in the loss once"
    assert math.isfinite(found["lsp"])
    return found


def main() -> None:
    """Measure all sizes, print them and, with --write, store them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--millions", type=int, nargs="*", default=[1, 3, 10])
    parser.add_argument("--most", type=int, default=1_000_000, help="edges of a block")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="keep results here, and do not measure them again")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--busy", action="store_true", help="leave times out: others ran too")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(one(args.millions[0], args.one, args.most)))
        return
    rows, raw = [], []
    for millions in args.millions:
        kept = None if args.out is None else args.out / f"{millions}.json"
        if kept is not None and kept.exists():
            found = json.loads(kept.read_text())
        else:
            found = measure(millions, args.folder, args.most)
        if kept is not None:
            write_atomic(kept, json.dumps(found).encode())
        raw.append(found)
        row = {
            "edges": f"{millions} M",
            "nodes": f"{millions * 10**6 // DEGREE:,}",
            "blocks": str(found["blocks"]),
            "epoch, CPU time": f"{found['cpu']:.1f} s",
            "edges a second": f"{found['edges'] / found['cpu'] / 1e3:.0f} k",
            "own memory": f"{found['own'] / GIB:.2f} GiB",
            "with pages of files": f"{found['peak'] / GIB:.2f} GiB",
            "bar": "12 GiB" if millions == 100 else "",
        }
        rows.append(row)
        print(row, flush=True)
        for name in ("epoch, CPU time", "edges a second") if args.busy else ():
            del row[name]
    if args.write:
        sizes = " ".join(map(str, args.millions))
        busy = " --busy" if args.busy else ""
        command = f"python benchmarks/large_graph.py --millions {sizes}{busy} --write"
        note = "An epoch of LSP and the task, forward and backward, every edge once."
        kept = [
            {k: v for k, v in found.items() if not args.busy or k not in ("cpu", "wall")}
            for found in raw
        ]
        store("edges", rows, command, note, kept)


if __name__ == "__main__":
    main()
