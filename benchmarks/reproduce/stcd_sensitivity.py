"""STCD paper: how much the weights, the kernel's width and the pruning step matter.

    python benchmarks/reproduce/stcd_sensitivity.py --root data/metr_la_week

Over three decades each, on validation and test, mean over seeds with a teacher each: the weights
a2 and a3 of the spatial and the temporal correlation; the teacher's odds alpha / (1 - alpha) and
the width beta of the gate that finds outliers (standard deviations of the readings); the width
sigma of the kernel with one weight for both correlations; the share that a stage of pruning keeps
and the steps that it trains for. The default that is recommended is what no cell beats by more
than chance. Raw results: benchmarks/results/stcd_sensitivity_*.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from stcd_task import NAMES, common, make, of_teacher, options, teachers_of, train

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))
from experiment import Run, Store
from presentation import Rows, present, spread
from traffic_task import Task

from pyg_stkd.report import interval

ALONE = "alone"
SHARE = 0.03  # what pruning leaves
AUTO = "2 x RMSE"  # the width of the gate that the library takes: of the teacher, on each batch


@dataclass(frozen=True)
class Grid:
    """A heat map: two settings, what is tried of each, and what all cells share.

    Values are those of the run's settings; a cell of the default values is the default.
    """

    rows: str
    row_values: tuple[Any, ...]
    columns: str
    column_values: tuple[Any, ...]
    fixed: dict[str, Any]
    default: tuple[Any, Any]


DECADES = (0.1, 1.0, 10.0, 100.0)
GRIDS = {
    "weights": Grid("a2 (spatial)", DECADES, "a3 (temporal)", DECADES, {"odds": 1.0}, (1.0, 1.0)),
    "response": Grid("odds of the teacher", DECADES, "beta", (0.02, 0.2, 2.0, 20.0, AUTO),
                     {"spatial": 1.0, "temporal": 1.0}, (1.0, AUTO)),
    "kernel": Grid("sigma", (0.1, 1.0, 10.0, 100.0, "median"), "a2 = a3", (0.1, 1.0, 10.0, 100.0),
                   {"odds": 1.0}, ("median", 1.0)),
    "pruning": Grid("share kept by a stage", (0.03, 0.2, 0.5, 0.7), "steps of a stage",
                    (0, 3, 30), {"odds": 1.0}, (0.5, 30)),
}  # fmt: skip
KEYS = {
    "a2 (spatial)": ("spatial",),
    "a3 (temporal)": ("temporal",),
    "odds of the teacher": ("odds",),
    "beta": ("beta",),
    "sigma": ("sigma",),
    "a2 = a3": ("spatial", "temporal"),
    "steps of a stage": ("stage_steps",),
}


def stages(step: float) -> list[float]:
    """Return the shares after each stage, of which each keeps a share of what it finds.

    Example:
        >>> [round(share, 3) for share in stages(0.2)]
        [0.2, 0.04, 0.03]
    """
    count = max(1, math.ceil(math.log(SHARE) / math.log(step) - 1e-9))
    return [step**i for i in range(1, count)] + [SHARE]


def settings(grid: Grid, row: Any, column: Any) -> dict[str, Any]:
    """Return what a cell trains with."""
    found = dict(grid.fixed)
    for axis, value in ((grid.rows, row), (grid.columns, column)):
        if axis == "share kept by a stage":
            found |= {"keep": stages(value), "min_width": 4}
        else:
            found |= dict.fromkeys(KEYS[axis], None if value == AUTO else value)
    return found


def experiment(args: argparse.Namespace, task: Task, store: Store) -> dict[str, Any]:
    """Train the teachers, the student alone, and every cell of the grids from every seed."""
    shared = common(args) | {"lr": args.lr}
    teachers = teachers_of(args.seeds, of_teacher(args), task, store, tuning=False)
    dense = {"widths": json.loads(args.dense)}

    def go(name: str, config: dict[str, Any]) -> list[dict[str, Any]]:
        results = [
            train(Run(name, seed, shared | config), task, store, teachers[seed][0])
            for seed in range(args.seeds)
        ]
        return [{k: v for k, v in result.items() if k != "history"} for result in results]

    found: dict[str, Any] = {ALONE: go(ALONE, dense), "grids": {}}
    for name in args.grids:
        grid = GRIDS[name]
        found["grids"][name] = [
            {"row": row, "column": column, "runs": go(name, config)}
            for row, column in product(grid.row_values, grid.column_values)
            for config in [settings(grid, row, column)]
            for config in [config if "keep" in config else dense | config]
        ]
    return found | {
        "dataset": args.dataset,
        "data": f"{task.plain.num_nodes} sensors, {len(task.windows['train'])} windows to train on",
        "options": {key: value for key, value in vars(args).items() if not isinstance(value, Path)},
        "teachers": [teachers[seed][1] for seed in range(args.seeds)],
    }


def means(found: dict[str, Any], name: str, key: str) -> list[list[float]]:
    """Return the mean of each cell, row by row; errors on validation are stored as negative."""
    grid = GRIDS[name]
    values = [
        statistics.fmean(abs(run[key]) for run in cell["runs"]) for cell in found["grids"][name]
    ]
    width = len(grid.column_values)
    return [values[i : i + width] for i in range(0, len(values), width)]


def recommend(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the best cell on validation, the default, and whether chance tells them apart.

    The default is recommended unless the best cell's paired lead over it excludes 0. The lead is
    that of the best of many cells: it is above the true one.
    """
    cells = found["grids"][name]

    def errors(cell: dict[str, Any], key: str = "val") -> list[float]:
        return [abs(run[key]) for run in cell["runs"]]

    best = min(cells, key=lambda cell: statistics.fmean(errors(cell)))
    default = next(c for c in cells if (c["row"], c["column"]) == GRIDS[name].default)
    leads = [a - b for a, b in zip(errors(default), errors(best), strict=True)]
    between = interval(leads)
    spans = [statistics.fmean(errors(cell)) for cell in cells]
    chosen = best if between.low > 0 else default
    return {
        "best": best, "default": default, "lead": between, "chosen": chosen,
        "span": (min(spans), max(spans)),
    }  # fmt: skip


