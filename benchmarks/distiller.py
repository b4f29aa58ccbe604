"""What a distiller with three losses costs, beside the same training step written by hand.

    python benchmarks/distiller.py

By hand is what one would write without it: two forward hooks on either model that keep what the
layers return, the two forwards, and the three losses of this package's functions on that. The
losses are a layer's hint, the outputs, and the local structure or attention transfer. The smallest
graph shows the cost of the book-keeping itself, the size of PPI what is left of it in use.

At that size more than half of the CPU time of either way goes into pages of memory that the
allocator gave back to the system and must be given anew, some twenty thousand in a call, more or
less of them by how the blocks of the call happen to lie. That is settled once a process, so each
row is the median over several processes, in which the three ways take turns; the way that comes
first is another one in each. Pages are counted, and all is measured once more where glibc keeps
what it was given.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from harness import write
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd import Distiller
from pyg_stkd.distill import AttentionTransferLoss, HintLoss, LSPLoss, SoftTargetLoss
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.timing import interleave

# Of glibc; others pay it no heed.
KEEPS = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
ALLOCATORS: dict[str, dict[str, str]] = {"as it comes": {}, "keeps memory": KEEPS}
CASES = {"5 nodes": (5, 10, 8, 16, 8), "PPI's size": (2372, 34000, 50, 256, 64)}
THIRD = {"local structure": LSPLoss, "attention": AttentionTransferLoss}


class ByHand:
    """The same losses without a distiller."""

    def __init__(self, teacher: nn.Module, student: nn.Module, hint: nn.Module, graph: Graph):
        self.models, self.hint, self.graph = (teacher, student), hint, graph
        self.seen: list[dict[str, Tensor]] = [{}, {}]
        for model, seen in zip(self.models, self.seen, strict=True):
            for layer in ("convs.0", "convs.1"):
                model.get_submodule(layer).register_forward_hook(
                    lambda *call, seen=seen, layer=layer: seen.__setitem__(layer, call[2])
                )

    def __call__(self, x: Tensor, edge_index: Tensor, third: str) -> tuple[Tensor, list[Tensor]]:
        teacher, student = self.models
        with torch.no_grad():
            t = teacher(x, edge_index)
        s = student(x, edge_index)
        of_teacher, of_student = self.seen
        soft = F.kl_div(
            (s / 4).log_softmax(-1), (t / 4).log_softmax(-1), reduction="batchmean", log_target=True
        )
        hint = F.mse_loss(self.hint(of_student["convs.0"]), of_teacher["convs.0"])
        a, b = of_student["convs.1"], of_teacher["convs.1"]
        if third == "attention":
            gap = F.normalize(a.square().sum(-1), dim=0) - F.normalize(b.square().sum(-1), dim=0)
            return s, [soft * 16, hint, gap.norm()]
        return s, [soft * 16, hint, lsp(a, b, self.graph, RBF())]


def candidates(
    nodes: int, edges: int, channels: int, wide: int, thin: int, third: str
) -> dict[str, Callable[[], Any]]:
    """Return the two forwards alone, these with losses by hand, and the distiller, of equal values.

    Each has models of its own: those of the forwards alone have no hooks.
    """
    torch.manual_seed(0)
    x, edge_index = torch.randn(nodes, channels), torch.randint(nodes, (2, edges))
    teacher, student = GCN(channels, wide, 2, 3).eval(), GCN(channels, thin, 2, 3)
    bare = copy.deepcopy((teacher, student))
    hint = HintLoss("convs.0", "convs.0")
    losses = [SoftTargetLoss(), hint, THIRD[third]("convs.1", "convs.1")]
    distiller = Distiller(*copy.deepcopy((teacher, student)), losses)
    distiller.check(x, edge_index)
    projection = copy.deepcopy(hint.projection)
    by_hand = ByHand(teacher, student, projection, Graph(edge_index, nodes))
    expected = by_hand(x, edge_index, third)[1]
    for value, other in zip(distiller(x, edge_index)[1].values(), expected, strict=True):
        torch.testing.assert_close(value, other)

    def forwards() -> Any:
        with torch.no_grad():
            bare[0](x, edge_index)
        return bare[1](x, edge_index)

    return {
        "forwards": forwards,
        "by hand": lambda: by_hand(x, edge_index, third),
        "distiller": lambda: distiller(x, edge_index),
    }


def main() -> None:
    """Time every size, print the table, and write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=7, help="of each allocator")
    parser.add_argument("--repeats", type=int, default=12, help="turns in each process")
    parser.add_argument("--write", action="store_true", help="keep the results")
    parser.add_argument("--first", type=int, help="measure in this process, this way first")
    parser.add_argument("--out", type=Path, help="where the times of one process go")
    options = parser.parse_args()
    if options.first is not None:
        options.out.write_text(json.dumps(measure(options.first, options.repeats)))
        return
    raw: dict[str, list[Any]] = {}
    for number in range(options.processes):  # the allocators take turns, too
        for allocator, settings in ALLOCATORS.items():  # read when a process starts
            for case, seen in _in_a_process(settings, number, options.repeats).items():
                raw.setdefault(f"{case}, {allocator}", []).append(seen)
    rows = [row_of(case, processes) for case, processes in raw.items()]
    for row in rows:
        print(row)
    if options.write:
        note = (
            f"CPU time of a call, without the backward; *by hand*: forwards, hooks and losses "
            f"without a distiller. Each figure is the median over {options.processes} processes "
            f"(from the least to the most of them) of the medians of {options.repeats} turns; "
            f"beyond: of the differences within a turn; *page faults*: in a call by hand and of "
            f"the distiller."
        )
        write("distiller", rows, raw, note)


