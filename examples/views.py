"""Distil on views of labelled inputs, where there are no others: what each kind of view brings.

    python examples/views.py proteins            # labels of 4 graphs
    python examples/views.py shapes --seeds 5    # labels of 160 point clouds
    python examples/views.py traffic             # labels of 3 days

The student learns from its labelled inputs and from what the teacher says of them; for a view, half
of the steps are on perturbed inputs instead, which teacher and student see alike. All have the
same number of steps, and none has an input that it has no label of. Teachers and data are those of
examples/proteins.py and examples/papers/. Finished runs are kept in --out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.append(str(Path(__file__).parent / "papers"))  # what the experiments share
from experiment import Run, Store, at_least_one, train_by_recipe
from presentation import by_method, conclude, present, spread
from views_task import Case, Views, of_proteins, of_shapes, of_traffic

from pyg_stkd import Distiller
from pyg_stkd.report import interval

NONE = "none"  # the labelled inputs alone
CASES = {"proteins": of_proteins, "shapes": of_shapes, "traffic": of_traffic}
UNITS = {"proteins": ("micro-F1 (%)", 100), "shapes": ("accuracy (%)", 100),
         "traffic": ("MAE (mph)", -1)}  # fmt: skip


def experiment(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run what has no views, and every view; return all results."""
    torch.set_num_threads(1)
    results = []
    for seed in tqdm(range(args.seeds), desc="seeds"):
        case = CASES[args.task](seed, folder, args.small)
        start = {name: value.clone() for name, value in case.student.state_dict().items()}
        for view, change in {NONE: None, **case.views}.items():
            run, store = Run(view, seed, {"task": args.task, **case.config}), Store(folder)
            if (result := store.result(run)) is None:
                torch.manual_seed(seed)
                case.student.load_state_dict(start)
                result = fit_one(case, run, store, change)
            results.append(result)
    order = list(dict.fromkeys(run["method"] for run in results))
    return sorted(results, key=lambda run: (order.index(run["method"]), run["seed"]))


def fit_one(
    case: Case, run: Run, store: Store, change: Callable[[Any], Any] | None
) -> dict[str, Any]:
    """Train and test one student."""
    steps = case.config["steps"]
    every = max(1, steps // 20)
    result = train_by_recipe(
        run, store,
        Distiller(case.teacher, case.student, [case.loss]), case.labelled,
        None if change is None else Views(case.labelled, change),
        validate=lambda: case.score(case.student, "val"), per_epoch=every,
        epochs=max(1, steps // every), criterion=case.criterion, unpack=case.unpack,
    )  # fmt: skip
    return store.finish(run, result | {"test": case.score(case.student, "test")})


def show(results: list[dict[str, Any]], stem: Path) -> str:
    """Write the table beside the raw results, and return it as text."""
    final = by_method(results)
    task = results[0]["config"]["task"]
    unit, scale = UNITS[task]
    tests = {view: [scale * run["test"] for run in runs] for view, runs in final.items()}
    rows = []
    for view, runs in final.items():
        gain = ""
        if view != NONE and len(runs) > 1:
            sign = 1 if scale > 0 else -1  # what falls is a gain
            pairs = zip(tests[view], tests[NONE], strict=True)
            found = interval([sign * (with_view - without) for with_view, without in pairs])
            gain = f"{found:.2f}" + ("" if found.excludes_zero else ", not told from 0")
        rows.append(
            {
                "views": view,
                f"test {unit}": spread(tests[view], scale=1),
                "on validation": spread([scale * run["val"] for run in runs], scale=1),
                "gain over none": gain,
            }
        )
    title = f"Views of labelled inputs to distil on: {task}"
    note = (
        f"{title}. Mean ± standard deviation over {len(final[NONE])} seeds; gains paired by seed, "
        f"with 95 % intervals; {results[0]['config']['steps']} steps each, half of them on views."
    )
    return present(stem, title, note, {"Views": rows}, {}, results[-1]["machine"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", nargs="?", choices=CASES, default="proteins")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="students (default: 3)")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the script")
    parser.add_argument("--out", type=Path, default=Path("runs/views"), help="results are here")
    parser.add_argument("--redraw", type=Path, help="only draw these stored results (JSON) again")
    args = parser.parse_args()
    folder = args.out / args.task
    conclude(args, folder, lambda: experiment(args, folder), show)


if __name__ == "__main__":
    main()
