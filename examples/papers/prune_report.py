"""Tables and plots of the pruning example, from its stored results alone."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import presentation
from matplotlib.figure import Figure
from presentation import by_method, spread
from traffic_report import HORIZONS

from pyg_stkd.report import interval

Results = dict[str, Any]
REFERENCE = "KDIS without distillation"  # labels alone


def models(results: Results) -> list[dict[str, str]]:
    """Return a row for each model: its size and speed."""
    rows = []
    groups = by_method(results["runs"])
    whole = groups["teacher"][0]["parameters"]
    for method, runs in groups.items():
        run = runs[0]
        row = {
            "model": method,
            "parameters": f"{statistics.fmean(r['parameters'] for r in runs):,.0f}",
            "share": f"{100 * statistics.fmean(r['parameters'] for r in runs) / whole:.1f} %",
            "MFLOPs": f"{statistics.fmean(r['flops'] for r in runs) / 1e6:.2f}",
            "kB": f"{statistics.fmean(r['bytes'] for r in runs) / 1e3:.0f}",
        }
        for size in ("1", "32"):
            costs = [r["cost"][size] for r in runs if "cost" in r]
            if not costs:  # the teacher: beside which all others were measured
                costs = [[r["cost"][size][1]] * 2 for r in results["runs"] if "cost" in r]
            own = statistics.median(a for a, _ in costs)
            faster = statistics.median(b / a for a, b in costs)
            row[f"ms at batch {size}"] = f"{own:.2f}"
            row[f"faster at {size}"] = f"{faster:.1f}x"
        config = run["config"]
        row["epochs"] = str(config["epochs"])
        row["minutes"] = f"{statistics.fmean(r['seconds_all'] for r in runs) / 60:.1f}"
        row["learning rate"] = f"{config['lr']:g}"
        rows.append(row)
    return rows


def errors(results: Results) -> list[dict[str, str]]:
    """Return a row for each model: its MAE at each horizon, and beside its own teacher's."""
    groups = by_method(results["runs"])
    teachers = {run["seed"]: run for run in groups["teacher"]}
    rows = [{"model": "persistence", "validation": ""}]
    rows[0] |= {_head(h): f"{results['persistence'][f'mae/{h}']:.2f}" for h in HORIZONS}
    for method, runs in groups.items():
        row = {"model": method, "validation": spread([-r["val"] for r in runs], scale=1)}
        for h in HORIZONS:
            row[_head(h)] = spread([r[f"mae/{h}"] for r in runs], scale=1)
        above = [r["mae/mean"] / teachers[r["seed"]]["mae/mean"] - 1 for r in runs]
        row["above its teacher"] = "" if method == "teacher" else f"{spread(above, 1)} %"
        row["below no distillation"] = _gain(runs, groups.get(REFERENCE, []))
        rows.append(row)
    return rows


def tuning(results: Results) -> list[dict[str, str]]:
    """Return a row for each method: the validation error of each trial on the first seed."""
    rows: dict[str, dict[str, str]] = {}
    for run in results["runs"]:
        if "trial" in run:
            row = rows.setdefault(run["method"], {"model": run["method"]})
            row[f"learning rate {run['config']['lr']:g}"] = f"{-run['val']:.3f}"
    return list(rows.values())


