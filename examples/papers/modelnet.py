"""Distil a DGCNN on point clouds: the experiments of the LSP paper, Tables 4 to 6 and Figure 4.

    python examples/papers/modelnet.py                                      # synthetic, in minutes
    python examples/papers/modelnet.py --dataset modelnet40-h5 --root data --points 1024 \\
        --augment --teacher-width 64 --student-width 32 --epochs 250 --seeds 5 --trials 4 \\
        --device cuda
    python examples/papers/modelnet.py --dataset modelnet10-vox24 --root data/modelnet10_voxel30 \\
        --points 512 --teacher-width 32 --student-width 16 --epochs 10 --patience 8 \\
        --teacher-epochs 8 --one-teacher --seeds 3 --trials 2 --kernels

A teacher (4 edge convolutions, k = 20), the student alone (3, k = 10), and the student with the
recipe (logits compared as numbers, half of the steps on shapes without labels, if there are any),
KD, FitNet, AT and LSP over the union of the two dynamic graphs; with --kernels LSP with each kernel
(Table 5), with --variants larger students with and without LSP (Table 6). The paper's widths are
64 and 32. Of the generated shapes a student has the labels of 160, its teacher those of all. Each
method is tuned on validation by the same number of trials, then run from each seed. Finished runs
are kept in --out: an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import argparse
import json
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
    train,
    train_by_recipe,
    under,
)
from modelnet_report import present
from modelnet_task import LOADERS, Clouds, Task, load
from presentation import conclude
from schedule import tune_and_run
from torch import Tensor
from torch.nn.functional import cross_entropy

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    AttentionTransferLoss,
    HintLoss,
    LogitLoss,
    LSPLoss,
    SoftTargetLoss,
    TeacherCache,
)
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF, Kernel
from pyg_stkd.nn import DGCNN, KNNGraph
from pyg_stkd.report import write_atomic

Taps = tuple[str, str]  # the last edge convolution of teacher and student
SHOWN = (1, 5, 10, 20, 50, 100)  # epochs, as in Figure 4


def structure(kernel: Kernel) -> Callable[[Taps, float], LSPLoss]:
    # Unit vectors: the scale of the features differs between teacher and student.
    return lambda at, w: LSPLoss(*at, kernel=kernel, graph="union", normalize="l2", weight=w)


# What a method is, given its layers and its weight.
LOSSES: dict[str, Callable[[Taps, float], Any]] = {
    "recipe": lambda at, w: LogitLoss(weight=w),
    "KD": lambda at, w: SoftTargetLoss(temperature=4.0, weight=w),
    "FitNet": lambda at, w: HintLoss(*at, weight=w),
    "AT": lambda at, w: AttentionTransferLoss(*at, p=2, weight=w),
    "LSP": structure(RBF(sigma="median")),
}
KERNELS: dict[str, Callable[[Taps, float], Any]] = {
    f"LSP {type(kernel).__name__}": structure(kernel)
    for kernel in (
        kernels.Linear(),
        kernels.Polynomial(degree=2),
        kernels.SquaredEuclidean(),
        kernels.Euclidean(),
        kernels.Laplacian(scale=1.0),
    )
}
TABLE_5 = ("Linear", "Polynomial", "SquaredEuclidean")  # beside RBF
# As many trials for each method, in this order; the first is the default without tuning.
RATES = {
    "teacher": [(4e-3, 0.3), (2e-3, 0.3), (4e-3, 0.5), (8e-3, 0.3)],
    "student": [(1e-2, 0.0), (5e-3, 0.0), (1e-2, 0.2), (2e-2, 0.0)],
}
# The first two: a gradient about a tenth of, and as large as, that of the cross entropy.
WEIGHTS = {
    "recipe": (1.0, 0.1, 3.0, 0.3),
    "KD": (0.1, 1.0, 0.3, 3.0),
    "FitNet": (1.0, 10.0, 0.1, 3.0),
    "AT": (0.3, 3.0, 1.0, 10.0),
    "LSP": (10.0, 100.0, 30.0, 1000.0),
    "LSP Linear": (30.0, 300.0, 100.0, 3000.0),
    "LSP Polynomial": (20.0, 200.0, 60.0, 2000.0),
    "LSP SquaredEuclidean": (5.0, 50.0, 15.0, 500.0),
    "LSP Euclidean": (10.0, 100.0, 30.0, 1000.0),
    "LSP Laplacian": (20.0, 200.0, 60.0, 2000.0),
}


def teacher_sizes(width: int) -> dict[str, Any]:
    """Return the paper's teacher, with 64 in place of the width."""
    channels = [width, width, 2 * width, 4 * width, 16 * width]
    return {"channels": channels, "mlp_channels": [8 * width, 4 * width], "k": 20}


