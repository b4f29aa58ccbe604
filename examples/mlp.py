"""Distil a graph neural network into an MLP that needs no edges (GLNN, ICLR 2022).

    python examples/mlp.py                                                   # synthetic, in minutes
    python examples/mlp.py --dataset cora --root data/planetoid --setting inductive --seeds 10

A GCN teaches an MLP on the features of nodes through its outputs on all nodes, labelled or not. In
the setting "inductive" 200 test and 200 validation nodes and all their edges are unseen by both
until they are classified. Encodings of the graph (positions, as in NOSMOG, ICLR 2023) are computed
once: an unseen node has the mean of its neighbours'. Finished runs are kept in --out: an
interrupted experiment goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from tqdm import tqdm

sys.path.append(str(Path(__file__).parent / "papers"))  # what the experiments share
from experiment import Run, Store, at_least_one
from matplotlib.figure import Figure
from mlp_task import HIDDEN, FeatureMLP, Task, latencies, load, teacher_of
from presentation import by_method, compare, conclude, present, spread

from pyg_stkd import Distiller
from pyg_stkd.distill import LogitLoss, LSPLoss, fit
from pyg_stkd.kernels import RBF

EVERY = 8  # steps between validations
TUNING = (1000, 1001)  # seeds that no result is reported of
# Equally many trials for each method, chosen on validation; the first is the default.
ALONE = [
    {"dropout": p, "decay": decay}
    for p, decay in ((0.5, 5e-3), (0.5, 5e-4), (0.8, 5e-3), (0.8, 5e-4))
]
TAUGHT = [
    {"dropout": p, "decay": decay}
    for p, decay in ((0.5, 1e-4), (0.5, 0.0), (0.5, 5e-4), (0.3, 1e-4))
]
CODED = [config | {"scale": scale} for config in TAUGHT[:2] for scale in (0.1, 0.3)]
TRIALS = {
    "teacher": [
        {"dropout": p, "decay": decay}
        for p, decay in ((0.5, 5e-4), (0.8, 5e-4), (0.5, 5e-3), (0.8, 5e-3))
    ],
    "student": ALONE,
    "encodings": [config | {"scale": scale} for config in ALONE[:2] for scale in (0.1, 0.3)],
    "labelled": TAUGHT,
    "distilled": TAUGHT,
    "distilled + encodings": CODED,
    "distilled + encodings + LSP": [CODED[0] | {"lsp": weight} for weight in (1, 0.1, 10, 100)],
}
NAMES = {
    "teacher": "teacher, GCN",
    "student": "MLP, labels alone",
    "encodings": "MLP, labels alone, encodings",
    "labelled": "MLP, distilled on labelled nodes",
    "distilled": "MLP, distilled on all seen nodes",
    "distilled + encodings": "the same, encodings",
    "distilled + encodings + LSP": "the same, encodings and LSP",
}


def execute(run: Run, task: Task, store: Store, teacher: nn.Module | None) -> dict[str, Any]:
    """Train and test one model."""
    torch.manual_seed(run.seed)
    data, config, method = task.whole, run.config, run.method
    x = data.x.to_sparse_csr()
    code = None
    if "encodings" in method:
        code = config["scale"] * task.encodings(*config["encodings"])
    classes = int(data.y.max()) + 1
    train = data.train_mask.nonzero().view(-1)

    @torch.no_grad()
    def outputs(model: nn.Module) -> Tensor:
        # The teacher sees all edges where it is asked about nodes that were unseen.
        return model(x, data.edge_index) if method == "teacher" else model(x, code)

    def validate(model: nn.Module) -> float:
        return 1 - task.accuracy(outputs(model), task.val)

    # Without losses nobody is asked: the same recipe, on labels alone.
    losses: list[Any] = []
    kwargs: dict[str, Any] = {}
    if method == "teacher":
        model: nn.Module = teacher_of(data, config["dropout"])
        inputs = x, task.edge_index
        rows, y = train, data.y
    else:
        size = code.size(1) if code is not None else 0
        model = FeatureMLP(data.x.size(1), HIDDEN, classes, config["dropout"], size)
        inputs = x, code
    if method in ("student", "encodings"):
        inputs = data.x[train].to_sparse_csr(), None if code is None else code[train]
        rows, y = slice(None), data.y[train]
    elif method != "teacher":
        losses.append(LogitLoss())
        if "LSP" in method:
            layers = "convs.0", "hidden"
            kernel = RBF(sigma="median")
            losses.append(LSPLoss(*layers, kernel, normalize="l2", weight=config["lsp"]))
        nodes = train if method == "labelled" else task.seen.nonzero().view(-1)
        kwargs = {"teacher_args": (x, task.edge_index), "nodes": nodes}
        rows, y = nodes, None
    for _ in fit(
        Distiller(teacher if losses else nn.Identity(), model, losses),
        [(inputs, kwargs, y)],
        criterion=None if losses else lambda out, y: cross_entropy(out[rows], y[rows]),
        alpha=1 if losses else None,
        validate=validate,
        steps=config["steps"],
        every=EVERY,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=config["decay"]),
        unpack=lambda batch: batch,
    ):
        pass
    if method == "teacher":
        store.save_weights(run, model.state_dict())
    model.eval()
    out = outputs(model)
    result = {"setting": config["setting"], "val": task.accuracy(out, task.val)}
    result |= {"accuracy": task.accuracy(out, task.test)}
    result["parameters"] = sum(p.numel() for p in model.parameters())
    return store.finish(run, result)


class Experiment:
    """All runs of one setting, from a store where they are in it."""

    def __init__(self, args: argparse.Namespace, data: Data, setting: str, store: Store) -> None:
        self.args, self.data, self.store = args, data, store
        self.common = {"dataset": args.dataset, "setting": setting, "steps": args.steps}
        self.tuning = TUNING if args.trials > 1 else ()
        self.tasks = {s: Task.of(data, setting, s) for s in (*self.tuning, *range(args.seeds))}
        self.teachers: dict[int, nn.Module] = {}

    def go(self, method: str, seed: int, config: dict[str, Any]) -> dict[str, Any]:
        """Return the result of one run."""
        run = Run(method, seed, self.common | config)
        done = self.store.result(run)
        return done or execute(run, self.tasks[seed], self.store, self.teachers.get(seed))

    def method(self, method: str) -> Iterator[dict[str, Any]]:
        """Tune a method on seeds of their own, then run it from every seed."""
        coded = "encodings" in method
        extra = {"encodings": [self.args.encodings, self.args.size]} if coded else {}
        configs = [config | extra for config in TRIALS[method][: self.args.trials]]
        scores = [0.0] * len(configs)
        for i, config in enumerate(configs):
            for seed in self.tuning:
                run = self.go(method, seed, config)
                scores[i] += run["val"]
                yield run | {"trial": True}
        chosen = configs[scores.index(max(scores))]
        for seed in range(self.args.seeds):
            yield self.go(method, seed, chosen)
        if method == "teacher":
            for seed in self.tasks:
                self.teachers[seed] = teacher_of(self.data, chosen["dropout"]).eval()
                run = Run(method, seed, self.common | chosen)
                self.teachers[seed].load_state_dict(self.store.load_weights(run))


def experiment(args: argparse.Namespace, store: Store) -> list[dict[str, Any]]:
    """Run every method in every setting; return all results."""
    data = load(args.dataset, args.root)
    methods = [m for m in TRIALS if args.encodings != "none" or "encodings" not in m]
    tuning = args.trials * len(TUNING) if args.trials > 1 else 0
    bar = tqdm(total=len(args.setting) * len(methods) * (args.seeds + tuning), desc="runs")
    results = []
    for setting in args.setting:
        runs = Experiment(args, data, setting, store)
        for method in methods:
            for result in runs.method(method):
                results.append(result)
                bar.update()
    bar.close()
    run = Run("latencies", 0, {"dataset": args.dataset, "size": args.size})
    return timed(results, store.result(run) or store.finish(run, latencies(data, args.size)))


def timed(results: list[dict[str, Any]], times: dict[str, Any]) -> list[dict[str, Any]]:
    """Return results with the milliseconds of their kind of model."""

    def of(method: str) -> dict[str, float]:
        kind = "encodings" if "encodings" in method else "MLP"
        one, many = times["teacher" if method == "teacher" else kind]
        return {"latency_ms": one, "latency_1000_ms": many}

    return [run | of(run["method"]) for run in results]


def summarize(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a row for each method: mean, paired gain and share of the gap with 95 % intervals."""
    final = by_method(results)
    values = {m: [100 * run["accuracy"] for run in runs] for m, runs in final.items()}
    milliseconds = {
        m: [statistics.median(r[key] for r in runs) for key in ("latency_ms", "latency_1000_ms")]
        for m, runs in final.items()
    }
    rows = []
    for method, runs in final.items():
        shares = {"gain over alone": "", "gap closed": ""}
        if method not in ("teacher", "student"):
            shares = compare(values["teacher"], values["student"], values[method])
        faster = [a / b for a, b in zip(milliseconds["teacher"], milliseconds[method], strict=True)]
        rows.append(
            {
                "model": NAMES[method],
                "parameters": f"{runs[0]['parameters']:,}",
                "accuracy (%)": spread(values[method], scale=1),
                **shares,
                "ms for 1; 1,000": "; ".join(f"{ms:.2g}" for ms in milliseconds[method]),
                "faster": "" if method == "teacher" else f"{faster[0]:.0f}x; {faster[1]:.0f}x",
                "tuned": ", ".join(
                    f"{k} {v:g}" for k, v in runs[0]["config"].items()
                    if k in ("dropout", "decay", "scale", "lsp")
                ),
            }
        )  # fmt: skip
    return rows


