"""Distil a traffic forecaster: STGCN or ASTGCN with responses, hints and correlations (STCD).

    python examples/papers/traffic.py                                        # synthetic, in minutes
    python examples/papers/traffic.py --dataset metr-la-week --root data/metr_la_week --seeds 3 \\
        --trials 2 --epochs 80 --patience 20 --batch-size 16 --stride 2 \\
        --teacher-width 32 --student-width 8
    python examples/papers/traffic.py --dataset pemsd7m --root data/PeMSD7 --seeds 5 --trials 4

A wide teacher, a narrow student alone, and the student with the recipe (forecasts compared as
numbers, half of the steps on windows without labels, if there are any), the same on labelled
windows alone (outputs), imitation (L_ORD), FitNet, L_SCD, L_TCD and all three together (L_STCD),
against persistence and the historical average. On generated traffic the teacher has learned from
two weeks; the student's side knows what followed the windows of three days, and of the others what
the teacher says of them, as where an archive keeps the last hour of each query alone. Each method
is tuned on validation by the same number of trials, then run from each seed, all for as many steps.
Finished runs are kept in --out: an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from experiment import (
    Run,
    Store,
    argument_parser,
    at_least_one,
    fall,
    latency,
    passes,
    train,
    train_by_recipe,
    under,
)
from presentation import conclude
from schedule import tune_and_run
from torch import Tensor, nn
from traffic_report import present
from traffic_task import Task, load

from pyg_stkd import Distiller
from pyg_stkd.distill import (
    HintLoss,
    OutputLoss,
    ResponseLoss,
    SpatialCorrelationLoss,
    STCDLoss,
    TeacherCache,
    TemporalCorrelationLoss,
)
from pyg_stkd.kernels import RBF
from pyg_stkd.metrics import masked_mae
from pyg_stkd.nn import ASTGCN, STGCN

LAYER = {"stgcn": "blocks.1", "astgcn": "parts.recent.blocks.1"}  # what the head reads
KERNEL = RBF(sigma="median")
ERROR = "mae"  # as the task's loss
# What a method is, given its layer and its weight. The first and the last hold the task's loss.
LOSSES: dict[str, Callable[[str, float], Sequence[Any]]] = {
    "recipe": lambda at, w: [OutputLoss(ERROR, weight=w)],
    "outputs": lambda at, w: [OutputLoss(ERROR, weight=w)],  # of windows with labels alone
    "imitation": lambda at, w: [ResponseLoss(alpha=w, error=ERROR)],
    "FitNet": lambda at, w: [HintLoss(at, at, weight=w)],
    "L_SCD": lambda at, w: [SpatialCorrelationLoss(at, at, kernel=KERNEL, weight=w)],
    "L_TCD": lambda at, w: [TemporalCorrelationLoss(at, at, kernel=KERNEL, weight=w)],
    "L_STCD": lambda at, w: STCDLoss(at, at, (1.0, w, w), alpha=0.3, error=ERROR, kernel=KERNEL),
}
WITH_TASK = ("imitation", "L_STCD")
METHODS = ("teacher", "student", *LOSSES)
# As many trials for each method, in this order; the first is the default without tuning.
RATES = {
    "teacher": [(4e-3, 0.1), (8e-3, 0.1), (4e-3, 0.0), (2e-3, 0.3)],
    "student": [(8e-3, 0.0), (1.6e-2, 0.0), (8e-3, 0.1), (4e-3, 0.0)],
}
WEIGHTS = {
    "recipe": (1.0, 0.3, 3.0, 0.1),
    "outputs": (1.0, 0.3, 3.0, 0.1),
    "imitation": (0.3, 0.6, 0.1, 0.9),
    "FitNet": (0.1, 0.01, 1.0, 0.001),
    "L_SCD": (1.0, 10.0, 0.1, 100.0),
    "L_TCD": (1.0, 10.0, 0.1, 100.0),
    "L_STCD": (1.0, 10.0, 0.1, 100.0),
}
CACHE_LIMIT = 2**30  # bytes of the teacher's hidden features that may be kept


def build(method: str, task: Task, config: dict[str, Any]) -> nn.Module:
    width = config["teacher_width" if method == "teacher" else "student_width"]
    graph_width = max(4, width // 4)
    sizes = task.in_channels, graph_width, task.output_steps
    if config["model"] == "astgcn":
        model: nn.Module = ASTGCN(task.in_channels, width, task.output_steps, task.num_nodes)
    else:
        model = STGCN(
            *sizes, temporal_channels=width, head_channels=2 * width,
            num_nodes=task.num_nodes, dropout=config["dropout"],
        )  # fmt: skip
    return model.to(task.device)


def observed(out: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """Return the task's loss, over the readings that there are."""
    return masked_mae(out, *target)


def forecast(model: nn.Module, task: Task, split: str) -> Tensor:
    """Forecast a part of the series in original units, [windows, T_out, N]."""
    model.eval()
    with torch.no_grad(), task.autocast():
        outs = [model(x, *task.graph).float() for x, _, _ in task.batches(split)]
    return task.scaler.inverse_transform(torch.cat(outs), channel=0)


