"""Distil a graph attention network on protein graphs: the experiment of the LSP paper, Table 2.

    python examples/papers/ppi.py                                            # synthetic, in minutes
    python examples/papers/ppi.py --dataset ppi --root data/PPI --seeds 5 --trials 4
    python examples/papers/ppi.py --dataset pcg --root data/protein_multilabel --seeds 3 \\
        --trials 3 --epochs 500 --patience 50 --methods KD FitNet AT LSP LSP-raw

A teacher (3 layers, 4x256 channels), the student alone (5 layers, 2x68 channels), and the student
with the recipe (outputs compared as numbers; on generated data half of the steps are on 60 graphs
without labels), KD, FitNet, AT and LSP (of unit vectors; LSP-raw: of raw features). Each method is
tuned on validation by the same number of trials, then run from each seed. Finished runs are kept in
--out: an interrupted experiment goes on where it was. The student of the paper, deep and thin, is
the wrong one for the generated data: see examples/proteins.py.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from experiment import (
    Run,
    Store,
    argument_parser,
    latency,
    train,
    train_by_recipe,
    tune_and_run,
    under,
)
from matplotlib.figure import Figure
from presentation import by_method, compare, conclude, present, spread, typical_latency
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import ConstantLR
from torch_geometric.data import Data
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_f1_score,
    binary_precision_recall_curve,
)

from pyg_stkd import Distiller
from pyg_stkd.datasets import Proteins, SyntheticProteins, load_ppi
from pyg_stkd.distill import (
    AttentionTransferLoss,
    HintLoss,
    LSPLoss,
    OutputLoss,
    SoftTargetLoss,
    TeacherCache,
)
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import GAT

LAYERS = ("convs.1", "convs.3")  # what the output layers of teacher and student read
MEDIAN = RBF(sigma="median")
LOSSES: dict[str, Callable[[float], Any]] = {
    "recipe": lambda weight: OutputLoss(weight=weight),
    "KD": lambda weight: SoftTargetLoss(temperature=2.0, multi_label=True, weight=weight),
    "FitNet": lambda weight: HintLoss(*LAYERS, weight=weight),
    "AT": lambda weight: AttentionTransferLoss(*LAYERS, p=1, weight=weight),
    # Unit vectors: a width that follows the features would leave their scale free to drift, as
    # the variant on the features as they are lets it.
    "LSP": lambda weight: LSPLoss(*LAYERS, kernel=MEDIAN, normalize="l2", weight=weight),
    "LSP-raw": lambda weight: LSPLoss(*LAYERS, kernel=MEDIAN, weight=weight),
}
ALONE = ("teacher", "student")
# As many trials for each method, in this order; the first is the default without tuning.
# One graph with few labels overfits, many graphs do not.
RATES = {
    "inductive": [(2e-3, 0.0), (5e-3, 0.0), (2e-3, 0.1), (1e-3, 0.0)],
    "transductive": [(5e-3, 0.3), (5e-3, 0.5), (1e-2, 0.3), (2e-3, 0.3)],
}
WEIGHTS = {
    # The first: the best of those tried on the generated data's validation graphs, one seed.
    "inductive": {
        "recipe": (1.0, 0.1, 0.3, 3.0),
        "KD": (0.1, 1.0, 0.3, 3.0),
        "FitNet": (0.01, 0.1, 0.001, 1.0),
        "AT": (0.01, 1.0, 0.1, 10.0),
        "LSP": (0.1, 1.0, 0.01, 10.0),
        "LSP-raw": (0.1, 1.0, 0.01, 10.0),
    },
    "transductive": {
        "recipe": (1.0, 0.1, 10.0, 3.0),
        "KD": (1.0, 0.1, 10.0, 3.0),
        "FitNet": (0.1, 1.0, 0.01, 10.0),
        "AT": (1.0, 10.0, 100.0, 1000.0),
        "LSP": (1.0, 10.0, 100.0, 1000.0),
        "LSP-raw": (1.0, 10.0, 100.0, 1000.0),
    },
}
UNLABELLED = 60  # graphs of the generated data
THRESHOLDS = torch.linspace(0.05, 0.95, 19)


class Task:
    """The graphs of a data set on a device, each sorted once, and micro-averaged scores on them."""

    def __init__(self, splits: dict[str, list[Data]], device: str, amp: bool, kind: str) -> None:
        self.device, self.amp, self.kind = device, amp, kind
        # The paper's F1 is at 0.5; where labels are rare, at the best threshold on validation.
        self.tune = kind == "transductive"
        self.splits: dict[str, list[Data]] = {}
        graphs: dict[int, Graph] = {}
        for split, items in splits.items():
            self.splits[split] = []
            for data in items:
                key = data.edge_index.data_ptr()
                if key not in graphs:
                    graphs[key] = Graph(data.edge_index, data.num_nodes).to(device)
                rows = data[f"{split}_mask"] if "train_mask" in data else slice(None)
                item = Data(x=data.x.to(device), y=data.y.float().to(device), graph=graphs[key])
                item.rows = rows.to(device) if isinstance(rows, Tensor) else rows
                self.splits[split].append(item)
        self.in_channels = self.splits["train"][0].x.size(1)
        self.out_channels = self.splits["train"][0].y.size(1)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.amp)

    @torch.no_grad()
    def outputs(self, model: GAT, split: str) -> tuple[Tensor, Tensor]:
        model.eval()
        with self.autocast():
            out = [model(d.x, d.graph)[d.rows].float() for d in self.splits[split]]
        return torch.cat(out).sigmoid(), torch.cat([d.y[d.rows] for d in self.splits[split]]).int()

    def validate(self, model: GAT) -> tuple[float, float]:
        """Return the micro-F1 on validation and the threshold that it is at."""
        out, y = (z.flatten() for z in self.outputs(model, "val"))
        if not self.tune:
            return binary_f1_score(out, y).item(), 0.5
        precision, recall, at = binary_precision_recall_curve(out, y, thresholds=THRESHOLDS)
        f1 = (2 * precision * recall / (precision + recall)).nan_to_num()  # 0 / 0: no positives
        best = int(f1[:-1].argmax())
        return f1[best].item(), at[best].item()

    def test(self, model: GAT, threshold: float) -> dict[str, float]:
        out, y = (z.flatten() for z in self.outputs(model, "test"))
        ap = binary_average_precision(out, y).item()
        return {"f1": binary_f1_score(out, y, threshold).item(), "ap": ap}


def load(args: argparse.Namespace) -> Task:
    """Read the data set that the arguments name."""
    if args.dataset == "synthetic":
        splits = {s: list(SyntheticProteins(s, scale=args.scale)) for s in ("train", "val", "test")}
        splits["extra"] = list(SyntheticProteins("extra", args.scale, num_graphs=UNLABELLED))
    elif args.root is None:
        raise SystemExit(f"--dataset {args.dataset} needs --root, the folder of its files")
    elif args.dataset == "ppi":
        splits = {s: list(load_ppi(args.root, s)) for s in ("train", "val", "test")}
    else:
        whole = list(Proteins(args.root, args.dataset))  # one graph, masks tell the splits
        splits = dict.fromkeys(("train", "val", "test"), whole)
    kind = "inductive" if args.dataset in ("synthetic", "ppi") else "transductive"
    return Task(splits, args.device, args.amp, kind)


def build(method: str, task: Task, dropout: float) -> GAT:
    make = GAT.teacher if method == "teacher" else GAT.student
    return make(task.in_channels, task.out_channels, dropout=dropout).to(task.device)


def of_rows(out: Tensor, target: tuple[Tensor, Any]) -> Tensor:
    """Return the task's loss on the rows that count."""
    y, rows = target
    return binary_cross_entropy_with_logits(out[rows].float(), y[rows])


