"""Distil a graph attention network on protein graphs: few labels, many graphs without.

    python examples/proteins.py                       # minutes on two cores
    python examples/proteins.py --seeds 5 --student paper

A teacher (3 layers, 4x256 channels) has learned from 20 labelled graphs. The student, of 1/18 of
its parameters, has the labels of 4 of them, and 60 graphs without labels. Every model has the same
number of steps, the same schedule, and keeps its best weights on the same validation graphs.
Finished runs are kept in --out: an interrupted demonstration goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

sys.path.append(str(Path(__file__).parent / "papers"))  # what the experiments share
from experiment import Run, Store, at_least_one
from matplotlib.figure import Figure
from presentation import by_method, compare, conclude, present, spread
from schedule import default_workers, each

from pyg_stkd import Distiller
from pyg_stkd.datasets import SyntheticProteins
from pyg_stkd.distill import LSPLoss, OutputLoss, fit
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import GAT
from pyg_stkd.prune import start_from
from pyg_stkd.report import gap
from pyg_stkd.timing import interleave

LABELLED, UNLABELLED = 4, 60
NAMES = {
    "teacher": "teacher, labels of 20 graphs",
    "student": f"student alone, labels of {LABELLED} graphs",
    "labelled": f"distilled on these {LABELLED}",
    "unlabelled": f"distilled on these and {UNLABELLED} without labels",
    "LSP": f"distilled on these and {UNLABELLED}, with LSP",
    "pruned": f"distilled on these and {UNLABELLED}, from the pruned teacher",
    "all labels": "student alone, labels of all 20",
}
NEED_NO_TEACHER = ("teacher", "student", "all labels")
# What --tune tried for the student alone, on seeds that no result is of, and what was best on
# validation. What is distilled was not tuned: it has the first of these.
TRIALS: list[dict[str, Any]] = [
    {}, {"lr": 0.002}, {"lr": 0.01}, {"lr": 0.02}, {"decay": 1e-4}, {"decay": 1e-3},
    {"times": 0.5}, {"times": 2.0},
]  # fmt: skip
TUNING = (1000, 1001)
ALONE: dict[str, Any] = {"lr": 0.002}
Graphs = list[tuple[Tensor, Graph, Tensor]]


@dataclass(frozen=True)
class Data:
    """Graphs of each kind, sorted once."""

    train: Graphs
    val: Graphs
    test: Graphs
    extra: Graphs

    @staticmethod
    @lru_cache(maxsize=1)
    def of(scale: float) -> Data:
        splits = {split: SyntheticProteins(split, scale) for split in ("train", "val", "test")}
        splits["extra"] = SyntheticProteins("extra", scale, num_graphs=UNLABELLED)
        return Data(
            **{
                split: [(d.x, Graph(d.edge_index, d.num_nodes), d.y) for d in graphs]
                for split, graphs in splits.items()
            }
        )


@torch.no_grad()
def micro_f1(model: nn.Module, graphs: Graphs) -> float:
    """Return the micro-averaged F1 at 0.5."""
    hits = wrong = 0
    for x, graph, y in graphs:
        said, true = model(x, graph) > 0, y > 0
        hits += int((said & true).sum())
        wrong += int((said != true).sum())
    return 2 * hits / max(2 * hits + wrong, 1)


def student_of(kind: str) -> GAT:
    """Return an untrained student: of the teacher's form, or the deep and thin one of the paper."""
    return GAT.student(50, 121) if kind == "paper" else GAT(50, 29, 121, num_layers=3, out_heads=6)