def student_sizes(width: int) -> dict[str, dict[str, Any]]:
    """Return the paper's student, with 32 in place of the width, and those of its Table 6."""
    channels, mlp = [width, width, 2 * width, 4 * width], [8 * width]
    wide, deep = [2 * c for c in channels], [*channels, channels[-1]]
    return {
        "": {"channels": channels, "mlp_channels": mlp, "k": 10},
        "more channels": {"channels": wide, "mlp_channels": mlp, "k": 10},
        "more layers": {"channels": deep, "mlp_channels": mlp, "k": 10},
        "more MLPs": {"channels": channels, "mlp_channels": [2 * mlp[0], *mlp], "k": 10},
    }


class KeptGraphs(KNNGraph):
    """The graphs of the first layer, whose points are the same in every epoch."""

    def __init__(self, k: int) -> None:
        super().__init__(k, loop=True)
        self._known: dict[int, tuple[Tensor, Graph]] = {}

    def forward(self, x: Tensor, batch: Tensor | None = None) -> Graph:  # type: ignore[override]
        key = x.data_ptr()  # as long as the points are kept too, no others lie there
        if key not in self._known:
            self._known[key] = x, Graph(super().forward(x, batch), x.size(0))
        return self._known[key][1]


def build(config: dict[str, Any], task: Task) -> DGCNN:
    sizes = {name: config[name] for name in ("channels", "mlp_channels", "k", "dropout")}
    return DGCNN(3, task.num_classes, **sizes).to(task.device)


def tap(config: dict[str, Any]) -> str:
    return f"convs.{len(config['channels']) - 2}"


def execute(run: Run, task: Task, store: Store, teacher: DGCNN | None) -> dict[str, Any]:
    """Train and test one model, unless its result is there already."""
    if (result := store.result(run)) is not None:
        return result
    torch.manual_seed(run.seed)
    config = run.config
    model = build(config, task)
    batches = task.train_batches(run.seed, "train" if run.method == "teacher" else "labelled")
    module: torch.nn.Module = model
    cache: TeacherCache | None = None
    if teacher is not None:
        at = f"convs.{len(teacher.convs) - 1}", tap(config)
        loss = (LOSSES | KERNELS)[run.method](at, config["weight"])
        module = Distiller(teacher, model, [loss], call=under(task.autocast) if task.amp else None)
        module.check(batches[0].pos, batches[0].batch)
        cache = None if task.augment else TeacherCache(module)
    if task.augment is None:
        model.convs[0].knn = KeptGraphs(config["k"])
    optimizer = torch.optim.Adam(module.parameters(), lr=config["lr"])

    def step(epoch: int) -> float:
        module.train()
        fall(optimizer, config["lr"], epoch / config["epochs"], 0.01)
        total = 0.0
        for i in torch.randperm(len(batches)).tolist():
            clouds: Clouds = task.augmented(batches[i])
            given = clouds.pos, clouds.batch
            optimizer.zero_grad()
            with task.autocast():
                if teacher is None:
                    out, losses = module(*given), {}
                else:
                    known = None if cache is None else cache(i, *given)
                    out, losses = module(*given, teacher=known)
            loss = cross_entropy(out.float(), clouds.y) + sum(losses.values())
            loss.backward()
            optimizer.step()
            total += loss.item()
        if epoch + 1 in (*SHOWN, config["epochs"]):
            seen = json.dumps(task.distances(model, tap(config)))
            write_atomic(store.folder / "features" / f"{run.name}-{epoch + 1}.json", seen.encode())
        return total / len(batches)

    def validate() -> float:
        return task.score(model, "val")["acc"]

    if run.method == "recipe":
        result = train_by_recipe(
            run, store, module, batches, task.train_batches(run.seed, "unlabelled"),
            validate=validate, per_epoch=len(batches), criterion=cross_entropy,
            cache=task.augment is None, unpack=task.unpack,
        )  # fmt: skip
    else:
        result = train(
            run, store, module, optimizer, step, validate, config["epochs"], config["patience"]
        )
    result["history"] = [[round(a, 4), round(b, 4)] for a, b in result["history"]]
    model.convs[0].knn = KNNGraph(config["k"], loop=True)  # the figures below include the search
    result |= task.score(model, "test")
    pos, batch, _ = task.batches("test")[0]
    cloud = pos[batch == 0]
    with torch.no_grad():
        result["latency_ms"] = latency(lambda: model.eval()(cloud))
    result["parameters"] = sum(p.numel() for p in model.parameters())
    store.save_weights(run, model.state_dict())
    return store.finish(run, result)