def execute(run: Run, task: Task, store: Store, teacher: GAT | None) -> dict[str, Any]:
    """Train and test one model, unless its result is there already."""
    if (result := store.result(run)) is not None:
        return result
    torch.manual_seed(run.seed)
    model = build(run.method, task, run.config["dropout"])
    module: torch.nn.Module = model
    cache: TeacherCache | None = None
    if teacher is not None:
        losses = [LOSSES[run.method](run.config["weight"])]
        module = Distiller(teacher, model, losses, call=under(task.autocast) if task.amp else None)
        first = task.splits["train"][0]
        module.check(first.x, first.graph)
        cache = TeacherCache(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=run.config["lr"])

    def step(epoch: int) -> float:
        module.train()
        total = 0.0
        for i in torch.randperm(len(task.splits["train"])).tolist():
            data = task.splits["train"][i]
            optimizer.zero_grad()
            with task.autocast():
                if cache is None:
                    out, losses = module(data.x, data.graph), {}
                else:
                    known = cache(i, data.x, data.graph)
                    out, losses = module(data.x, data.graph, teacher=known)
            loss = of_rows(out, (data.y, data.rows)) + sum(losses.values())
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / len(task.splits["train"])

    def validate() -> float:
        return task.validate(model)[0]

    if run.method == "recipe":
        result = train_by_recipe(
            run, store, module, task.splits["train"], task.splits.get("extra", []),
            validate=validate, per_epoch=len(task.splits["train"]), criterion=of_rows,
            unpack=lambda data: ((data.x, data.graph), {}, (data.y, data.rows)),
            scheduler=lambda optimizer: ConstantLR(optimizer, 1.0),  # as the others have it
        )  # fmt: skip
    else:
        result = train(
            run, store, module, optimizer, step, validate,
            run.config["epochs"], run.config["patience"],
        )  # fmt: skip
    result["history"] = [[round(a, 4), round(b, 4)] for a, b in result["history"]]
    result["val"], threshold = task.validate(model)
    result |= task.test(model, threshold)
    data = task.splits["test"][0]
    with torch.no_grad():
        result["latency_ms"] = latency(lambda: model.eval()(data.x, data.graph))
    result["parameters"] = sum(p.numel() for p in model.parameters())
    store.save_weights(run, model.state_dict())
    return store.finish(run, result)


