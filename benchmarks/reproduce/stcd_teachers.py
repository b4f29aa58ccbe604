"""STCD paper, open questions: ASTGCN as teacher and student, and several teachers against one.

    python benchmarks/reproduce/stcd_teachers.py --root data/metr_la_week

Students of both classes, alone and with the whole of L_STCD, learn from an STGCN, from an ASTGCN,
from three STGCNs of different seeds (equal weights, and weighed by confidence), and from one of
each class. Teachers are one a seed; the further ones are of the seeds after it. Raw results:
benchmarks/results/stcd_teachers_*.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from protocol import TUNING, Axis, Method, rows
from stcd_task import NAMES, build, common, gather, make, of_teacher, options, train
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))
from experiment import Run, Store
from presentation import Rows, present, spread
from traffic_task import Task

from pyg_stkd.distill import Teachers

RATE = Axis("lr", (0.01, 0.02), 2.0)
CLASSES = ("STGCN", "ASTGCN")
# Who teaches: the classes of the teachers, and how they are weighed.
TEACHERS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "STGCN": (("STGCN",), None),
    "ASTGCN": (("ASTGCN",), None),
    "3 STGCN": (("STGCN",) * 3, None),
    "3 STGCN by confidence": (("STGCN",) * 3, "confidence"),
}


def methods_of(student: str, fixed: dict[str, Any], teachers: list[str]) -> list[Method]:
    """Return the student alone and with each of the teachers."""
    given: dict[str, dict[str, Any]] = {"alone": {}}
    given |= {name: {"taught": name, "odds": 1.0} for name in teachers}
    return [
        Method(name, fixed | {"student": student} | more, {"lr": 0.01}, (RATE,))
        for name, more in given.items()
    ]


def experiment(args: argparse.Namespace, task: Task, store: Store) -> dict[str, Any]:
    """Train the teachers of both classes, tune and run the students of both."""
    shared = common(args)
    sizes = {
        "STGCN": {"widths": json.loads(args.dense)},
        "ASTGCN": {"model": "ASTGCN", "width": args.ast_student},
    }
    kinds = {
        "STGCN": of_teacher(args),
        "ASTGCN": of_teacher(args, model="ASTGCN", width=args.ast_teacher, widths=None),
    }
    known: dict[tuple[str, int], tuple[nn.Module, dict[str, Any]]] = {}

    def teacher(kind: str, seed: int) -> tuple[nn.Module, dict[str, Any]]:
        if (kind, seed) not in known:
            run = Run("teacher", seed, kinds[kind])
            result = train(run, task, store, None)
            model = build(kinds[kind], task)
            model.load_state_dict(store.load_weights(run))
            known[kind, seed] = model.eval(), result
        return known[kind, seed]

    def of(name: str, seed: int) -> nn.Module:
        classes, weights = TEACHERS[name]
        if len(classes) == 1:
            return teacher(classes[0], seed)[0]
        seeds = others(seed, args.seeds, len(classes))
        several = [teacher(kind, one)[0] for kind, one in zip(classes, seeds, strict=True)]
        return Teachers(several, weights)

    def go(run: Run) -> dict[str, Any]:
        config = shared | run.config
        taught = config.get("taught")
        return train(
            Run(run.method, run.seed, config), task, store,
            None if taught is None else of(taught, run.seed),
        )  # fmt: skip

    students = {}
    for kind in args.students:
        wanted = args.teachers if kind == "STGCN" else [n for n in args.teachers if n in CLASSES]
        students[kind] = gather(args, methods_of(kind, sizes[kind], wanted), go)
    return {
        "dataset": args.dataset,
        "data": f"{task.plain.num_nodes} sensors, {len(task.windows['train'])} windows to train on",
        "options": {key: value for key, value in vars(args).items() if not isinstance(value, Path)},
        "teachers": {
            kind: [_short(teacher(kind, seed)[1]) for seed in range(args.seeds)] for kind in CLASSES
        },
        "students": students,
    }


def others(seed: int, seeds: int, count: int) -> list[int]:
    """Return the seeds of several teachers: that of the student, and those after it, in a circle.

    The seeds of tuning are two: further teachers are those of the first reported seeds.

    Example:
        >>> others(3, 5, 3), others(1000, 5, 3)
        ([3, 4, 0], [1000, 1001, 0])
    """
    if seed in TUNING:
        return [seed, *(one for one in TUNING if one != seed), *range(seeds)][:count]
    return [(seed + i) % seeds for i in range(count)]


def _short(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "history"}


def table(found: dict[str, Any], student: str) -> Rows:
    """Return the rows of a student; the gap is that to the teacher of its own class."""
    results = found["students"][student]
    shown = results | {"runs": [run | {"val": -run["val"]} for run in results["runs"]]}
    teachers = [run | {"val": -run["val"]} for run in found["teachers"][student]]
    names = {"teacher": f"{student}, teacher", "alone": f"{student}, student alone"}
    names |= {n: f"{student} taught by {n}" for n in TEACHERS if n in results["chosen"]}
    return rows(shown, teachers, names, "mae/mean", scale=1.0, larger=False, digits=3)


def sizes(found: dict[str, Any]) -> Rows:
    """Return how large the models are, and how long they train."""
    table = []
    for student, results in found["students"].items():
        own = [run for run in results["runs"] if "trial" not in run]
        groups = {f"{student}, teacher": found["teachers"][student], f"{student}, student": own}
        for name, runs in groups.items():
            table.append({
                "model": name,
                "parameters": f"{runs[0]['parameters']:,}",
                "MFLOPs": f"{runs[0]['flops'] / 1e6:.2f}",
                "test MAE at 15, 30, 60 min": ", ".join(
                    spread([run[f"mae/{h}"] for run in runs], scale=1) for h in (15, 30, 60)
                ) if "teacher" in name else "",
                "CPU s of a training": f"{statistics.fmean(r['seconds'] for r in runs):.0f}",
            })  # fmt: skip
    return table


def show(found: dict[str, Any], path: Path) -> str:
    """Write the page; return its tables."""
    name, seeds = NAMES[found["dataset"]], len(found["teachers"]["STGCN"])
    note = (
        f"MAE (mph) on {name}, {found['data']}, mean ± standard deviation over {seeds} seeds with "
        f"a teacher each; several teachers are those of neighbouring seeds. Students take "
        f"{found['options']['steps']} steps."
    )
    tables = {f"Students of class {kind}": table(found, kind) for kind in found["students"]}
    tables["Sizes"] = sizes(found)
    last = list(found["students"].values())[-1]["runs"][-1]["machine"]
    title = f"STCD paper, teachers on {name}"
    return present(path, title, f"{title}. {note}", tables, {}, last)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dense", default="[[12, 4, 12], [12, 4, 12], [14, 14]]",
                        help="widths of the STGCN student (default: %(default)s)")  # fmt: skip
    parser.add_argument("--ast-teacher", type=int, default=32, help="filters of that ASTGCN")
    parser.add_argument("--ast-student", type=int, default=4, help="filters of that ASTGCN")
    parser.add_argument("--students", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    args = parser.parse_args()
    make("teachers", args, experiment, show)


if __name__ == "__main__":
    main()
