"""An epoch of LSP over graphs of up to 100 million edges, which stay on disk.

    python benchmarks/large_graph.py                             # 1, 3 and 10 million edges
    python benchmarks/large_graph.py --millions 1 3 10 30 100    # 3 GB on disk, --write stores
    python benchmarks/large_graph.py --millions 100 --out runs/large    # goes on where it stopped

A directed graph whose degrees follow a power law, 20 edges a node, lies in memory-mapped files
(CSR, sorted by target) with 64 features a node and 64 that a teacher said of it. An epoch goes
through runs of target nodes of at most a million edges: all sources of their edges are gathered, a
graph attention student runs on them, and every edge is in the loss once. Each size runs in a
process of its own; memory is the most that the process held itself, looked at each 10 ms, and the
most with the pages of files. With --out, sizes that were measured are kept, and so are the files of
the graph at work, each once it is whole; the epoch of a size begins anew.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Write rowptr, col, x and the teacher's features, those that are not there yet."""
    nodes = num_edges // DEGREE
    if not (folder / "col.npy").exists():
        _make_edges(folder, num_edges, nodes, np.random.default_rng(seed))
    for stream, name in enumerate(("x", "teacher"), start=1):
        if (folder / f"{name}.npy").exists():
            continue
        rng = np.random.default_rng([seed, stream])
        with _new(folder / f"{name}.npy", np.float32, nodes, WIDTH) as out:
            for i in range(0, nodes, CHUNK // WIDTH):
                size = min(CHUNK // WIDTH, nodes - i)
                out[i : i + size] = rng.standard_normal((size, WIDTH), dtype=np.float32)


def _make_edges(folder: Path, num_edges: int, nodes: int, rng: np.random.Generator) -> None:
    step = next(p for p in range(int(0.618 * nodes) | 1, nodes, 2) if math.gcd(p, nodes) == 1)
    rank = np.arange(nodes, dtype=np.int64) * step % nodes  # of each node: no order to profit from
    node_of = np.empty(nodes, dtype=np.int32)
    node_of[rank] = np.arange(nodes, dtype=np.int32)
    share = (rank + 1.0) ** -POWER
    ends = np.concatenate([[0.0], np.cumsum(share)])
    rowptr = np.rint(ends * (num_edges / ends[-1])).astype(np.int64)
    np.save(folder / "rowptr.npy", rowptr)
    with _new(folder / "col.npy", np.int32, num_edges) as col:  # the last: rowptr is whole then
        for i in range(0, num_edges, CHUNK):
            uniform = rng.random(min(CHUNK, num_edges - i))
            col[i : i + CHUNK] = node_of[(nodes * uniform ** (1 / (1 - POWER))).astype(np.int64)]


@contextmanager
def _new(path: Path, dtype: Any, *shape: int) -> Iterator[NDArray[Any]]:
    """Give an array on disk, which gets its name once it is whole."""
    part = path.with_suffix(".part")
    out = np.lib.format.open_memmap(part, "w+", dtype, shape)
    yield out
    out.flush()
    part.replace(path)


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
    seen, total, number = 0, 0.0, 0
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
        del out, losses, graph, features  # or the next block would be made beside this one
    return {"edges": seen, "blocks": number, "lsp": total / (rowptr.size - 1)}


def _own_memory() -> int:
    """Return the bytes of memory that are not pages of files (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def one(millions: int, folder: Path, most: int) -> dict[str, float]:
    """Measure a graph of so many edges, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ended, own = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.01):
            own[0] = max(own[0], _own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        found = epoch(folder, Student(), most)
    finally:
        ended.set()
        watcher.join()
    found |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "own": own[0]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"millions": millions, **found, "peak": peak}


def measure(millions: int, place: Path, most: int) -> dict[str, Any]:
    """Make a graph in a folder and measure it, each in a process of its own."""
    make = "import sys, large_graph as g; g.make_graph(g.Path(sys.argv[1]), int(sys.argv[2]))"
    subprocess.run(
        [sys.executable, "-c", make, str(place.absolute()), str(millions * 10**6)],
        check=True,
        cwd=Path(__file__).parent,
    )
    command = [sys.executable, __file__, "--one", str(place), "--millions", str(millions)]
    command += ["--most", str(most)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(out)
    assert found["edges"] == millions * 10**6, "every edge is in the loss once"
    assert math.isfinite(found["lsp"])
    return found


def measured(millions: int, most: int, out: Path | None) -> dict[str, Any]:
    """Return what was measured of a size, or measure it."""
    if out is None:
        with tempfile.TemporaryDirectory() as place:
            return measure(millions, Path(place), most)
    kept, place = out / f"{millions}.json", out / f"graph-{millions}"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    place.mkdir(parents=True, exist_ok=True)
    found = measure(millions, place, most)
    write_atomic(kept, json.dumps(found).encode())
    shutil.rmtree(place)
    return found


def main() -> None:
    """Measure all sizes, print them and, with --write, store them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--millions", type=int, nargs="*", default=[1, 3, 10])
    parser.add_argument("--most", type=int, default=1_000_000, help="edges of a block")
    parser.add_argument("--out", type=Path, help="keep graphs and results here, and go on")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--busy", action="store_true", help="others ran too: no CPU times")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(one(args.millions[0], args.one, args.most)))
        return
    rows, raw = [], []
    for millions in args.millions:
        found = measured(millions, args.most, args.out)
        raw.append(found)
        row = {
            "edges": f"{millions} M",
            "nodes": f"{millions * 10**6 // DEGREE:,}",
            "blocks": str(found["blocks"]),
            "epoch, CPU time": f"{found['cpu']:.1f} s",
            "edges a second": f"{found['edges'] / found['cpu'] / 1e3:.0f} k",
            "wall time, shared machine": f"{found['wall'] / 60:.1f} min",
            "own memory": f"{found['own'] / GIB:.2f} GiB",
            "with pages of files": f"{found['peak'] / GIB:.2f} GiB",
            "bar": "12 GiB" if millions == 100 else "",
        }
        rows.append(row)
        print(row, flush=True)
        times = ("epoch, CPU time", "edges a second")
        for name in times if args.busy else ("wall time, shared machine",):
            del row[name]
    if args.write:
        sizes = " ".join(map(str, args.millions))
        busy = " --busy" if args.busy else ""
        command = f"python benchmarks/large_graph.py --millions {sizes}{busy} --write"
        note = "An epoch of LSP and the task, forward and backward, every edge once."
        note += " Other work shared the machine." if args.busy else ""
        kept = [{k: v for k, v in found.items() if not args.busy or k != "cpu"} for found in raw]
        store("edges", rows, command, note, kept)


if __name__ == "__main__":
    main()