def experiment(args: argparse.Namespace, task: Task, store: Store) -> list[dict[str, Any]]:
    """Tune each method on the first seed, then run it from every seed; return all results."""
    common = {"dataset": args.dataset, "epochs": args.epochs, "patience": args.patience}
    common |= {"scale": args.scale} if args.dataset == "synthetic" else {}
    common |= {"amp": True} if args.amp else {}
    teachers: dict[int, GAT] = {}

    def go(method: str, seed: int, config: dict[str, Any]) -> dict[str, Any]:
        whose = {"teacher": 0} if args.one_teacher and method in LOSSES else {}
        run = Run(method, seed, common | config | whose)
        asked = teachers[whose.get("teacher", seed)] if method in LOSSES else None
        result = execute(run, task, store, asked)
        if method == "teacher":
            teachers[seed] = build(method, task, config["dropout"])
            teachers[seed].load_state_dict(store.load_weights(run))
        return result

    def configs(method: str, student: dict[str, Any] | None) -> list[dict[str, Any]]:
        if student is not None:  # a way to distil it
            return [student | {"weight": weight} for weight in WEIGHTS[task.kind][method]]
        return [{"lr": lr, "dropout": p} for lr, p in RATES[task.kind]]

    first = tune_and_run(configs, go, ALONE[:1], 1 if args.one_teacher else args.seeds, args.trials)
    return first + tune_and_run(configs, go, (*ALONE[1:], *args.methods), args.seeds, args.trials)