def recommended(found: dict[str, Any]) -> Rows:
    """Return what the heat maps recommend, a row for each."""
    table = []
    for name in found["grids"]:
        grid, told = GRIDS[name], recommend(found, name)

        def words(cell: dict[str, Any], grid: Grid = grid) -> str:
            return f"{grid.rows} {cell['row']}, {grid.columns} {cell['column']}"

        table.append({
            "settings": f"{grid.rows} and {grid.columns}",
            "validation MAE of all cells": "{:.3f} to {:.3f}".format(*told["span"]),
            "best on validation": words(told["best"]),
            "default": words(told["default"]),
            "best below default": f"{told['lead']:.3f}",
            "recommended": words(told["chosen"]),
            "its test MAE": spread([r["mae/mean"] for r in told["chosen"]["runs"]], 3, scale=1),
        })  # fmt: skip
    return table


def cells(found: dict[str, Any], name: str) -> Rows:
    """Return a heat map as a table: validation, and test in brackets."""
    grid = GRIDS[name]
    return [
        {f"{grid.rows} \\ {grid.columns}": str(row)}
        | {str(c): f"{v:.3f} ({t:.3f})" for c, v, t in zip(grid.column_values, vals, tests,
                                                          strict=True)}
        for row, vals, tests in zip(
            grid.row_values, means(found, name, "val"), means(found, name, "mae/mean"), strict=True
        )
    ]  # fmt: skip


def draw(found: dict[str, Any]) -> Figure:
    """Draw the heat maps of validation, on one scale of colours each."""
    names = list(found["grids"])
    figure = Figure(figsize=(4.6 * len(names), 4.0), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        grid, values = GRIDS[name], means(found, name, "val")
        image = axis.imshow(values, cmap="viridis_r", aspect="auto")
        middle = statistics.fmean([min(map(min, values)), max(map(max, values))])
        for (i, row), (j, _) in product(enumerate(values), enumerate(grid.column_values)):
            default = (grid.row_values[i], grid.column_values[j]) == grid.default
            axis.text(j, i, f"{row[j]:.3f}", ha="center", va="center",
                      color="black" if row[j] < middle else "white",
                      weight="bold" if default else "normal")  # fmt: skip
        axis.set_xticks(range(len(grid.column_values)), grid.column_values)
        axis.set_yticks(range(len(grid.row_values)), grid.row_values)
        axis.set(xlabel=grid.columns, ylabel=grid.rows, title=name)
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def references(found: dict[str, Any]) -> Rows:
    """Return the teacher and the student alone, for comparison."""
    return [
        {
            "model": name,
            "validation MAE": spread([-run["val"] for run in runs], 3, scale=1),
            "test MAE": spread([run["mae/mean"] for run in runs], 3, scale=1),
        }
        for name, runs in (("teacher", found["teachers"]), ("student alone", found[ALONE]))
    ]


def show(found: dict[str, Any], path: Path) -> str:
    """Write the page and the picture; return the tables."""
    seeds, name = len(found["teachers"]), NAMES[found["dataset"]]
    note = (
        f"MAE (mph) on {name}, {found['data']}, mean over {seeds} seeds with a teacher each: "
        f"validation, in brackets test. Students take {found['options']['steps']} steps at a "
        f"learning rate of {found['options']['lr']:g}. A default stays recommended where the best "
        "cell's paired lead over it on validation does not exclude 0 (95 %)."
    )
    tables = {"Recommended": recommended(found), "For comparison": references(found)}
    tables |= {f"Heat map: {key}": cells(found, key) for key in found["grids"]}
    figures = {"maps": (draw(found), "Validation MAE; the default in bold.")}
    machine = found[ALONE][-1]["machine"]
    title = f"STCD paper, sensitivity on {name}"
    return present(path, title, f"{title}. {note}", tables, figures, machine)


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(seeds=3)
    parser.add_argument("--dense", default="[[12, 4, 12], [12, 4, 12], [14, 14]]",
                        help="widths of the student (default: %(default)s)")  # fmt: skip
    parser.add_argument("--lr", type=float, default=0.01, help="of the students (default: 0.01)")
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=list(GRIDS))
    args = parser.parse_args()
    make("sensitivity", args, experiment, show)


if __name__ == "__main__":
    main()
