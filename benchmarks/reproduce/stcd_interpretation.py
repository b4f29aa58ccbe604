"""STCD paper, open question: do students forecast for their teacher's reasons?

    python benchmarks/reproduce/stcd_interpretation.py --root data/metr_la_week

Of the models that stcd_pruning.py has trained (it is run first, with the same options): how much of
the teacher's local and temporal structures a student has, and how alike occlusion finds the time
steps, edges and sensors that both depend on. Beside the table, a page of one pruned student.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from protocol import ALONE, commit
from stcd_pruning import BOTH, NAMES_SHOWN, final
from stcd_task import LAYER, NAMES, RESULTS, load, model_of, options, pruner_of
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))
from experiment import Run, Store
from presentation import Rows, present, spread
from traffic_task import Task

from pyg_stkd.files import write_atomic
from pyg_stkd.report import Interpretation, holm, interpret, machine, p_value

METHODS = (ALONE, "distilled", "pruned", BOTH, "widths distilled")
AT = LAYER["STGCN"]


def trained(result: dict[str, Any], teacher: dict[str, Any], task: Task, store: Store) -> nn.Module:
    """Return the trained model of a stored result."""
    model = model_of(result, teacher, task)
    run = Run(result["method"], result["seed"], result["config"])
    model.load_state_dict(store.load_weights(run))
    return model


def experiment(
    args: argparse.Namespace, stored: dict[str, Any], task: Task, store: Store
) -> tuple[dict[str, Any], Interpretation]:
    """Measure the students of each seed; return the figures, and the pruned one of the first."""
    x = task.train_batch(task.fixed_batches(args.windows, 0)[0])[0]
    runs, first = [], None
    for seed in range(args.seeds):
        of = stored["teachers"][seed]
        teacher = trained(of, of, task, store)
        for method in METHODS:
            result = final(stored)[method][seed]
            pruner = pruner_of(result, teacher) if method == BOTH and first is None else None
            found = interpret(
                teacher, trained(result, of, task, store), (x, *task.graph), (AT, AT),
                pruner=pruner, names=task.plain.names,
            )  # fmt: skip
            first = found if pruner is not None else first
            runs.append({"method": method, "seed": seed, "agreement": found.agreement(),
                         "mae/mean": result["mae/mean"], "commit": commit()})  # fmt: skip
    assert first is not None
    return {"dataset": args.dataset, "windows": args.windows, "runs": runs,
            "channels": first.layers(), "machine": machine()}, first  # fmt: skip


def table(found: dict[str, Any]) -> Rows:
    """Return the agreement of each method, and the difference to the student alone.

    Seeds with nothing to compare (NaN) are left out of either, and told.
    """
    known: dict[str, dict[str, list[float]]] = {}
    for run in found["runs"]:
        for key, value in run["agreement"].items():
            known.setdefault(run["method"], {}).setdefault(key, []).append(value)
    gains = {
        (method, key): _numbers([a - b for a, b in zip(values, known[ALONE][key], strict=True)])
        for method, by_key in known.items()
        if method != ALONE
        for key, values in by_key.items()
    }
    gains = {at: values for at, values in gains.items() if len(values) > 1}
    corrected = dict(zip(gains, holm([p_value(x) for x in gains.values()]), strict=True))

    def cell(method: str, key: str) -> str:
        told = _numbers(known[method][key])
        seeds = len(known[method][key])
        text = spread(told, scale=1) if told else ""
        text += f" of {len(told)} seeds" if 0 < len(told) < seeds else ""
        if (lead := gains.get((method, key))) is None:
            return text
        text += f", {statistics.fmean(lead):+.2f}"
        text += f" of {len(lead)} seeds" if len(lead) < seeds else ""
        return text + ("" if corrected[method, key] < 0.05 else " (not sure)")

    return [
        {"student": NAMES_SHOWN[method]} | {key: cell(method, key) for key in known[method]}
        for method in METHODS
    ]


def _numbers(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def show(found: dict[str, Any], path: Path) -> str:
    """Write the page; return its tables."""
    seeds = len({run["seed"] for run in found["runs"]})
    note = (
        f"How alike students and teachers are on {NAMES[found['dataset']]}, mean ± standard "
        f"deviation over {seeds} seeds with a teacher each, on {found['windows']} windows that "
        "they were trained on; behind it the difference to the dense student alone, paired, 'not "
        "sure' where it is not told from 0 after Holm's correction for all of them. Structures (of "
        "the last block): the share of the teacher's that is kept. Time steps, edges, pairs of "
        "sensors: rank correlation of what their occlusion changes, of the seeds where it changes "
        "anything."
    )
    tables = {"Agreement": table(found),
              "What the pruner took (seed 0)": found["channels"]}  # fmt: skip
    title = f"STCD paper, reasons on {NAMES[found['dataset']]}"
    return present(path, title, f"{title}. {note}", tables, {}, found["machine"])


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(seeds=3)
    parser.add_argument("--windows", type=int, default=16, help="that are looked at (default: 16)")
    parser.add_argument("--page", type=Path, help="where the page of one student is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = args.dataset.replace("-", "_")
    path = RESULTS / f"stcd_interpretation_{name}.json"
    if args.redraw:
        found = json.loads(path.read_text())
    else:
        stored = json.loads((RESULTS / f"stcd_pruning_{name}.json").read_text())
        for key in ("sensors", "stride"):
            setattr(args, key, stored["options"][key])
        found, one = experiment(args, stored, load(args), Store(args.out / args.dataset))
        write_atomic(path, json.dumps(found, separators=(",", ":")).encode())
        if args.page is not None:
            one.report(f"A pruned student and its teacher on {NAMES[args.dataset]}").save(args.page)
    print(show(found, path))


if __name__ == "__main__":
    main()
