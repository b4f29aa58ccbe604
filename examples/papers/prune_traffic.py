"""Prune a traffic forecaster to 3 % of its parameters: Algorithm 1, and what it is worth.

    python examples/papers/prune_traffic.py                                  # synthetic, in minutes
    python examples/papers/prune_traffic.py --seeds 10 --epochs 30 --stage-epochs 2 1 1 \\
        --steps 2016 --stride 2 --labelled-days 7 --patience 10 --teacher-epochs 20 \\
        --methods KDIS "KDIS without distillation"
    python examples/papers/prune_traffic.py --dataset metr-la-week --root data/metr_la_week \\
        --seeds 3 --trials 3 --epochs 60 --stage-epochs 2 1 1 --teacher-epochs 30 --patience 10 \\
        --methods KDIS magnitude random "KDIS at once" "KDIS without distillation" \\
        "KDIS's widths from scratch" "KDIS's widths from the teacher" \\
        "KDIS, 4 channels at least" "KDIS, 4 channels at least, later"

A trained 64-16-64 STGCN is distilled and pruned in stages (40, 15, 6, 3 % of its parameters) and
compacted. Beside KDIS: magnitude and random scores, all at once, without distillation, the widths
that KDIS left with new weights (a dense student from scratch) or with the teacher's weights (taken
from it at once), and masks of single weights, all with one loss; and the same with the recipe
(forecasts compared as numbers, half of the steps on windows without labels, if there are any). On
generated traffic the teacher has learned from two weeks, the student's side has the labels of two
days. All have the same number of steps in all and the same number of tuning trials (the learning
rate, on validation). The norms share their
scales among sensors: a pair for each sensor and channel alone would be more than 3 %. Finished
runs are kept in --out: an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import traffic
from experiment import (
    Run,
    Store,
    argument_parser,
    at_least_one,
    fall,
    train,
    train_by_recipe,
)
from presentation import conclude
from prune_measure import cost, flops
from prune_report import present
from prune_student import Batches, copy_of, make_distiller, no_more, task_loss
from schedule import each, tune_and_run
from torch import Tensor, nn
from tqdm import tqdm
from traffic_task import Task, load

from pyg_stkd.prune import (
    KDIS,
    Importance,
    Magnitude,
    Pruner,
    Random,
    distill_and_prune,
    load_compact,
    save_compact,
)

SCORES: dict[str, Callable[[int], Importance]] = {
    "KDIS": lambda _: KDIS(),
    "magnitude": lambda _: Magnitude(),
    "random": Random,
}
# What a method is: its score, and what is different from Algorithm 1.
METHODS: dict[str, dict[str, Any]] = {
    "recipe": {"recipe": True},
    "recipe's widths from scratch": {"widths_of": "recipe", "weights": "new", "recipe": True},
    "KDIS": {},
    "magnitude": {"score": "magnitude"},
    "KDIS without distillation": {"alpha": 0.0},
    "KDIS's widths from scratch": {"widths_of": "KDIS", "weights": "new"},
    "KDIS's widths from the teacher": {"widths_of": "KDIS", "weights": "teacher"},
    "KDIS at once": {"stages": "last"},
    "random": {"score": "random"},
    "KDIS, masks of weights": {"granularity": "weight"},
    "magnitude, masks of weights": {"score": "magnitude", "granularity": "weight"},
}
METHODS_SHOWN = list(METHODS)[:6]
# What was tried to do better, not run by default.
TRIED: dict[str, dict[str, Any]] = {
    "KDIS, 4 channels at least": {"min_width": 4},
    "KDIS, 4 channels at least, later": {"min_width": 4, "stage_epochs": [1, 0, 0]},
    "KDIS, smaller steps": {
        "keep": [0.6, 0.4, 0.25, 0.15, 0.1, 0.065, 0.045, 0.03],
        "stage_epochs": [1, 1, 1, 1, 0, 0, 0],
    },
}
DEFAULTS = {"score": "KDIS", "granularity": "channel", "stages": "all"}
RATES = (8e-3, 1.6e-2, 4e-3, 2e-3)
CALIBRATION = 16  # batches that scores are averaged over


def pruned_path(run: Run, store: Store) -> Path:
    path = store.folder / "models" / f"{run.name}.stages.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def execute(
    run: Run, task: Task, store: Store, teacher: nn.Module, like: Run | None
) -> dict[str, Any]:
    """Prune, train and test one model, unless its result is there already."""
    if (result := store.result(run)) is not None:
        return result
    torch.manual_seed(run.seed)
    config = run.config
    student, size = copy_of(teacher), config["batch_size"]
    recipe = config.get("recipe", False)
    distiller, unpack = make_distiller(teacher, student, config["alpha"], recipe)
    criterion = task_loss if recipe else no_more
    batches = Batches(task, size, run.seed)
    others = Batches(task, size, run.seed, "unlabelled").fixed if recipe else []

    def error(model: nn.Module) -> float:
        return task.score(traffic.forecast(model, task, "val"), "val")["mae/mean"]

    keep, early = tuple(config["keep"]), list(config["stage_epochs"])
    if config["stages"] == "last":
        keep, early = keep[-1:], []
    score, floor = SCORES[config["score"]](run.seed), config.get("min_width", 2)
    pruner = Pruner(student, score, config["granularity"], keep, min_width=floor)
    stages: list[dict[str, Any]] = []
    start = time.monotonic()
    if like is None:
        # Where half of the steps are on other windows, half of them are on these.
        turns = Batches(task, size, run.seed, share=0.5) if others else batches
        steps = distill_and_prune(
            distiller, pruner, turns, criterion, validate=error, calibration=CALIBRATION,
            unlabelled=others or None,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=config["lr"]),
            epochs=[*early, 0], checkpoint=pruned_path(run, store), unpack=unpack,
        )  # fmt: skip
        stages = [asdict(stage) for stage in steps]
    else:
        early = []
        state = torch.load(pruned_path(like, store), weights_only=True)
        pruner.load_state_dict(state["pruner"], shrink=True)
        if config["weights"] == "new":
            pruner.reset_parameters()
    begun = time.monotonic() - start

    def loss(batch: tuple[Any, ...]) -> Tensor:
        inputs, known, y = unpack(batch)
        return sum(distiller(*inputs, target=y, **known)[1].values())

    left = config["epochs"] - sum(early)
    if recipe:
        result = train_by_recipe(
            run, store, distiller, batches.fixed, others, criterion=criterion, unpack=unpack,
            validate=lambda: -error(distiller.student), per_epoch=len(batches), epochs=left,
        )  # fmt: skip
        result["history"] = [[round(a, 4), round(b, 4)] for a, b in result["history"]]
    else:
        result = finish(run, store, distiller, loss, batches, left, error)
    small = pruner.compact()
    result |= task.score(traffic.forecast(small, task, "test"), "test")
    result |= {"stages": stages, "parameters": pruner.num_parameters, "flops": flops(small, task)}
    live = pruner.model if config["granularity"] == "weight" else small
    path = store.folder / "models" / f"{run.name}.safetensors"
    save_compact(small, path)
    result |= {"bytes": path.stat().st_size, "cost": cost(live, teacher, task)}
    result["seconds_all"] = begun + result["seconds"]
    result["widths"] = [*small.hidden_channels, small.head_channels]
    return store.finish(run, result)


def time_again(
    run: Run, task: Task, store: Store, teacher: nn.Module, result: dict[str, Any]
) -> dict[str, Any]:
    """Measure the milliseconds of a finished model anew, with the code of today."""
    if run.config["granularity"] == "weight":
        return result  # its file has no masks
    path = store.folder / "models" / f"{run.name}.safetensors"
    small = load_compact(path, build=lambda: copy_of(teacher))
    return store.finish(run, result | {"cost": cost(small, teacher, task)})


def finish(
    run: Run,
    store: Store,
    distiller: nn.Module,
    loss: Callable[[Any], Tensor],
    batches: Batches,
    epochs: int,
    error: Callable[[nn.Module], float],
) -> dict[str, Any]:
    """Train for the rest of the budget; the best epoch on validation counts."""
    rate = run.config["lr"]
    optimizer = torch.optim.Adam([p for p in distiller.parameters() if p.requires_grad], lr=rate)

    def step(epoch: int) -> float:
        distiller.train()
        fall(optimizer, rate, epoch / epochs)
        total = 0.0
        for batch in batches:
            optimizer.zero_grad()
            value = loss(batch)
            value.backward()
            optimizer.step()
            total += value.item()
        return total / len(batches)

    def validate() -> float:
        return -error(distiller.student)

    result = train(run, store, distiller, optimizer, step, validate, epochs, epochs)
    result["history"] = [[round(a, 4), round(b, 4)] for a, b in result["history"]]
    return result


def experiment(args: argparse.Namespace, task: Task, store: Store) -> list[dict[str, Any]]:
    """Train the teachers, tune each method on the first seed, then run it from every seed."""
    names = ("dataset", "batch_size", "stride")
    common = {name: getattr(args, name) for name in names} | {"norms": "shared"}
    common |= {"nodes": args.nodes, "steps": args.steps} if args.dataset == "synthetic" else {}
    of_teacher = common | {
        "model": "stgcn", "epochs": args.teacher_epochs, "patience": args.patience,
        "teacher_width": args.teacher_width, "lr": args.teacher_lr, "dropout": 0.1,
    }  # fmt: skip
    common |= {
        "teacher": of_teacher, "epochs": args.epochs, "stage_epochs": args.stage_epochs,
        "keep": args.keep,
    }  # fmt: skip
    common |= {} if args.labelled_days is None else {"labelled_days": args.labelled_days}
    results, teachers, done = [], [], {}
    runs = [Run("teacher", seed, of_teacher) for seed in range(args.seeds)]
    teach = partial(traffic.execute, task=task, store=store, teacher=None)
    with tqdm(total=len(runs), desc="teachers") as bar:
        trained = each(teach, [(run,) for run in runs], args.workers, bar)
    for run, result in zip(runs, trained, strict=True):
        teacher = traffic.build("teacher", task, of_teacher)
        teacher.load_state_dict(store.load_weights(run))
        teachers.append(teacher)
        path = store.folder / "models" / f"{run.name}.safetensors"
        save_compact(teacher, path)
        widths = [*teacher.hidden_channels, teacher.head_channels]
        more = {"flops": flops(teacher, task), "bytes": path.stat().st_size, "widths": widths}
        more["seconds_all"] = result["seconds"]
        results.append(result | more)

    def go(method: str, seed: int, config: dict[str, Any]) -> dict[str, Any]:
        like = done.get((config.get("widths_of"), seed))
        run = Run(method, seed, common | config | ({} if like is None else {"like": like.name}))
        result = execute(run, task, store, teachers[seed], like)
        if args.time_again:
            result = time_again(run, task, store, teachers[seed], result)
        done[method, seed] = run  # the last run from a seed is not one of tuning
        return result

    def configs(method: str, _: dict[str, Any] | None) -> list[dict[str, Any]]:
        fixed = {"alpha": args.alpha} | DEFAULTS | (METHODS | TRIED)[method]
        return [fixed | {"lr": lr} for lr in RATES]

    workers = 1 if args.time_again else args.workers
    # What takes the widths of another method comes after it.
    after = [m for m in args.methods if "widths_of" in (METHODS | TRIED)[m]]
    for methods in ([m for m in args.methods if m not in after], after):
        results += tune_and_run(configs, go, methods, args.seeds, args.trials, workers)
    order = ["teacher", *args.methods]
    return sorted(results, key=lambda result: order.index(result["method"]))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    names = ("synthetic", "metr-la-week", "pemsd7m", "pemsd8", "pemsd4")
    options = argument_parser(__doc__, names, "runs/prune")
    options.set_defaults(epochs=12, patience=16, seeds=3)
    options.add_argument("--nodes", type=int, default=24, help="sensors of the synthetic set")
    options.add_argument("--steps", type=int, default=8064, help="time steps of the synthetic set")
    options.add_argument(
        "--teacher-width", type=int, default=64,
        help="channels of the temporal convolutions; a quarter of them in the graph's",
    )  # fmt: skip
    options.add_argument(
        "--teacher-epochs", type=at_least_one, default=16, help="of the teacher, at most"
    )
    options.add_argument("--teacher-lr", type=float, default=4e-3, help="its learning rate")
    options.add_argument("--batch-size", type=int, default=16, help="training windows of a step")
    options.add_argument("--stride", type=int, default=6, help="steps between training windows")
    options.add_argument(
        "--keep", type=float, nargs="+", default=[0.4, 0.15, 0.06, 0.03],
        help="share of the teacher's parameters after each stage",
    )  # fmt: skip
    options.add_argument(
        "--stage-epochs", type=int, nargs="*", default=[2, 1, 1],
        help="of --epochs: after each stage but the last, which has the rest",
    )  # fmt: skip
    options.add_argument(
        "--labelled-days", type=at_least_one,
        help="first days that students have labels of (default: all; of the synthetic set 2)",
    )  # fmt: skip
    options.add_argument("--alpha", type=float, default=0.3, help="weight of the teacher's outputs")
    options.add_argument(
        "--methods", nargs="+", choices=METHODS | TRIED, default=METHODS_SHOWN, metavar="METHOD",
        help="\n".join(["what to compare (default: the first six), of", *METHODS, *TRIED]),
    )  # fmt: skip
    options.add_argument(
        "--time-again", action="store_true", help="measure the milliseconds of finished models anew"
    )
    args = options.parse_args(argv)
    if len(args.stage_epochs) != len(args.keep) - 1 or sum(args.stage_epochs) >= args.epochs:
        options.error("--stage-epochs must hold one less than --keep, and leave some of --epochs")
    for method in args.methods:
        source = METHODS.get(method, {}).get("widths_of")
        if source not in (None, *args.methods):
            options.error(f"--methods must hold {source} for those that take its widths")
    if args.dataset == "synthetic" and args.labelled_days is None:
        args.labelled_days = 2
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    folder = args.out / args.dataset

    def collect() -> dict[str, Any]:
        task = load(args)
        task.num_nodes = None  # for the norms of the models, see above
        return {
            "title": f"Pruning STGCN on {task.name}",
            "persistence": task.baselines()["persistence"],
            "unit": task.plain.unit,
            "runs": experiment(args, task, Store(folder)),
        }

    conclude(args, folder, collect, present)


if __name__ == "__main__":
    main()
