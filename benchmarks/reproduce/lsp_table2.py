"""LSP paper, Table 2: what each method brings a student on protein graphs, in two regimes.

    python benchmarks/reproduce/lsp_table2.py --regime labels   # the paper's: all labels, 5 layers
    python benchmarks/reproduce/lsp_table2.py --regime few      # 4 labelled graphs, 60 without
    python benchmarks/reproduce/lsp_table2.py --regime labels --scale 1 --steps 500 \\
        --teacher-steps 400 --rates benchmarks/results/lsp_table2_labels.json   # as large as PPI

The graphs are generated ones (by default of a tenth of PPI's nodes each, with PPI's numbers of
features and labels: PPI itself cannot be downloaded everywhere). Teachers are GATs of 3 layers and
4x256 channels, trained on 20 graphs, one a seed; students are the paper's (5 layers, 2x68) and one
of 3 layers and 204,018 parameters. Raw results: benchmarks/results/lsp_table2_*.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
    late_gain,
    rows,
    settled,
    together,
)
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

sys.path.append(str(Path(__file__).parents[2] / "examples"))
from experiment import Run, Store
from presentation import Rows, present
from proteins import Data, micro_f1, student_of

from pyg_stkd import Distiller
from pyg_stkd.distill import (
    AttentionTransferLoss,
    HintLoss,
    LSPLoss,
    OutputLoss,
    SoftTargetLoss,
    fit,
)
from pyg_stkd.files import write_atomic
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import GAT
from pyg_stkd.prune import start_from

RESULTS = Path(__file__).parents[1] / "results"
RATE = Axis("lr", (0.002, 0.005, 0.01), 2.0)
DECAY = Axis("decay", (0.0, 1e-5, 1e-4), 10.0)
WEIGHT = Axis("weight", (0.1, 1.0, 10.0), 10.0, least=0.001)  # then 0: without the loss
SMALL = {"lr": 0.005}


def losses_of(config: dict[str, Any], last: int) -> list[Any]:
    """Return the losses of a method; the layers are those that the output layers read."""
    layers, kernel = ("convs.1", f"convs.{last - 1}"), RBF(sigma="median")
    kind, weight = config["kind"], config["weight"]
    both: list[Any] = [OutputLoss()] if kind == "logits+LSP" else []
    if weight == 0:
        return both  # labels alone, if that is all
    return {
        "logits": lambda: [OutputLoss(weight=weight)],
        "KD": lambda: [SoftTargetLoss(2.0, multi_label=True, weight=weight)],
        "FitNet": lambda: [HintLoss(*layers, weight=weight)],
        "AT": lambda: [AttentionTransferLoss(*layers, p=1, weight=weight)],
        "LSP": lambda: [LSPLoss(*layers, kernel, normalize="l2", weight=weight)],
        "logits+LSP": lambda: [*both, LSPLoss(*layers, kernel, normalize="l2", weight=weight)],
    }[kind]()


def methods_of(regime: str) -> list[Method]:
    """Return the rows of a regime, the student alone first."""
    fixed = {"student": "paper" if regime == "labels" else "shallow", "regime": regime}
    alone = Method(ALONE, fixed, SMALL | {"decay": 0.0}, (RATE, DECAY))

    def distilled(name: str, kind: str, **more: Any) -> Method:
        return Method(name, fixed | {"kind": kind} | more, SMALL | {"weight": 1.0}, (RATE, WEIGHT))

    if regime == "labels":
        return [alone, *(distilled(k, k) for k in ("KD", "FitNet", "AT", "LSP", "logits"))]
    return [
        alone,
        distilled("logits", "logits"),
        distilled("logits, unlabelled", "logits", unlabelled=True),
        distilled("KD, unlabelled", "KD", unlabelled=True),
        distilled("LSP, unlabelled", "LSP", unlabelled=True),
        distilled("logits and LSP, unlabelled", "logits+LSP", unlabelled=True),
        distilled("logits, unlabelled, pruned", "logits", unlabelled=True, pruned=True),
        Method("all labels", fixed | {"labels": 20}, SMALL | {"decay": 0.0}, (RATE, DECAY)),
    ]


def with_rates(methods: list[Method], stored: Path | None) -> list[Method]:
    """Return methods at the rates that a stored table chose, so that only the rest is tried."""
    if stored is None:
        return methods
    chosen = json.loads(stored.read_text())["chosen"]
    if lacking := [m.name for m in methods if m.name not in chosen]:
        raise SystemExit(
            f"--rates must have what was chosen for {', '.join(lacking)} (got {stored})"
        )
    return [
        replace(
            method,
            start=method.start | {"lr": chosen[method.name]["config"]["lr"]},
            axes=tuple(axis for axis in method.axes if axis != RATE),
        )
        for method in methods
    ]


def at_other_rates(
    found: dict[str, Any], seeds: int, go: Callable[[Run], dict[str, Any]]
) -> dict[str, Any]:
    """Return results with the student alone at each rate that distilled students have.

    Where rates are those of another table, what a rate brings here is not what a method does.
    """
    own = found["chosen"][ALONE]["config"]["lr"]
    rates = sorted({told["config"]["lr"] for told in found["chosen"].values()} - {own})
    fixed = methods_of("labels")[0].fixed
    more = [Method(f"{ALONE}, rate {lr:g}", fixed, {"lr": lr, "decay": 0.0}, ()) for lr in rates]
    given = {method.name: {"config": method.start, "inside": True} for method in more}
    return together(found, settled(more, given, seeds, go))


NAMES = {
    "teacher": "teacher, labels of 20 graphs",
    ALONE: "student alone",
    "logits, unlabelled": "logits, + 60 graphs without labels",
    "KD, unlabelled": "KD, + 60 graphs without labels",
    "LSP, unlabelled": "LSP, + 60 graphs without labels",
    "logits and LSP, unlabelled": "logits and LSP, + 60 graphs without labels",
    "logits, unlabelled, pruned": "logits, + 60, from the pruned teacher",
    "all labels": "student alone, labels of all 20 graphs",
}

# What each part of the recipe is for: the first with it, the second without.
PARTS = [
    ("logits, unlabelled", "logits"),
    ("logits and LSP, unlabelled", "logits, unlabelled"),
    ("logits, unlabelled, pruned", "logits, unlabelled"),
]


def train(run: Run, store: Store, teacher: nn.Module | None) -> dict[str, Any]:
    """Return the result of a run, from the store if it is there.

    What is tuned to a loss of no weight is the student alone, and not trained again.
    """
    if (result := store.result(run)) is not None:
        return result
    if "kind" in run.config and not losses_of(run.config, 0) and not run.config.get("pruned"):
        given = {"kind", "weight", "unlabelled"}
        config = {key: value for key, value in run.config.items() if key not in given}
        same = train(Run(ALONE, run.seed, config | {"decay": 0.0}), store, None)
        return same | {"method": run.method, "config": run.config}
    torch.manual_seed(run.seed)
    config, data, start = run.config, Data.of(run.config["scale"]), time.process_time()
    few = config.get("regime") == "few" and config.get("labels") is None
    labelled = data.train[:4] if few else data.train
    if run.method == "teacher":
        student: nn.Module = GAT.teacher(50, 121)
    else:
        student = student_of(config["student"])
    if config.get("pruned"):
        assert teacher is not None
        share = _size(student) / _size(teacher)
        with warnings.catch_warnings():  # the floors leave a little more: the table tells
            warnings.filterwarnings("ignore", "The floors of the groups")
            student = start_from(teacher, share, rho=0.5, calibration=labelled,
                                 criterion=binary_cross_entropy_with_logits)  # fmt: skip
    losses = losses_of(config, len(student.convs) - 1) if "kind" in config else []
    guide = teacher if losses else nn.Identity()  # nobody is asked: labels alone
    assert guide is not None
    distiller = Distiller(guide, student, losses)
    optimizer = partial(torch.optim.Adam, lr=config["lr"], weight_decay=config.get("decay", 0.0))
    epochs = list(
        fit(
            distiller,
            labelled,
            data.extra if config.get("unlabelled") and losses else None,
            criterion=binary_cross_entropy_with_logits,
            validate=lambda model: 1 - micro_f1(model, data.val),
            steps=config["steps"],
            optimizer=optimizer,
        )
    )
    student.eval()
    if run.method == "teacher":
        store.save_weights(run, student.state_dict())
    best = max((e.step for e in epochs if e.best), default=0)
    return store.finish(
        run,
        {
            "val": micro_f1(student, data.val),
            "f1": micro_f1(student, data.test),
            "parameters": _size(student),
            "best_share": best / config["steps"],
            "late_gain": late_gain(epochs, config["steps"]),
            "seconds": round(time.process_time() - start, 1),
            "commit": commit(),
        },
    )


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def experiment(args: argparse.Namespace, store: Store) -> dict[str, Any]:
    """Train a teacher for each seed, tune and run the students."""
    common = {"steps": args.steps, "scale": args.scale}
    teachers: dict[int, tuple[nn.Module, dict[str, Any]]] = {}
    for seed in (*TUNING, *range(args.seeds)):
        run = Run("teacher", seed, common | {"steps": args.teacher_steps, "lr": 0.002})
        result, model = train(run, store, None), GAT.teacher(50, 121)
        model.load_state_dict(store.load_weights(run))
        teachers[seed] = model, {k: v for k, v in result.items() if k != "history"}

    def go(run: Run) -> dict[str, Any]:
        run = Run(run.method, run.seed, common | run.config)
        return train(run, store, teachers[run.seed][0])

    found = collect(with_rates(methods_of(args.regime), args.rates), args.seeds, go)
    if args.rates is not None and args.regime == "labels":
        found = at_other_rates(found, args.seeds, go)
    note = (f"Micro-F1 (%) on generated protein graphs of {args.scale:g} times the nodes of PPI's, "
            f"regime '{args.regime}', mean ± standard deviation over {args.seeds} seeds with a "
            f"teacher each. Students take {args.steps} steps, teachers {args.teacher_steps}."
            )  # fmt: skip
    if args.rates is not None:
        note += " Learning rates are those that another table has found; all else was tried here."
    found |= {"regime": args.regime, "note": note}
    return found | {"teachers": [teachers[seed][1] for seed in range(args.seeds)]}


def sizes(found: dict[str, Any], names: dict[str, str]) -> Rows:
    """Return the parameters of the teacher, and of students where they are others."""
    counts: dict[str, list[int]] = {"teacher": [run["parameters"] for run in found["teachers"]]}
    for run in found["runs"]:
        if "trial" not in run and run["method"] in names:
            counts.setdefault(run["method"], []).append(run["parameters"])
    known: dict[str, float] = {}
    for name, sizes in counts.items():
        if (mean := statistics.fmean(sizes)) not in known.values():
            known[name] = mean
    return [
        {"model": names[name], "parameters": f"{size:,.0f}",
         "share": f"{100 * size / known['teacher']:.1f} %"}
        for name, size in known.items()
    ]  # fmt: skip


def show(found: dict[str, Any], path: Path) -> str:
    """Write the page of a table; return its text."""
    shown = ["teacher", *(method.name for method in methods_of(found["regime"]))]
    names = {name: NAMES.get(name, name) for name in shown}
    tables = {"Scores": rows(found, found["teachers"], names, "f1")}
    for beside in (name for name in found["chosen"] if name.startswith(f"{ALONE}, rate ")):
        rate = found["chosen"][beside]["config"]["lr"]
        alike = [name for name in shown[2:] if found["chosen"][name]["config"]["lr"] == rate]
        same = {name: names[name] for name in ("teacher", *alike)} | {beside: f"student {beside}"}
        tables[f"Of the rate {rate:g}"] = rows(found, found["teachers"], same, "f1", alone=beside)
    if found["regime"] == "few":
        tables["What the parts of the recipe add"] = differences(found, PARTS, names, "f1")
    tables["Sizes"] = sizes(found, names)
    last = found["runs"][-1]
    labels = "few labels" if found["regime"] == "few" else "all labels"
    title = f"LSP paper, Table 2 with {labels}, {last['config']['scale']:g} of PPI's nodes"
    return present(path, title, f"{title}. {found['note']}", tables, {}, last["machine"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--regime", choices=("labels", "few"), default="few", help="which table")
    parser.add_argument("--seeds", type=int, default=10, help="teachers and students (default: 10)")
    parser.add_argument("--steps", type=int, default=1000, help="of each run (default: 1000)")
    parser.add_argument("--teacher-steps", type=int, help="of each teacher (default: as many)")
    parser.add_argument("--scale", type=float, default=0.1,
                        help="factor on the nodes of PPI's graphs (default: 0.1)")  # fmt: skip
    parser.add_argument("--rates", type=Path, help="a stored table whose rates are taken")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce/lsp_table2"),
                        help="finished runs are kept here")  # fmt: skip
    parser.add_argument(
        "--redraw", type=Path, help="only write the page of this stored table again"
    )
    args = parser.parse_args()
    args.teacher_steps = args.teacher_steps or args.steps
    torch.set_num_threads(1)
    size = "" if args.scale == 0.1 else f"_scale{args.scale:g}"
    path = RESULTS / f"lsp_table2_{args.regime}{size}.json"
    if args.redraw is None:
        found = experiment(args, Store(args.out))
        write_atomic(path, json.dumps(found, separators=(",", ":")).encode())
    else:
        path, found = args.redraw, json.loads(args.redraw.read_text())
    print(show(found, path))


if __name__ == "__main__":
    main()
