"""LSP paper, Tables 4 to 6 and Figure 4, on point clouds: methods, kernels, larger students.

    python benchmarks/reproduce/lsp_shapes.py --table 4   # student alone, KD, FitNet, AT, LSP
    python benchmarks/reproduce/lsp_shapes.py --table 5   # LSP by kernel
    python benchmarks/reproduce/lsp_shapes.py --table 6 \\
        --settings benchmarks/results/lsp_table4_synthetic.json  # more channels, layers, MLPs
    python benchmarks/reproduce/lsp_shapes.py --table 4 --dataset modelnet10-vox24 --root DIR \\
        --shapes-per-class 40  # few of its shapes, so that runs converge

Teacher and student are the paper's DGCNNs of a quarter of its widths (16 and 8), k of 20 and 10,
on clouds of 128 points, all with labels; a step is 16 clouds, and all methods take as many. Table 4
ends with Figure 4 as a number: how far the order of the distances from a point, in the features of
the last edge convolution, is the teacher's, after so many epochs. Raw results:
benchmarks/results/lsp_table*_*.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from protocol import (
    ALONE,
    TUNING,
    Axis,
    Method,
    collect,
    commit,
    differences,
    rows,
    settled,
    together,
)
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))
from experiment import Run, Store, at_least_one
from modelnet import SHOWN, TABLE_5, build, execute, student_sizes, tap, teacher_sizes
from modelnet_task import Task, load
from presentation import Rows, present, spread

from pyg_stkd.files import write_atomic
from pyg_stkd.nn import DGCNN

RESULTS = Path(__file__).parents[1] / "results"
RATE = Axis("lr", (0.005, 0.01, 0.02), 2.0)
DROPOUT = Axis("dropout", (0.0, 0.2, 0.4), 1.5, most=0.95)
BARE = "alone, no dropout"
ALL_RATES = Axis("lr", (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08), 2.0)
# From where a loss has about a tenth of the gradient of the labels to where it has all of it.
WEIGHTS = {
    "KD": (0.1, 1.0, 10.0),
    "FitNet": (0.1, 1.0, 10.0),
    "AT": (0.3, 3.0, 30.0),
    "recipe": (0.1, 1.0, 10.0),
}
START = {"lr": 0.01, "dropout": 0.0}


def alone(variant: str = "") -> Method:
    """Return the student alone, or a larger one."""
    return Method(ALONE, {"kind": "student", "variant": variant}, START, (RATE, DROPOUT))


def bare(variant: str = "") -> Method:
    """Return the student alone without dropout, which no distilled one has."""
    return Method(BARE, {"kind": "student", "variant": variant}, START, (ALL_RATES,))


def distilled(name: str, kind: str, variant: str = "") -> Method:
    """Return a distilled student, of as many axes as the student alone."""
    values = WEIGHTS.get(kind, (10.0, 100.0, 1000.0))
    fixed = {"kind": kind, "variant": variant}
    return Method(name, fixed, START | {"weight": values[1]}, (RATE, Axis("weight", values, 10.0)))


def methods_of(table: int) -> dict[str, list[Method]]:
    """Return the rows of each part of a table, the student alone first."""
    if table == 4:
        others = [distilled(kind, kind) for kind in ("KD", "FitNet", "AT", "LSP")]
        return {"Scores": [alone(), *others, distilled("logits", "recipe")]}
    if table == 5:
        kernels = [distilled(f"LSP {kernel}", f"LSP {kernel}") for kernel in TABLE_5]
        return {"Scores": [alone(), distilled("LSP RBF", "LSP"), *kernels]}
    return {variant or "the student": [alone(variant), distilled("LSP", "LSP", variant)]
            for variant in student_sizes(1)}  # fmt: skip


class Experiment:
    """The runs of a table, each with the teacher of its seed."""

    def __init__(self, args: argparse.Namespace, task: Task, store: Store) -> None:
        self.args, self.task, self.store = args, task, store
        self.common = {name: getattr(args, name) for name in ("dataset", "points", "epochs")}
        self.common |= {"patience": args.epochs, "batch_size": args.batch_size}
        self.common |= {"shapes": args.shapes} if args.dataset == "synthetic" else {}
        if args.shapes_per_class is not None:
            self.common["shapes_per_class"] = args.shapes_per_class
        self.teachers = {seed: self.teach(seed) for seed in (*TUNING, *range(args.seeds))}

    def teach(self, seed: int) -> tuple[DGCNN, dict[str, Any], Run]:
        """Return the teacher of a seed and what it scores."""
        sizes = teacher_sizes(self.args.teacher_width)
        run = Run("teacher", seed, self.common | sizes | {"lr": 0.004, "dropout": 0.3})
        result = execute(run, self.task, self.store, None)
        model = build(run.config, self.task)
        model.load_state_dict(self.store.load_weights(run))
        return model, {k: v for k, v in result.items() if k != "history"}, run

    def go(self, run: Run) -> dict[str, Any]:
        """Return the result of a run, named as its row."""
        config = {key: value for key, value in run.config.items() if key != "kind"}
        sizes = student_sizes(self.args.student_width)[config["variant"]]
        teacher = None
        if "weight" in config:
            teacher, _, taught = self.teachers[run.seed]
            config["teacher"] = taught.name
        given = Run(run.config["kind"], run.seed, self.common | sizes | config)
        result = execute(given, self.task, self.store, teacher)
        share = (result["best_epoch"] + 1) / self.args.epochs
        more = {"method": run.method, "best_share": share, "commit": commit(), "name": given.name}
        return result | more

    def alike(self, names: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return, for each method and epoch, the rank correlation with the teacher's distances."""
        found = []
        for method, runs in names.items():
            for epoch in sorted({*SHOWN, self.args.epochs}):
                values = []
                for seed, name in enumerate(runs):
                    path = self.store.folder / "features" / f"{name}-{epoch}.json"
                    if path.exists():
                        teacher, _, run = self.teachers[seed]
                        told = self.task.distances(teacher, tap(run.config))
                        values.append(rank_correlation(json.loads(path.read_text()), told))
                if values:
                    found.append({"method": method, "epoch": epoch, "correlation": values})
        return found


