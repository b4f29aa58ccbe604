"""What a distiller with three losses adds to the forwards of its two models.

    python benchmarks/distiller.py

The smallest graph shows the cost of the book-keeping itself, the size of PPI what is left of it in
use. The losses are a layer's hint, the outputs and the local structure; the two forwards alone, and
the losses computed by hand from captured tensors, are timed in turn. "with attention" has attention
transfer in the place of the local structure.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from harness import interleave, summary, write
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd import Distiller
from pyg_stkd.distill import AttentionTransferLoss, HintLoss, LSPLoss, SoftTargetLoss
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph

CASES = {"5 nodes": (5, 10, 8, 16, 8), "PPI's size": (2372, 34000, 50, 256, 64)}


def build(nodes: int, edges: int, channels: int, wide: int, thin: int) -> tuple[Any, ...]:
    """Return a distiller with three losses, and a random graph of so many nodes and edges."""
    torch.manual_seed(0)
    x, edge_index = torch.randn(nodes, channels), torch.randint(nodes, (2, edges))
    teacher, student = GCN(channels, wide, 2, 3), GCN(channels, thin, 2, 3)
    losses = [SoftTargetLoss(), HintLoss("convs.0", "convs.0"), LSPLoss("convs.1", "convs.1")]
    distiller = Distiller(teacher, student, losses)
    distiller.check(x, edge_index)
    return distiller, x, edge_index


def candidates(distiller: Distiller, x: Tensor, edge_index: Tensor) -> dict[str, Callable[[], Any]]:
    """Return the two forwards alone, the distiller, and the losses alone on what it captured."""
    teacher, student = distiller.teacher, distiller.student
    seen: dict[str, Tensor] = {}
    for name, model in (("t", teacher), ("s", student)):
        for layer in ("convs.0", "convs.1"):
            module: nn.Module = model.get_submodule(layer)
            handle = module.register_forward_hook(
                lambda _, args, out, key=name + layer: seen.__setitem__(key, out.detach())
            )
            model(x, edge_index)
            handle.remove()
        seen[name] = model(x, edge_index).detach()
    _, hint, local = distiller.losses.values()
    graph = Graph(edge_index, x.size(0))

    attention = AttentionTransferLoss("convs.1", "convs.1")
    losses = [SoftTargetLoss(), HintLoss("convs.0", "convs.0"), attention]
    other = Distiller(copy.deepcopy(teacher), copy.deepcopy(student), losses)
    other.check(x, edge_index)

    def forwards() -> None:
        with torch.no_grad():
            teacher(x, edge_index)
        student(x, edge_index)

    def by_hand() -> None:
        t, s = seen["t"] / 4, seen["s"] / 4
        nn.functional.kl_div(
            s.log_softmax(-1), t.log_softmax(-1), reduction="batchmean", log_target=True
        )
        nn.functional.mse_loss(hint.projection(seen["sconvs.0"]), seen["tconvs.0"])
        lsp(seen["sconvs.1"], seen["tconvs.1"], graph, local.kernel)

    return {
        "forwards": forwards,
        "losses": by_hand,
        "distiller": lambda: distiller(x, edge_index),
        "with attention": lambda: other(x, edge_index),
    }


def main() -> None:
    """Time every size, print the table, and write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--write", action="store_true", help="keep the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, raw = [], {}
    for name, sizes in CASES.items():
        runs = candidates(*build(*sizes))
        inner = 20 if sizes[0] < 100 else 1
        repeated = {key: _times(run, inner) for key, run in runs.items()}
        times = interleave(repeated, repeats=options.repeats, warmup=3)
        cpu = {key: [t / inner for t in value["cpu"]] for key, value in times.items()}
        added = {
            key: statistics.median(a - b for a, b in zip(cpu[key], cpu["forwards"], strict=True))
            for key in ("distiller", "with attention")
        }
        raw[name] = cpu
        row = {"graph": name}
        row |= {key: f"{summary(value)[0]:.3f} ms" for key, value in cpu.items()}
        row["added"] = f"{1e3 * added['distiller']:.3f} ms"
        row["added with attention"] = f"{1e3 * added['with attention']:.3f} ms"
        rows.append(row)
        print(row)
    if options.write:
        note = "CPU time of a call; `added` is the median of the distiller's less the forwards'."
        write("distiller", rows, raw, note)


def _times(run: Callable[[], Any], count: int) -> Callable[[], None]:
    def repeat() -> None:
        for _ in range(count):
            run()

    return repeat


if __name__ == "__main__":
    main()