def measure(first: int, repeats: int) -> dict[str, Any]:
    """Return the times and page faults of all cases in this process, by case."""
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # the modules are not looked through again and again
    seen = {}
    for name, sizes in CASES.items():
        for third in THIRD:
            inner = 20 if sizes[0] < 100 else 1
            calls = {key: _times(run, inner) for key, run in candidates(*sizes, third).items()}
            order = [list(calls)[(first + i) % len(calls)] for i in range(len(calls))]
            times = interleave({key: calls[key] for key in order}, repeats=repeats, warmup=3)
            cpu = {key: [t / inner for t in times[key]["cpu"]] for key in calls}
            faults = {key: _faults(calls[key]) / inner for key in ("by hand", "distiller")}
            seen[f"{name}, {third}"] = {"cpu": cpu, "faults": faults}
    return seen


def row_of(case: str, processes: list[dict[str, Any]]) -> dict[str, str]:
    """Return the row of a case from what each process saw."""
    row = dict(zip(("graph", "third loss", "allocator"), case.split(", "), strict=True))
    times = [seen["cpu"] for seen in processes]
    for way in times[0]:
        row[way] = f"{1e3 * statistics.median(statistics.median(t[way]) for t in times):.3f} ms"
    row["beyond forwards"] = _spread([1e3 * _beyond(t, "forwards") for t in times], ".3f", " ms")
    beyond = [_beyond(t, "by hand") for t in times]
    row["beyond by hand"] = _spread([1e3 * gap for gap in beyond], ".3f", " ms")
    shares = [
        100 * gap / statistics.median(t["by hand"]) for gap, t in zip(beyond, times, strict=True)
    ]
    row["share"] = _spread(shares, ".1f", " %")
    row["page faults"] = " and ".join(
        f"{statistics.median(seen['faults'][way] for seen in processes):,.0f}"
        for way in ("by hand", "distiller")
    )
    return row


def _in_a_process(settings: dict[str, str], number: int, repeats: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        command = [sys.executable, __file__, "--repeats", str(repeats)]
        command += ["--first", str(number), "--out", str(out)]
        subprocess.run(command, env={**os.environ, **settings}, check=True)
        seen: dict[str, Any] = json.loads(out.read_text())
    return seen


def _spread(values: list[float], form: str, unit: str) -> str:
    """Return the median of values, and from where to where they go."""
    least, most = (format(x, form) for x in (min(values), max(values)))
    return f"{statistics.median(values):{form}}{unit} ({least} to {most})"


def _faults(run: Callable[[], Any], calls: int = 9) -> float:
    """Return how many pages a call makes the system give (median)."""
    counts = []
    for _ in range(calls):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return statistics.median(counts)


def _beyond(cpu: dict[str, list[float]], base: str) -> float:
    """Return the median of what the distiller took longer."""
    return statistics.median(a - b for a, b in zip(cpu["distiller"], cpu[base], strict=True))


def _times(run: Callable[[], Any], count: int) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(count):
            run()

    return repeat


if __name__ == "__main__":
    main()