def summarize(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the final table: a row for each method, mean and deviation over the seeds."""
    final = by_method(results)
    f1 = {m: [r["f1"] for r in runs] for m, runs in final.items()}
    percent = {m: [100 * value for value in values] for m, values in f1.items()}
    typical = typical_latency(results)
    rows = []
    for method, runs in final.items():
        columns = {"gain over alone": "", "gap closed": ""}
        if method in LOSSES:
            columns = compare(percent["teacher"], percent["student"], percent[method])
        rows.append(
            {
                "model": method if method in ALONE else f"student + {method}",
                "parameters": f"{runs[0]['parameters']:,}",
                "micro-F1 (%)": spread(f1[method]),
                "AP (%)": spread([r["ap"] for r in runs]),
                "latency (ms)": f"{typical[runs[0]['parameters']]:.1f}",
                **columns,
                "tuned": ", ".join(
                    f"{k} {runs[0]['config'][k]:g}"
                    for k in (("weight",) if method in LOSSES else ("lr", "dropout"))
                ),
            }
        )
    return rows


def draw(results: list[dict[str, Any]]) -> Figure:
    """Draw the test scores of every seed, and the validation curves."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    final = by_method(results)
    for i, (method, runs) in enumerate(final.items()):
        f1 = [100 * r["f1"] for r in runs]
        left.bar(i, statistics.fmean(f1), color=f"C{i}", alpha=0.35)
        left.plot([i] * len(f1), f1, "o", color=f"C{i}", ms=5)
        for j, run in enumerate(runs):
            curve = [100 * score for _, score in run["history"]]
            right.plot(curve, color=f"C{i}", lw=1, alpha=0.8, label=method if j == 0 else None)
    values = [100 * r["f1"] for runs in final.values() for r in runs]
    margin = max(1.0, 0.5 * (max(values) - min(values)))
    left.set_ylim(max(0, min(values) - margin), min(100, max(values) + margin))
    left.set_xticks(range(len(final)), list(final))
    left.set_ylabel("test micro-F1 (%)")
    left.set_title("bars: mean, dots: seeds (the axis does not start at 0)", fontsize=9)
    right.set(xlabel="epoch", ylabel="validation micro-F1 (%)")
    right.legend(fontsize=8)
    return figure


def show(results: list[dict[str, Any]], stem: Path) -> str:
    """Write table, plot and report beside the raw results; return the table as text."""
    title = f"Distilling a GAT on {results[0]['config']['dataset']}"
    seeds = len({r["seed"] for r in results})
    one = seeds > 1 and len({r["seed"] for r in results if r["method"] == "teacher"}) == 1
    trials = sum("trial" in r and r["method"] == "teacher" for r in results)
    note = (
        f"{title}: test scores, mean ± standard deviation over {seeds} seeds; "
        f"{trials or 'no'} tuning trials for each method, chosen on validation."
        f"{' One teacher for all.' if one else ''}"
    )
    scores = draw(results), "Test scores of every seed, and the course of training."
    tables = {"Scores": summarize(results)}
    return present(stem, title, note, tables, {"scores": scores}, results[-1]["machine"])


def parse() -> argparse.Namespace:
    options = argument_parser(__doc__, ("synthetic", "ppi", "pcg", "humloc", "eukloc"), "runs/ppi")
    options.add_argument(
        "--methods", nargs="+", choices=LOSSES, default=["recipe", "KD", "FitNet", "AT", "LSP"],
        help="ways to distil the student",
    )  # fmt: skip
    options.set_defaults(seeds=3)
    options.add_argument(
        "--one-teacher", action=argparse.BooleanOptionalAction,
        help="that of the first seed for all (default: of generated data alone)",
    )  # fmt: skip
    options.add_argument("--scale", type=float, default=0.1, help="size of the synthetic graphs")
    args = options.parse_args()
    if args.one_teacher is None:
        args.one_teacher = args.dataset == "synthetic"
    return args


def main() -> None:
    args = parse()
    folder = args.out / args.dataset
    conclude(args, folder, lambda: experiment(args, load(args), Store(folder)), show)


if __name__ == "__main__":
    main()