def choice(results: list[dict[str, Any]]) -> str:
    """Return the distilled student that is best on validation, of the trials if there are any."""
    tried = [run for run in results if "trial" in run] or results
    scores: dict[str, dict[str, list[float]]] = {}
    for run in tried:
        if run["method"].startswith("distilled"):
            config = str(sorted(run["config"].items()))
            scores.setdefault(run["method"], {}).setdefault(config, []).append(run["val"])
    best = {m: max(map(statistics.fmean, runs.values())) for m, runs in scores.items()}
    return max(best, key=lambda method: best[method])


def show(results: list[dict[str, Any]], stem: Path) -> str:
    """Write table, plot and report beside the raw results; return the table as text."""
    settings = list(dict.fromkeys(r["setting"] for r in results))
    seeds = len({r["seed"] for r in results if "trial" not in r})
    title = f"From a GCN to an MLP on {results[0]['config']['dataset']}"
    note = (
        f"{title}: test accuracy, mean ± standard deviation over {seeds} seeds, a teacher for "
        "each; gains over the MLP on labels alone and shares of the teacher's gap, paired by "
        "seed, with 95 % intervals. Tuned on other seeds, by equally many trials, on validation. "
        "Milliseconds of one thread's CPU time for 1 and 1,000 nodes, in turn, of untrained models "
        "of these sizes; what encodings add to the hidden layer is looked up in their stead."
    )
    parts = {s: [r for r in results if r["setting"] == s] for s in settings}
    chosen = "; ".join(f"{choice(part)} ({s})" for s, part in parts.items())
    note += f" Of the students of all seen nodes validation chooses {chosen}."
    figure = Figure(figsize=(5 * len(settings), 4), layout="constrained")
    for axes, (setting, part) in zip(
        figure.subplots(1, len(settings), squeeze=False)[0], parts.items(), strict=True
    ):
        for i, runs in enumerate(by_method(part).values()):
            axes.plot([i] * len(runs), [100 * r["accuracy"] for r in runs], "o", ms=4, alpha=0.6)
        axes.set_xticks(range(len(by_method(part))), list(by_method(part)), rotation=30, ha="right")
        axes.set(title=setting, ylabel="test accuracy (%)")
    tables = {setting.capitalize(): summarize(part) for setting, part in parts.items()}
    figures = {"scores": (figure, "Test accuracy of every seed.")}
    return present(stem, title, note, tables, figures, results[-1]["machine"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", choices=("synthetic", "cora", "citeseer"), default="synthetic")
    parser.add_argument("--root", type=Path, help="folder of PyG's Planetoid: Cora/raw/ind.cora.x")
    parser.add_argument(
        "--setting", nargs="+", choices=("transductive", "inductive"),
        default=["transductive", "inductive"], help="whether test nodes are seen (default: both)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=at_least_one, default=3, help="runs of each (default: 3)")
    parser.add_argument("--steps", type=at_least_one, default=200, help="of each (default: 200)")
    parser.add_argument(
        "--trials", type=int, choices=(1, 2, 3, 4), default=1, help="tuning runs (default: 1)"
    )
    parser.add_argument(
        "--encodings", choices=("laplacian", "random-walk", "none"), default="laplacian",
        help="PyG's encodings (default: laplacian)",
    )  # fmt: skip
    parser.add_argument("--size", type=at_least_one, default=128, help="of them (default: 128)")
    parser.add_argument("--out", type=Path, default=Path("runs/mlp"), help="finished runs are here")
    parser.add_argument("--redraw", type=Path, help="only draw these stored results (JSON) again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")  # once each, of torch's own state
    folder = args.out / args.dataset
    conclude(args, folder, lambda: experiment(args, Store(folder)), show)


if __name__ == "__main__":
    main()