class Experiment:
    """All runs of one call, each method tuned on the first seed and run from every seed."""

    def __init__(self, args: argparse.Namespace, task: Task, store: Store) -> None:
        self.args, self.task, self.store = args, task, store
        names = ("dataset", "points", "epochs", "patience", "batch_size", "shapes_per_class")
        self.common = {name: getattr(args, name) for name in names}
        self.common |= {"shapes": args.shapes} if args.dataset == "synthetic" else {}
        self.common |= {} if args.labelled is None else {"labelled": args.labelled}
        self.common |= {name: True for name in ("amp", "augment") if getattr(args, name)}
        self.teachers: dict[int, tuple[Run, DGCNN]] = {}
        self.chosen: dict[str, Run] = {}  # the last run of each method from the first seed

    def run(self, method: str, seed: int, config: dict[str, Any], variant: str = "") -> Run:
        """Say in full what a run is."""
        if method == "teacher":
            epochs = self.args.teacher_epochs or self.args.epochs
            sizes = teacher_sizes(self.args.teacher_width) | {"epochs": epochs}
        else:
            sizes = student_sizes(self.args.student_width)[variant]
            sizes |= {"variant": variant} if variant else {}
        if "weight" in config:
            sizes["teacher"] = self.teacher(seed)[0].name
        return Run(method, seed, self.common | sizes | config)

    def teacher(self, seed: int) -> tuple[Run, DGCNN]:
        return self.teachers[0 if self.args.one_teacher else seed]

    def go(
        self, method: str, seed: int, config: dict[str, Any], variant: str = ""
    ) -> dict[str, Any]:
        run = self.run(method, seed, config, variant)
        teacher = self.teacher(seed)[1] if "weight" in config else None
        result = execute(run, self.task, self.store, teacher)
        if method == "teacher":
            model = build(run.config, self.task)
            model.load_state_dict(self.store.load_weights(run))
            self.teachers[seed] = run, model
        if seed == 0 and not variant:
            self.chosen[method] = run
        return result

    def configs(self, method: str, student: dict[str, Any] | None) -> list[dict[str, Any]]:
        if student is not None:  # a way to distil it
            return [student | {"weight": weight} for weight in WEIGHTS[method]]
        return [{"lr": lr, "dropout": p} for lr, p in RATES[method]]

    def __call__(self) -> list[dict[str, Any]]:
        budget = self.args.seeds, self.args.trials, self.args.workers
        others = TABLE_5 if self.args.kernels == [] else self.args.kernels or ()
        methods = ["student", *LOSSES, *(f"LSP {kernel}" for kernel in others)]
        teachers = 1 if self.args.one_teacher else budget[0]
        results = tune_and_run(self.configs, self.go, ["teacher"], teachers, *budget[1:])
        results += tune_and_run(self.configs, self.go, methods, *budget)
        for variant in student_sizes(1) if self.args.variants else ():
            if variant:
                results += tune_and_run(
                    self.configs, lambda *run, v=variant: self.go(*run, v),
                    ("student", "LSP"), *budget,
                )  # fmt: skip
        return results

    def features(self) -> dict[str, dict[str, list[list[int]]]]:
        """Return the distances of Figure 4 by method and epoch."""
        run, teacher = self.teachers[0]
        found = {"teacher": {"": self.task.distances(teacher, tap(run.config))}}
        for method in ("student", "LSP"):
            found[method] = {}
            for epoch in sorted({*SHOWN, self.args.epochs}):
                path = self.store.folder / "features" / f"{self.chosen[method].name}-{epoch}.json"
                if path.exists():  # training may have stopped before
                    found[method][str(epoch)] = json.loads(path.read_text())
        return found


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    options = argument_parser(__doc__, ("synthetic", *LOADERS), "runs/modelnet")
    options.set_defaults(epochs=40, patience=40, seeds=3)
    options.add_argument(
        "--labelled", type=at_least_one,
        help="training shapes whose labels students have (default: all; of synthetic ones 160)",
    )  # fmt: skip
    options.add_argument("--points", type=at_least_one, default=128, help="of each cloud, at most")
    options.add_argument("--shapes", type=at_least_one, default=1000, help="of the synthetic set")
    options.add_argument(
        "--shapes-per-class", type=at_least_one, help="at most, to train and validate on"
    )
    options.add_argument("--augment", action="store_true", help="scale and shift at random")
    options.add_argument(
        "--teacher-width", type=at_least_one, default=16, help="of its first layer, paper: 64"
    )
    options.add_argument(
        "--student-width", type=at_least_one, default=8, help="of its first layer, paper: 32"
    )
    options.add_argument("--teacher-epochs", type=at_least_one, help="if not as many as --epochs")
    options.add_argument(
        "--one-teacher", action="store_true", help="that of the first seed for all, as the paper"
    )
    options.add_argument("--batch-size", type=at_least_one, default=16, help="clouds of a step")
    options.add_argument(
        "--kernels", nargs="*", choices=[name.removeprefix("LSP ") for name in KERNELS],
        help="LSP with these kernels too, without a name with those of Table 5",
    )  # fmt: skip
    options.add_argument("--variants", action="store_true", help="larger students (Table 6)")
    args = options.parse_args(argv)
    if args.dataset == "synthetic" and args.labelled is None:
        args.labelled = 160
        args.teacher_epochs = args.teacher_epochs or 12  # of five times as many steps
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    folder = args.out / args.dataset

    def collect() -> dict[str, Any]:
        task = load(args)
        experiment = Experiment(args, task, Store(folder))
        runs = experiment()
        return {
            "title": f"Distilling DGCNN on {task.name}",
            "data": task.about(),
            "runs": runs,
            "scene": task.scene(),
            "features": experiment.features(),
        }

    conclude(args, folder, collect, present)


if __name__ == "__main__":
    main()
