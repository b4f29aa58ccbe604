"""Narrow forecasters that stop learning: does a learning rate that rises first keep them alive?

    python benchmarks/reproduce/stcd_warmup.py --dataset pemsd8 --root data/pems08_graph

The dense student of 3 % of its teacher's parameters has graph convolutions of four channels; where
a ReLU switches all four off, what follows is the same for any input. Distilled students from each
seed, at two rates that fall from the first step, as by default, or rise for a tenth of the steps.
Raw results: benchmarks/results/stcd_warmup_*.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stcd_pruning import methods_of
from stcd_task import NAMES, common, make, of_teacher, options, teachers_of, train

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))
from experiment import Run, Store
from presentation import Rows, present, spread
from traffic_task import Task

from pyg_stkd.report import interval

RATES = (0.01, 0.02)
RISES = {"falls": 0.0, "rises, then falls": 0.1}  # the share of the steps for which a rate rises
DENSE = [[12, 4, 12], [12, 4, 12], [14, 14]]


def experiment(args: argparse.Namespace, task: Task, store: Store) -> dict[str, Any]:
    """Train the teachers, and their students at each rate in both ways."""
    teachers = teachers_of(args.seeds, of_teacher(args), task, store, tuning=False)
    distilled = next(m for m in methods_of(DENSE, 0) if m.name == "distilled")
    runs = []
    for rate in RATES:
        for rise in RISES.values():
            config = common(args) | distilled.fixed | {"lr": rate}
            config |= {"rise": rise} if rise else {}
            runs += [
                train(Run("distilled", seed, config), task, store, teachers[seed][0])
                for seed in range(args.seeds)
            ]
    return {
        "dataset": args.dataset,
        "persistence": task.baselines()["persistence"]["mae/mean"],
        "options": {key: value for key, value in vars(args).items() if key in ("steps", "seeds")},
        "teachers": [teachers[seed][1] for seed in range(args.seeds)],
        "runs": [{k: v for k, v in run.items() if k != "history"} for run in runs],
    }


def students(found: dict[str, Any]) -> Rows:
    """Return the errors at each rate; a student that stopped learning is far above the others."""
    table = []
    for rate in RATES:
        errors = {
            way: [
                run["mae/mean"]
                for run in found["runs"]
                if run["config"]["lr"] == rate and run["config"].get("rise", 0.0) == rise
            ]
            for way, rise in RISES.items()
        }
        lower = interval([a - b for a, b in zip(*errors.values(), strict=True)])
        for way, each in errors.items():
            table.append({
                "learning rate": f"{rate:g}, {way}",
                "error": spread(each, scale=1),
                "by seed": ", ".join(f"{error:.2f}" for error in each),
                "lower by": f"{lower:.3f}" if RISES[way] else "",
            })  # fmt: skip
    return table


def show(found: dict[str, Any], path: Path) -> str:
    """Write the page; return its table."""
    note = (
        f"Distilled dense students of {found['runs'][0]['parameters']:,} parameters on "
        f"{NAMES[found['dataset']]}, {found['options']['steps']} steps, {len(found['teachers'])} "
        "seeds with a teacher each, untuned. Errors are MAE in mph, differences paired by seed, "
        f"intervals hold 95 %. Persistence has {found['persistence']:.2f}; at about 13 a forecast "
        "is the same for any input."
    )
    title = f"STCD paper, rates that rise first on {NAMES[found['dataset']]}"
    return present(
        path,
        title,
        f"{title}. {note}",
        {"Students": students(found)},
        {},
        found["runs"][-1]["machine"],
    )


def main() -> None:
    parser = options(__doc__)
    args = parser.parse_args()
    if args.settings is not None:
        parser.error(f"--settings must not be given: nothing is tuned here (got {args.settings})")
    make("warmup", args, experiment, show)


if __name__ == "__main__":
    main()
