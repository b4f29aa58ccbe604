"""What the tables of the STCD paper share: a part of a road network, models, losses, a training."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from protocol import TUNING, Method, collect, commit, late_gain, settled
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch_geometric.utils import subgraph

sys.path.append(str(Path(__file__).parents[2] / "examples" / "papers"))
import traffic
from experiment import Run, Store
from prune_measure import flops
from prune_student import copy_of, task_loss
from traffic_task import MONTH_SHARES, SHARES, Task

from pyg_stkd import Distiller
from pyg_stkd.datasets.tables import read_table
from pyg_stkd.datasets.traffic import METRLAWeek, SyntheticTraffic, TrafficSeries
from pyg_stkd.datasets.traffic.traffic_files import read_links
from pyg_stkd.distill import (
    DistillationLoss,
    ResponseLoss,
    SpatialCorrelationLoss,
    Teachers,
    TemporalCorrelationLoss,
    fit,
)
from pyg_stkd.files import write_atomic
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import ASTGCN, STGCN
from pyg_stkd.prune import KDIS, Pruner, distill_and_prune

RESULTS = Path(__file__).parents[1] / "results"
LAYER = {"STGCN": "blocks.1", "ASTGCN": "parts.recent.blocks.1"}  # what the head reads
NAMES = {
    "metr-la-week": "METR-LA-week",
    "pemsd7m": "generated traffic on the road graph of PeMSD7(M)",
    "pemsd8": "generated traffic on the road graph of PeMSD8",
}
CALIBRATION = 8  # batches that scores are averaged over
GENERATED = 4032  # steps of a generated series: two weeks


def load(args: argparse.Namespace) -> Task:
    """Read or generate the series of the connected part of a road network that is trained on."""
    if args.dataset == "metr-la-week":
        series: TrafficSeries = METRLAWeek(args.root, drop_dead=True)
    else:
        series = generated(args.dataset, args.root)
    month, strided = args.dataset != "metr-la-week", args.stride
    task = Task(
        NAMES[args.dataset], around(series, args.sensors),
        MONTH_SHARES if month else SHARES[args.dataset], strided, "cpu", False,
        val_stride=strided if month else 1,
    )  # fmt: skip
    task.num_nodes = None  # norms share their scales: a pair a sensor would alone be above 3 %
    return task


def generated(name: str, root: Path) -> TrafficSeries:
    """Generate two weeks of traffic on a real road graph, whose readings are not at hand."""
    if name == "pemsd8":
        ids, metres = read_links(root / "distance.csv")
        links, distance = torch.from_numpy(ids).t().contiguous(), torch.from_numpy(metres)
    else:
        matrix = torch.from_numpy(read_table(root / "PeMSD7_W_228.csv", columns=228).values)
        links, distance = nearest(matrix, 2)
    nodes = int(links.max()) + 1
    return SyntheticTraffic(nodes, GENERATED, links=links, distance=distance)


def nearest(distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Link each station with its nearest ones: a matrix does not say which ones a road joins."""
    apart = distances.clone().fill_diagonal_(torch.inf)
    length, source = apart.topk(k, largest=False)  # [N, k]
    target = torch.arange(len(apart))[:, None].expand_as(source)
    return torch.stack([source.reshape(-1), target.reshape(-1)]), length.reshape(-1)


def around(series: TrafficSeries, count: int) -> TrafficSeries:
    """Return the part of a series that is nearest, in links, to its best connected sensor.

    Of sensors that are as near the first ones count; what cannot be reached is never taken.
    """
    source, target = series.edge_index
    degree = torch.zeros(series.num_nodes).index_add(0, target, series.edge_weight)
    found = [int(degree.argmax())]
    for node in found:
        if len(found) >= count:
            break
        near = set(source[target == node].tolist()) | set(target[source == node].tolist())
        found += sorted(near - set(found))
    keep = torch.tensor(sorted(found[:count]))
    edges, weight = subgraph(
        keep, series.edge_index, series.edge_weight, relabel_nodes=True, num_nodes=series.num_nodes
    )
    return TrafficSeries(
        series.values[:, keep], series.mask[:, keep], edges, weight, channels=series.channels,
        names=series.names and [series.names[i] for i in keep.tolist()], units=series.units,
        step_minutes=series.step_minutes, times=series.times, days_per_week=series.days_per_week,
    )  # fmt: skip


