"""Models pruned and distilled unedited: what is left, what is kept, and whether all is equal.

    python benchmarks/zoo/zoo.py [--only NAME] [--save] [--again]

An interrupted command goes on where it was (runs/zoo.jsonl); --again begins anew.

Where Torch-Pruning is installed (``pip install torch-pruning``), the same models go through it in
the same run, by ``zoo_peers.py``.

What is asked of distilled models is told in zoo_distil.py.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch_geometric
from torch import nn
from zoo_distil import distil_row, distil_table
from zoo_graphs import HIDDEN, Model
from zoo_models import asked, resumed
from zoo_peers import gap, peer_cells, peer_rows, peer_summary, peers

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.example import Example

RESULTS = Path(__file__).parents[1] / "results"


def row_of(model: Model, hidden: int = HIDDEN) -> dict[str, Any]:
    """Prune one model to about half and return its row of the table."""
    torch.manual_seed(0)
    row: dict[str, Any] = {"model": model.name, "family": model.family, "pruned": False}
    try:
        net, inputs = model.build(hidden), model.example()
        example = Example(inputs, model.call)
        with torch.no_grad():
            example.run(net.eval())
    except Exception as error:
        return row | {"reason": f"does not run: {type(error).__name__}: {str(error)[:80]}"}
    before = sum(p.numel() for p in net.parameters())
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pruner = Pruner(net, Random(0), keep=0.5, example=inputs, call=model.call)
            table = pruner.explain()
            row["outputs"] = [r.name for r in table if r.is_natural]
            pruner.step()
            small = pruner.compact()
        except Exception as error:
            text = " ".join(str(error).split())
            return row | {"reason": f"{type(error).__name__}: {text[:240]}"}
    row["seconds"] = round(time.process_time() - start, 2)
    row["share"] = round(sum(p.numel() for p in small.parameters()) / before, 3)
    row["pruned"] = row["share"] < 1
    row["error"], row["double"] = errors(net, small, example)
    kept = [r for r in table if not r.is_natural]
    row["kept"] = [{"name": r.name, "why": r.why, "where": r.where} for r in kept]
    row["reason"] = "; ".join(f"{r.name}: {r.why} [{r.where}]" for r in kept)[:240]
    return row


@torch.no_grad()
def errors(masked: nn.Module, small: nn.Module, example: Example) -> tuple[float, float | None]:
    """The difference in the model's own type and in float64."""
    torch.manual_seed(0)
    a, b = copy.deepcopy(masked).eval(), copy.deepcopy(small).eval()
    single = gap(example.run(a), example.run(b))
    try:
        inputs = example.to(torch.float64)
        return single, gap(inputs.run(a.double()), inputs.run(b.double()))
    except Exception:
        return single, None


def report(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    ran = [row for row in rows if not row["reason"].startswith("does not run")]
    pruned = [row for row in ran if row["pruned"]]
    wrong = [row for row in pruned if row["error"] > 1e-5]
    lines = [
        f"{len(ran)} models ran, {len(pruned)} were pruned with an example alone, "
        f"{len(pruned) - len(wrong)} of them equal when compacted (1e-5 of the largest output, "
        f"{sum((row['double'] or 0) <= 1e-10 for row in pruned)} to 1e-10 in float64), "
        f"{len(wrong)} wrong. By `python benchmarks/zoo/zoo.py --save` with torch "
        f"{torch.__version__} and PyG {torch_geometric.__version__}: "
        "`Pruner(model, Random(0), keep=0.5, example=...)`, one step, `compact()`.",
        "",
        *peer_summary(ran),
        "Left: parameters left. Error: largest difference of compacted and masked, relative to the "
        "largest output. Seconds: CPU time to follow, verify, prune and compact, one thread, "
        "beside other work.",
        "",
    ]
    heads = ["model", "from", "left", "error", "in float64", "seconds", *peer_cells(None)]
    lines += ["| " + " | ".join([*heads, "kept, and why"]) + " |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = [row["model"], row["family"]]
        if "share" in row:
            double = "" if row["double"] is None else f"{row['double']:.0e}"
            cells += [f"{row['share']:.0%}", f"{row['error']:.0e}", double, f"{row['seconds']:.1f}"]
        else:
            cells += ["", "", "", ""]
        cells += peer_cells(row.get("peers", {}))
        cells.append(row["reason"].replace("|", "/").replace("<", "&lt;"))
        lines.append("| " + " | ".join(cells) + " |")
    distilled = [row["distil"] for row in rows if "distil" in row]
    lines += ["", *distil_table(distilled)] if distilled else []
    return "\n".join(lines) + "\n"


def whole_row(model: Model) -> dict[str, Any]:
    """Prune one model, by Torch-Pruning too where it is installed, and distil it."""
    row, tp = row_of(model), peers()
    outputs = row.pop("outputs", None)
    if tp is not None and not row["reason"].startswith("does not run"):
        row["peers"] = peer_rows(tp, model, outputs)
    return row | {"distil": distil_row(model)}


def main() -> None:
    models, options = asked(__doc__)
    rows = []
    for row in resumed("zoo", models, whole_row, options.again):
        rows.append(row)
        print(
            f"{row['model']:28} {row.get('share', '-'):>6} {row.get('error', -1):8.1e} "
            f"{row.get('double') or 0:8.1e} {row.get('seconds', 0):5.1f}s {row['reason'][:330]} "
            + "; ".join(f"{r['state']} {r['why']}" for r in row.get("peers", {}).values()),
            flush=True,
        )
    print(len(rows), "models,", sum(row["pruned"] for row in rows), "pruned")
    if options.save:
        (RESULTS / "zoo.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "zoo.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