def rank_correlation(student: list[list[int]], teacher: list[list[int]]) -> float:
    """Return Spearman's correlation of the distances of two models, the mean over the shapes."""
    return statistics.fmean(
        float(spearmanr(s, t).statistic) for s, t in zip(student, teacher, strict=True)
    )


def figure_4(found: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the correlations as a table, a column for each epoch."""
    table: dict[str, dict[str, str]] = {}
    for each in found:
        row = table.setdefault(each["method"], {"method": each["method"]})
        row[f"epoch {each['epoch']}"] = spread(each["correlation"], scale=1)
    return list(table.values())


def gather(
    args: argparse.Namespace, methods: list[Method], go: Callable[[Run], dict[str, Any]]
) -> dict[str, Any]:
    """Tune and run methods by the protocol, or with what another table has found for them.

    Where the student alone is tuned to a dropout, it is also there without: no distilled one has
    any, and what dropout brings is not what a teacher does.
    """
    without = bare(methods[0].fixed["variant"])
    if args.settings is not None:
        given = json.loads(args.settings.read_text())["parts"]["Scores"]["chosen"]
        if given.get(ALONE, {"config": {}})["config"].get("dropout"):
            methods = [*methods, without]
        if lacking := [method.name for method in methods if method.name not in given]:
            raise SystemExit(
                f"--settings must have what was chosen for {', '.join(lacking)} "
                f"(got {args.settings})"
            )
        return settled(methods, given, args.seeds, go)
    found = collect(methods, args.seeds, go)
    if found["chosen"][ALONE]["config"]["dropout"]:
        again = collect([without], args.seeds, go, found["chosen"][ALONE]["trials"])
        found = together(found, again)
    return found


def scores(parts: dict[str, Any], teachers: list[dict[str, Any]]) -> dict[str, Rows]:
    """Return the tables of all parts: against the student as tuned, and if need be without."""
    tables = {}
    for title, found in parts.items():
        names = {name: name for name in ("teacher", *found["chosen"]) if name != BARE}
        names[ALONE] = "student alone"
        tables[title] = rows(found, teachers, names, "acc")
        if BARE in found["chosen"]:
            names = {name: name for name in names if name != ALONE} | {BARE: f"student {BARE}"}
            tables[f"{title}, nobody with dropout"] = rows(
                found, teachers, names, "acc", alone=BARE
            )
    return tables


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", type=int, choices=(4, 5, 6), default=4, help="of the paper")
    parser.add_argument("--dataset", choices=("synthetic", "modelnet10-vox24"), default="synthetic")
    parser.add_argument("--root", type=Path, help="the folder of ModelNet10's voxels")
    parser.add_argument("--seeds", type=int, default=5, help="teachers and students (default: 5)")
    parser.add_argument("--epochs", type=int, default=40, help="of each run (default: 40)")
    parser.add_argument("--points", type=int, default=128, help="of a cloud (default: 128)")
    parser.add_argument("--shapes", type=int, default=400, help="of the generated set")
    parser.add_argument("--shapes-per-class", type=at_least_one,
                        help="at most, a fifth of them held out (default: all)")  # fmt: skip
    parser.add_argument("--teacher-width", type=int, default=16)
    parser.add_argument("--student-width", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--settings", type=Path,
                        help="a stored table whose settings are taken: no trial")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce/lsp_shapes"),
                        help="finished runs are kept here")  # fmt: skip
    parser.add_argument(
        "--redraw", type=Path, help="only write the page of this stored table again"
    )
    args = parser.parse_args()
    vars(args).update(amp=False, augment=False, labelled=None, device="cpu")
    return args


def larger(parts: dict[str, Any]) -> Rows:
    """Return what larger students, alone, are above the one of the first part, paired by seed."""
    first, *others = parts
    found = {
        title: [{**run, "method": title} for run in parts[title]["runs"] if run["method"] == ALONE]
        for title in parts
    }
    names = {title: f"student alone, {title}" for title in others} | {first: "student alone"}
    runs = [run for some in found.values() for run in some]
    return differences({"runs": runs}, [(title, first) for title in others], names, "acc")


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Train teachers and students of a table; return all results."""
    task, store = load(args), Store(args.out / args.dataset)
    runs = Experiment(args, task, store)
    parts = {title: gather(args, methods, runs.go)
             for title, methods in methods_of(args.table).items()}  # fmt: skip
    note = (f"Accuracy (%) on {task.name} ({len(task.parts['train'])} to train on, {args.points} "
            f"points), mean ± standard deviation over {args.seeds} seeds with a teacher each; "
            f"{args.epochs} epochs for all.")  # fmt: skip
    if args.settings is not None:
        note += " Nothing was tuned here: all take the settings that another table has found."
    found: dict[str, Any] = {"parts": parts, "data": task.about(), "table": args.table,
                             "note": note}  # fmt: skip
    found["teachers"] = [runs.teachers[seed][1] for seed in range(args.seeds)]
    if args.table == 4:
        names: dict[str, list[str]] = {}
        for run in parts["Scores"]["runs"]:
            if run["method"] in (ALONE, "LSP") and "trial" not in run:
                names.setdefault(run["method"], []).append(run["name"])
        found["figure_4"] = runs.alike(names)
    return found


def show(found: dict[str, Any], path: Path) -> str:
    """Write the page of a table; return its text."""
    tables = scores(found["parts"], found["teachers"])
    if found["table"] == 6:
        tables["What larger students bring"] = larger(found["parts"])
    if "figure_4" in found:
        tables["Figure 4: rank correlation with the teacher's distances"] = figure_4(
            found["figure_4"]
        )
    teacher = found["teachers"][0]
    data = "synthetic shapes" if teacher["config"]["dataset"] == "synthetic" else "ModelNet10-vox24"
    title = f"LSP paper, Table {found['table']} on {data}"
    return present(path, title, f"{title}. {found['note']}", tables, {}, teacher["machine"])


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    path = RESULTS / f"lsp_table{args.table}_{args.dataset.replace('-', '_')}.json"
    if args.redraw is None:
        found = experiment(args)
        write_atomic(path, json.dumps(found, separators=(",", ":")).encode())
    else:
        path, found = args.redraw, json.loads(args.redraw.read_text())
    print(show(found, path))


if __name__ == "__main__":
    main()