def build(config: dict[str, Any], task: Task) -> nn.Module:
    """Return the model of a run: by its widths, three a block and two of the head, or its width."""
    if config.get("model") == "ASTGCN":
        return ASTGCN(task.in_channels, config["width"], task.output_steps,
                      task.plain.num_nodes)  # fmt: skip
    *blocks, head = config["widths"]
    return STGCN(
        task.in_channels, [tuple(block) for block in blocks], task.output_steps,
        head_channels=tuple(head), dropout=config.get("dropout", 0.0),
    )  # fmt: skip


def wide(width: int) -> list[list[int]]:
    """Return the widths of an STGCN of the published proportions, 4:1:4 and a head of 8.

    Example:
        >>> wide(64)
        [[64, 16, 64], [64, 16, 64], [128, 128]]
    """
    return [[width, max(4, width // 4), width]] * 2 + [[2 * width, 2 * width]]


def losses_of(config: dict[str, Any], layers: tuple[str, str]) -> list[DistillationLoss]:
    r"""Return the three parts of :math:`\mathcal{L}_{STCD}`; the first holds the task's loss.

    The share of the teacher is given as its odds, :math:`\alpha / (1 - \alpha)`, which have no end.
    """
    alpha = config["odds"] / (1 + config["odds"])
    kernel = RBF(sigma=config.get("sigma", "median"))
    losses: list[DistillationLoss] = [
        ResponseLoss(alpha, error=traffic.ERROR, delta=config.get("beta"))
    ]
    for kind, name in ((SpatialCorrelationLoss, "spatial"), (TemporalCorrelationLoss, "temporal")):
        if weight := config.get(name, 1.0):
            losses.append(kind(*layers, kernel, weight))
    return losses


class Turns:
    """So many batches, in a new random order each time."""

    def __init__(self, batches: Sequence[Any], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __iter__(self) -> Iterator[Any]:
        yield from (self.batches[i] for i in traffic.passes(len(self.batches), self.steps))


def nothing(out: Tensor, target: Tensor) -> Tensor:
    """Return 0: the response loss holds the task's loss."""
    return out.new_zeros(())


def prune(
    run: Run, distiller: Distiller, batches: list[Any], criterion: Any, optimizer: Any
) -> dict[str, Any]:
    """Prune the distiller's student by the stages of Algorithm 1; return what is left of it.

    All stages but the last train for as many steps; the last one trains with what is left.
    """
    config = run.config
    pruner = Pruner(distiller.student, KDIS(), keep=config["keep"], min_width=config["min_width"])
    steps, last = config["stage_steps"], len(config["keep"]) - 1
    stages = list(
        distill_and_prune(
            distiller, pruner, Turns(batches, max(steps, 1)), criterion, optimizer=optimizer,
            epochs=[1 if steps else 0] * last + [0], calibration=batches[:CALIBRATION],
        )
    )  # fmt: skip
    kept = {name: mask.tolist() for name, mask in pruner.state_dict()["kept"].items()}
    left = [{"parameters": stage.num_parameters, "share": stage.share} for stage in stages]
    return {"stages": left, "kept": kept}


def pruner_of(result: dict[str, Any], teacher: nn.Module) -> Pruner:
    """Return a pruner that has done to a copy of a teacher what a stored run did."""
    pruner = Pruner(copy_of(teacher), KDIS(), keep=result["config"]["keep"])
    kept = {name: torch.tensor(mask) for name, mask in result["kept"].items()}
    state = {"granularity": "channel", "stage": len(pruner.keep), "kept": kept}
    pruner.load_state_dict(state, shrink=True)
    return pruner


def model_of(result: dict[str, Any], teacher: dict[str, Any], task: Task) -> nn.Module:
    """Return a model of the form that a stored run ended with, pruned from its teacher or not."""
    if "kept" in result:  # a pruned model may hold more than its widths tell: aligned residuals
        return pruner_of(result, build(teacher["config"], task)).model.eval()
    return build({"widths": result["left"]}, task).eval()


def error(model: nn.Module, task: Task, split: str) -> dict[str, float]:
    return task.score(traffic.forecast(model, task, split), split)


def widths_of(model: nn.Module) -> list[list[int]] | None:
    if not isinstance(model, STGCN):
        return None
    return [list(block) for block in (*model.hidden_channels, model.head_channels)]


def train(run: Run, task: Task, store: Store, teacher: nn.Module | None) -> dict[str, Any]:
    """Train and test one model for the steps of its run, unless its result is there already.

    With :obj:`odds` it learns from the teacher too; with :obj:`keep` it starts as the teacher and
    is pruned first, which its steps hold.
    """
    if (result := store.result(run)) is not None:
        return result
    with warnings.catch_warnings():
        # The floors may leave a little more, and a width that is swept may be blind: tables tell.
        warnings.filterwarnings("ignore", "The floors of the groups")
        warnings.filterwarnings("ignore", ".* is blind here")
        warnings.filterwarnings("ignore", "No weights of this training")  # what was pruned
        return _train(run, task, store, teacher)


def _train(run: Run, task: Task, store: Store, teacher: nn.Module | None) -> dict[str, Any]:
    torch.manual_seed(run.seed)
    config, begun = run.config, time.process_time()
    batches = [
        (x, *task.graph, y)
        for x, y, _ in map(task.train_batch, task.fixed_batches(config["batch"], run.seed))
    ]
    if "keep" in config:
        assert teacher is not None
        student = copy_of(teacher)
    else:
        student = build(config, task)
    if "odds" in config:
        assert teacher is not None
        layers = (layer_of(teacher), layer_of(student))
        distiller, criterion = Distiller(teacher, student, losses_of(config, layers)), nothing
    else:  # labels alone: nobody is asked
        distiller, criterion = Distiller(teacher or nn.Identity(), student, []), task_loss
    optimizer = partial(torch.optim.Adam, lr=config["lr"], weight_decay=config.get("decay", 0.0))
    pruned = prune(run, distiller, batches, criterion, optimizer) if "keep" in config else {}
    total, rise = config["steps"] - spent_on(config), config.get("rise", 0.0)
    scheduler = partial(rises, lr=config["lr"], steps=total, share=rise) if rise else None
    checkpoint = store.checkpoint(run)  # of the training, which an interrupted run goes on with
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    epochs = list(
        fit(
            distiller, batches, criterion=criterion, optimizer=optimizer,
            validate=lambda model: error(model, task, "val")["mae/mean"],
            steps=total, every=config["every"], checkpoint=checkpoint, scheduler=scheduler,
        )
    )  # fmt: skip
    distiller.remove_hooks()  # beside which models take another way, of a few more operations
    model = distiller.student.eval()
    store.save_weights(run, model.state_dict())
    best = spent_on(config) + max((epoch.step for epoch in epochs if epoch.best), default=0)
    return store.finish(
        run,
        {
            **error(model, task, "test"),
            "val": -error(model, task, "val")["mae/mean"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "flops": flops(model, task),
            "left": widths_of(model),
            **pruned,
            "best_share": best / config["steps"],
            "late_gain": late_gain(epochs, total),
            "history": [round(epoch.metric or 0.0, 4) for epoch in epochs],
            "seconds": round(time.process_time() - begun, 1),
            "commit": commit(),
        },
    )


def spent_on(config: dict[str, Any]) -> int:
    """Return the steps that stages of pruning take before the last one."""
    return config["stage_steps"] * (len(config["keep"]) - 1) if "keep" in config else 0


def rises(optimizer: torch.optim.Optimizer, lr: float, steps: int, share: float) -> LRScheduler:
    """Return a rate that rises for a share of the steps, and falls to about zero."""
    return OneCycleLR(optimizer, lr, total_steps=steps, pct_start=share, cycle_momentum=False)


def layer_of(model: nn.Module) -> str:
    """Return the layer that the head of a model reads, of several teachers that of the first."""
    return LAYER[type(model[0] if isinstance(model, Teachers) else model).__name__]


def teachers_of(
    seeds: int, config: dict[str, Any], task: Task, store: Store, *, tuning: bool = True
) -> dict[int, tuple[nn.Module, dict[str, Any]]]:
    """Train a teacher for each seed, those of tuning included; return models and results."""
    found = {}
    for seed in (*(TUNING if tuning else ()), *range(seeds)):
        run = Run("teacher", seed, config)
        result = train(run, task, store, None)
        model = build(config, task)
        model.load_state_dict(store.load_weights(run))
        found[seed] = model.eval(), {k: v for k, v in result.items() if k != "history"}
    return found


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that every table has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", choices=tuple(NAMES), default="metr-la-week")
    parser.add_argument("--root", type=Path, help="folder of the data set's files")
    parser.add_argument("--sensors", type=int, default=32, help="of the road network (default: 32)")
    parser.add_argument("--stride", type=int, default=2, help="steps between training windows")
    parser.add_argument("--batch", type=int, default=16, help="training windows of a step")
    parser.add_argument("--width", type=int, default=64, help="of the teacher (default: 64)")
    parser.add_argument("--steps", type=int, default=400, help="of each student (default: 400)")
    parser.add_argument(
        "--teacher-steps", type=int, default=600, help="of each teacher (default: 600)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="teachers and students (default: 5)")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce/stcd"),
                        help="finished runs are kept here; tables share what they can")  # fmt: skip
    parser.add_argument("--untuned", action="store_true",
                        help="the first settings for all methods, without a trial")  # fmt: skip
    parser.add_argument("--settings", type=Path,
                        help="stored results whose settings are taken: no trial")  # fmt: skip
    parser.add_argument("--redraw", action="store_true", help="only write the stored page again")
    return parser


def make(
    table: str,
    args: argparse.Namespace,
    experiment: Callable[[argparse.Namespace, Task, Store], dict[str, Any]],
    show: Callable[[dict[str, Any], Path], str],
) -> None:
    """Run an experiment, or read what it has stored, write its page and print its tables."""
    torch.set_num_threads(1)
    path = RESULTS / f"stcd_{table}_{args.dataset.replace('-', '_')}.json"
    if args.redraw:
        found = json.loads(path.read_text())
    else:
        found = experiment(args, load(args), Store(args.out / args.dataset))
        write_atomic(path, json.dumps(found, separators=(",", ":")).encode())
    print(show(found, path))


def common(args: argparse.Namespace) -> dict[str, Any]:
    """Return what all runs of a table share."""
    shared = {name: getattr(args, name) for name in ("dataset", "sensors", "stride", "batch")}
    return shared | {"steps": args.steps, "every": max(1, args.steps // 20)}


def of_teacher(args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Return the settings of the teachers."""
    steps = {"steps": args.teacher_steps, "every": max(1, args.teacher_steps // 20)}
    return common(args) | steps | {"widths": wide(args.width), "lr": 0.004, "dropout": 0.1} | more


def is_tuned(args: argparse.Namespace) -> bool:
    """Tell whether methods have trials, in place of settings that are given."""
    return not args.untuned and args.settings is None


def gather(
    args: argparse.Namespace,
    methods: list[Method],
    go: Callable[[Run], dict[str, Any]],
    trials: int = 0,
) -> dict[str, Any]:
    """Tune and run methods by the protocol, or run them as is asked for."""
    if is_tuned(args):
        return collect(methods, args.seeds, go, trials)
    chosen = {method.name: {"config": method.start, "inside": True} for method in methods}
    if args.settings is not None:
        chosen = json.loads(args.settings.read_text())["chosen"]
    return settled(methods, chosen, args.seeds, go)