def execute(run: Run, folder: Path, teacher_run: Run | None) -> dict[str, Any]:
    """Return the result of a run, from the store if it is there."""
    store = Store(folder)
    if (result := store.result(run)) is not None:
        return result
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    method, config = run.method, run.config
    data, start = Data.of(config["scale"]), time.process_time()
    labelled = data.train if method in ("teacher", "all labels") else data.train[:LABELLED]
    if teacher_run is None:
        student = GAT.teacher(50, 121) if method == "teacher" else student_of(config["student"])
        distiller = Distiller(nn.Identity(), student, [])  # nobody is asked: labels alone
    else:
        teacher = GAT.teacher(50, 121)
        teacher.load_state_dict(store.load_weights(teacher_run))
        student = student_of(config["student"])
        if method == "pruned":
            size = sum(p.numel() for p in student.parameters())
            with warnings.catch_warnings():  # the floors leave a little more: the table tells
                warnings.filterwarnings("ignore", "The floors of the groups")
                student = start_from(
                    teacher, size / sum(p.numel() for p in teacher.parameters()), rho=0.5,
                    calibration=labelled, criterion=binary_cross_entropy_with_logits,
                )  # fmt: skip
        losses: list[Any] = [OutputLoss()]  # logits compared as numbers
        if method == "LSP":
            kernel = RBF(sigma="median")
            layers = "convs.1", f"convs.{len(student.convs) - 2}"
            losses.append(LSPLoss(*layers, kernel, normalize="l2", weight=config["lsp"]))
        distiller = Distiller(teacher, student, losses)
    epochs = list(
        fit(
            distiller,
            labelled,
            None if method in ("labelled", *NEED_NO_TEACHER) else data.extra,
            criterion=binary_cross_entropy_with_logits,
            validate=lambda model: 1 - micro_f1(model, data.val),
            steps=round(config["steps"] * config.get("times", 1)),
            optimizer=lambda parameters: torch.optim.Adam(
                parameters, lr=config["lr"], weight_decay=config.get("decay", 0.0)
            ),
        )
    )
    seconds = time.process_time() - start
    student.eval()
    if method == "teacher":
        store.save_weights(run, student.state_dict())
    return store.finish(
        run,
        {
            "val": micro_f1(student, data.val),
            "f1": micro_f1(student, data.test),
            "parameters": sum(p.numel() for p in student.parameters()),
            "seconds": seconds,
            "history": [[e.step, round(1 - e.metric, 4)] for e in epochs if e.metric is not None],
        },
    )