def execute(run: Run, task: Task, store: Store, teacher: nn.Module | None) -> dict[str, Any]:
    """Train and test one model, unless its result is there already."""
    if (result := store.result(run)) is not None:
        return result
    torch.manual_seed(run.seed)
    config = run.config
    model = build(run.method, task, config)
    part = "train" if run.method == "teacher" else "labelled"
    batches = task.fixed_batches(config["batch_size"], run.seed, part)
    per_epoch = -(-len(task.parts["train"]) // config["batch_size"])  # the same for all
    module: nn.Module = model
    cache: TeacherCache | None = None
    if teacher is not None:
        losses = LOSSES[run.method](LAYER[config["model"]], config["weight"])
        module = Distiller(teacher, model, losses, call=under(task.autocast) if task.amp else None)
        x, y, _ = task.train_batch(batches[0])
        report = module.check(x, *task.graph, target=y)
        size = math.prod(report.taps[0].shapes[0]) * x.element_size() * len(batches)
        cache = TeacherCache(module) if size < CACHE_LIMIT else None
    optimizer = torch.optim.Adam(module.parameters(), lr=config["lr"])

    def step(epoch: int) -> float:
        module.train()
        fall(optimizer, config["lr"], epoch / config["epochs"])
        total = 0.0
        for i in passes(len(batches), per_epoch):
            x, y, mask = task.train_batch(batches[i])
            optimizer.zero_grad()
            with task.autocast():
                if teacher is None:
                    out, extra = module(x, *task.graph), {}
                else:
                    known = None if cache is None else cache(i, x, *task.graph)
                    out, extra = module(x, *task.graph, target=y, teacher=known)
            loss = sum(extra.values())
            if run.method not in WITH_TASK:
                loss = loss + observed(out.float(), (y, mask))
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / per_epoch

    def validate() -> float:
        return -task.score(forecast(model, task, "val"), "val")["mae/mean"]

    if run.method == "recipe":
        others = task.fixed_batches(config["batch_size"], run.seed, "unlabelled")
        result = train_by_recipe(
            run, store, module, *([task.train_batch(i) for i in b] for b in (batches, others)),
            validate=validate, per_epoch=per_epoch, criterion=observed, cache=cache is not None,
            unpack=lambda window: ((window.x, *task.graph), {}, (window.y, window.mask)),
        )  # fmt: skip
    else:
        result = train(
            run, store, module, optimizer, step, validate, config["epochs"], config["patience"]
        )
    result["history"] = [[round(a, 4), round(b, 4)] for a, b in result["history"]]
    out = forecast(model, task, "test")
    result |= task.score(out, "test") | task.details(out)
    x = next(iter(task.batches("test")))[0][:1]
    with torch.no_grad():
        result["latency_ms"] = latency(lambda: model.eval()(x, *task.graph))
    result["parameters"] = sum(p.numel() for p in model.parameters())
    store.save_weights(run, model.state_dict())
    return store.finish(run, result)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return what all runs share."""
    names = ("dataset", "model", "epochs", "patience", "batch_size", "stride")
    common = {name: getattr(args, name) for name in (*names, "teacher_width", "student_width")}
    common |= {"nodes": args.nodes, "steps": args.steps} if args.dataset == "synthetic" else {}
    common |= {"amp": True} if args.amp else {}
    common |= {} if args.labelled_days is None else {"labelled_days": args.labelled_days}
    return common


def experiment(args: argparse.Namespace, task: Task, store: Store) -> list[dict[str, Any]]:
    """Tune each method on the first seed, then run it from every seed; return all results."""
    common = settings(args)
    teachers: dict[int, nn.Module] = {}

    def go(method: str, seed: int, config: dict[str, Any]) -> dict[str, Any]:
        run = Run(method, seed, common | config)
        result = execute(run, task, store, teachers[seed] if method in LOSSES else None)
        if method == "teacher":
            teachers[seed] = build(method, task, run.config)
            teachers[seed].load_state_dict(store.load_weights(run))
        return result

    def configs(method: str, student: dict[str, Any] | None) -> list[dict[str, Any]]:
        if student is not None:  # a way to distil it
            return [student | {"weight": weight} for weight in WEIGHTS[method]]
        return [{"lr": lr, "dropout": p} for lr, p in RATES[method]]

    budget = args.seeds, args.trials, args.workers
    first = tune_and_run(configs, go, METHODS[:1], *budget)
    return first + tune_and_run(configs, go, METHODS[1:], *budget)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    names = ("synthetic", "metr-la-week", "pemsd7m", "pemsd8", "pemsd4")
    options = argument_parser(__doc__, names, "runs/traffic")
    options.set_defaults(epochs=10, patience=10, seeds=3)
    options.add_argument("--nodes", type=int, default=24, help="sensors of the synthetic set")
    options.add_argument("--steps", type=int, default=8064, help="time steps of the synthetic set")
    options.add_argument("--model", choices=tuple(LAYER), default="stgcn", help="of both")
    options.add_argument("--teacher-width", type=int, default=64, help="channels of its blocks")
    options.add_argument("--student-width", type=int, default=12, help="channels of its blocks")
    options.add_argument("--batch-size", type=int, default=16, help="training windows of a step")
    options.add_argument("--stride", type=int, default=4, help="steps between training windows")
    options.add_argument(
        "--labelled-days", type=at_least_one,
        help="first days that students have labels of (default: all; of the synthetic set 3)",
    )  # fmt: skip
    args = options.parse_args(argv)
    if args.dataset == "synthetic" and args.labelled_days is None:
        args.labelled_days = 3
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    folder = args.out / f"{args.dataset}-{args.model}"

    def collect() -> dict[str, Any]:
        task = load(args)
        runs = experiment(args, task, Store(folder))
        return {
            "title": f"Distilling {args.model.upper()} on {task.name}",
            "baselines": task.baselines(),
            "scene": task.scene(),
            "runs": runs,
        }

    conclude(args, folder, collect, present)


if __name__ == "__main__":
    main()