def draw_stages(results: Results) -> Figure:
    """Draw the validation error against the parameters left after each stage."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    groups = by_method(results["runs"])
    teachers = {run["seed"]: run for run in groups["teacher"]}
    for i, (method, runs) in enumerate(groups.items()):
        color = f"C{i}" if method != "teacher" else "k"
        for j, run in enumerate(runs):
            first = teachers[run["seed"]]
            points = [(first["parameters"], -first["val"])]
            points += [(s["num_parameters"], s["metric"]) for s in run.get("stages", ())[:-1]]
            points += [(run["parameters"], -run["val"])]
            style = "o-" if run.get("stages") else "o:"
            name = method if j == 0 else None
            left.plot(*zip(*points, strict=True), style, ms=3, lw=1, color=color, label=name)
            if method != "teacher":
                right.plot([-v for _, v in run["history"]], lw=1, color=color, label=name)
    unit = results["unit"]
    left.set(xscale="log", yscale="log", xlabel="parameters", ylabel=f"validation MAE ({unit})")
    left.invert_xaxis()
    left.legend(fontsize=7)
    last = sorted(-run["val"] for runs in groups.values() for run in runs)
    top = 1.25 * last[len(last) // 2]  # a run that died is beyond it
    right.set(
        xlabel="epoch of the last fine-tuning", ylabel=f"validation MAE ({unit})",
        ylim=(last[0] * 0.98, top),
    )  # fmt: skip
    return figure


def draw_widths(results: Results) -> Figure:
    """Draw the channels that are left in each layer."""
    groups = {
        method: runs
        for method, runs in by_method(results["runs"]).items()
        if method == "teacher" or _chosen(runs[0]["config"])
    }
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots()
    layers = _layers(groups["teacher"][0]["widths"])
    x = np.arange(len(layers))
    for i, (method, runs) in enumerate(groups.items()):
        widths = np.array([list(_layers(run["widths"]).values()) for run in runs])
        mean, shift = widths.mean(0), 0.8 * (i + 0.5) / len(groups) - 0.4
        low, high = mean - widths.min(0), widths.max(0) - mean
        axes.bar(
            x + shift, mean, 0.8 / len(groups), color=f"C{i - 1}" if i else "0.3",
            yerr=np.stack([low, high]), label=method, error_kw={"lw": 0.8},
        )  # fmt: skip
    axes.set_xticks(x, list(layers))
    axes.set(yscale="log", ylabel="channels (bars: mean, lines: range over seeds)")
    axes.legend(fontsize=8)
    return figure


def present(results: Results, stem: Path) -> str:
    """Write tables, plots and report beside the raw results; return the tables as text."""
    note = (
        f"{results['title']}. Test MAE in original units over observed readings, mean ± standard "
        "deviation over seeds; epochs and learning rates chosen on validation. Times are CPU "
        "times of one thread, in turn with the teacher; minutes are wall time of training."
    )
    tables = {"Models": models(results), f"MAE ({results['unit']})": errors(results)}
    if trials := tuning(results):
        tables["Tuning: validation MAE on the first seed"] = trials
    figures = {
        "stages": (draw_stages(results), "Validation error, stage by stage and in the last one."),
        "widths": (draw_widths(results), "Channels before and after."),
    }
    machine = results["runs"][-1]["machine"]
    return presentation.present(stem, results["title"], note, tables, figures, machine)


def _chosen(config: dict[str, Any]) -> bool:
    """Tell whether the channels were chosen by this method itself."""
    return config["granularity"] == "channel" and "widths_of" not in config


def _gain(runs: list[dict[str, Any]], reference: list[dict[str, Any]]) -> str:
    """Return the paired difference to what has no teacher, with its 95 % interval."""
    known = {run["seed"]: run["mae/mean"] for run in reference}
    pairs = [known[run["seed"]] - run["mae/mean"] for run in runs if run["seed"] in known]
    if len(pairs) < 2 or runs[0]["method"] in ("teacher", REFERENCE):
        return ""
    found = interval(pairs)
    return f"{found:.2f}" + ("" if found.excludes_zero else ", not told from 0")


def _head(horizon: str) -> str:
    return "mean of 5 to 60" if horizon == "mean" else f"{horizon} min"


def _layers(widths: list[list[int]]) -> dict[str, int]:
    """Name the widths of an STGCN: three in each block, two in the head."""
    *blocks, head = widths
    named = {
        f"block {i} {part}": width
        for i, block in enumerate(blocks, 1)
        for part, width in zip(("time", "graph", "out"), block, strict=True)
    }
    return named | {"head time": head[0], "head linear": head[1]}