def experiment(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run what needs no teacher beside it, then what does; return all results."""
    common = {"scale": args.scale, "steps": args.steps, "lr": 0.005}
    teacher = Run("teacher", 0, common | {"lr": 0.002})
    more = common | {"student": args.student}
    if args.tune:
        runs = [Run("student", seed, more | trial) for trial in TRIALS for seed in TUNING]
        alone = partial(execute, folder=folder, teacher_run=None)
        with tqdm(total=len(runs), desc="runs") as bar:
            tuned = each(alone, [(run,) for run in runs], args.workers, bar)
        return [result | {"trial": True} for result in tuned]
    own = {"LSP": {"lsp": 10.0}, "student": ALONE}
    runs = [teacher] + [
        Run(method, seed, more | own.get(method, {}))
        for method in NAMES
        if method != "teacher"
        for seed in range(args.seeds)
    ]
    first = [run for run in runs if run.method in NEED_NO_TEACHER]
    second = [run for run in runs if run.method not in NEED_NO_TEACHER]
    results: dict[str, dict[str, Any]] = {}
    with tqdm(total=len(runs), desc="runs") as bar:
        for part, asked in ((first, None), (second, teacher)):
            work = partial(execute, folder=folder, teacher_run=asked)
            found = each(work, [(run,) for run in part], args.workers, bar)
            results |= {run.name: result for run, result in zip(part, found, strict=True)}
    results[teacher.name]["pace"] = pace(args, Store(folder))  # nothing else runs any more
    return [results[run.name] for run in runs]


@torch.no_grad()
def pace(args: argparse.Namespace, store: Store) -> float:
    """Return how many times the CPU time of a student's answer the teacher's takes."""
    run = Run("pace", 0, {"scale": args.scale, "student": args.student})
    if (result := store.result(run)) is None:
        torch.set_num_threads(1)
        x, graph, _ = Data.of(args.scale).test[0]
        models = {"teacher": GAT.teacher(50, 121), "student": student_of(args.student)}
        calls = {name: partial(model.eval(), x, graph) for name, model in models.items()}
        seconds = {name: each["cpu"] for name, each in interleave(calls, repeats=25).items()}
        result = store.finish(run, {"seconds": seconds})
    return statistics.median(result["seconds"]["teacher"]) / statistics.median(
        result["seconds"]["student"]
    )


def summarize(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a row for each method; gains are paired by seed."""
    final = by_method(results)
    scores = {method: [100 * run["f1"] for run in runs] for method, runs in final.items()}
    rows = []
    for method, runs in final.items():
        row = {"gain over alone": "", "gap closed": ""}
        if method not in ("teacher", "student"):
            row = compare(scores["teacher"], scores["student"], scores[method])
        rows.append(
            {
                "model": NAMES[method],
                "parameters": f"{runs[0]['parameters']:,}",
                "micro-F1 (%)": spread(scores[method], scale=1),
                **row,
                "CPU s": f"{statistics.fmean(run['seconds'] for run in runs):.0f}",
            }
        )
    return rows


def in_words(results: list[dict[str, Any]]) -> str:
    """Return what the table says."""
    final = by_method(results)
    scores = {m: [100 * run["f1"] for run in runs] for m, runs in final.items()}
    seeds = len(scores["student"])
    if seeds < 2:
        return "One seed shows no interval: run it with --seeds 3."
    teachers = scores["teacher"] * seeds
    said = []
    for method, way in (
        ("unlabelled", f"the teacher's outputs on {UNLABELLED} graphs without labels bring"),
        ("pruned", "starting as the pruned teacher besides,"),
    ):
        found = gap(teachers, scores["student"], scores[method])
        sure = "" if found.gain.excludes_zero else ", which these seeds cannot tell from 0"
        share = f"{found.closed:.0%} of the teacher's lead"
        if not found.lead.excludes_zero:
            share = "of a lead of the teacher's that these seeds cannot tell from 0"
        said.append(f"{way} {found.gain:.1f} points, {share}{sure}")
    text = "; ".join(said)
    size = final["teacher"][0]["parameters"] / final["unlabelled"][0]["parameters"]
    words = f"The student has 1/{size:.0f} of the teacher's parameters"
    if (pace := final["teacher"][0].get("pace")) is not None:
        words += f" and answers {pace:.1f} times as fast"
    return (
        f"{text[0].upper()}{text[1:]} (means and 95 % intervals over {seeds} students of one "
        f"teacher). {words}. Mind that the teacher has seen the labels of {20 - LABELLED} graphs "
        "that the student has not."
    )


def show_trials(results: list[dict[str, Any]], stem: Path) -> str:
    """Write the table of the trials, and return it as text; the best on validation counts."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in results:
        config = {"decay": 0.0, "times": 1.0} | run["config"]
        rows.setdefault(
            ", ".join(f"{k} {config[k]:g}" for k in ("lr", "decay", "times")), []
        ).append(run)
    table = [
        {
            "student alone": name,
            "micro-F1 on validation (%)": spread([run["val"] for run in runs]),
            "on test (%)": spread([run["f1"] for run in runs]),
        }
        for name, runs in rows.items()
    ]
    title = "Few labels, many graphs: trials of the student alone"
    note = (
        f"{title}: mean ± standard deviation over seeds {TUNING[0]} and {TUNING[1]}, which no "
        "result is of."
    )
    return present(stem, title, note, {"Trials": table}, {}, results[-1]["machine"])


def show(results: list[dict[str, Any]], stem: Path) -> str:
    """Write table, plot and report beside the raw results; return the table as text."""
    if all("trial" in run for run in results):
        return show_trials(results, stem)
    final = by_method(results)
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (method, runs) in enumerate(final.items()):
        f1 = [100 * run["f1"] for run in runs]
        left.plot([i] * len(f1), f1, "o", color=f"C{i}", ms=5, alpha=0.7)
        left.plot([i - 0.3, i + 0.3], [statistics.fmean(f1)] * 2, color=f"C{i}")
        steps, scores = zip(*runs[0]["history"], strict=True)
        right.plot(steps, [100 * s for s in scores], color=f"C{i}", lw=1, label=method)
    left.set_xticks(range(len(final)), list(final), rotation=30, ha="right")
    left.set_ylabel("test micro-F1 (%)")
    right.set(xlabel="step", ylabel="validation micro-F1 (%), first seed")
    right.legend(fontsize=8)
    title = "Few labels, many graphs: distilling a GAT on synthetic proteins"
    words = in_words(results)
    note = (
        f"{title}. Test scores, mean ± standard deviation over {len(final['student'])} students of "
        f"one teacher; gains over the student alone, paired by seed, with 95 % intervals. {words}"
    )
    tables = {"Scores": summarize(results)}
    figures = {"scores": (figure, "Test scores of every seed, and the course of validation.")}
    text = present(stem, title, note, tables, figures, results[-1]["machine"])
    return f"{text}\n\n{words}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--student", choices=("shallow", "paper"), default="shallow",
                        help="3 layers, or the paper's 5 thin ones (default: shallow)")  # fmt: skip
    parser.add_argument("--seeds", type=at_least_one, default=3, help="students (default: 3)")
    parser.add_argument("--steps", type=at_least_one, default=1000, help="of each (default: 1000)")
    parser.add_argument("--scale", type=float, default=0.1, help="of the graphs (default: 0.1)")
    parser.add_argument("--tune", action="store_true", help="try rates for the student alone")
    parser.add_argument("--workers", type=at_least_one, default=default_workers(),
                        help="processes (default: one a core)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/proteins"), help="results are here")
    parser.add_argument("--redraw", type=Path, help="only draw these stored results (JSON) again")
    args = parser.parse_args()
    folder = args.out / (f"{args.student}-trials" if args.tune else args.student)
    conclude(args, folder, lambda: experiment(args, folder), show)


if __name__ == "__main__":
    main()
