"""Tables and plots of the traffic example, from its stored results alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import presentation
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from presentation import by_method, compare, spread, typical_latency

Results = dict[str, Any]
MEASURES = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE (%)"}
HORIZONS = ("15", "30", "45", "60", "mean")


def label(method: str) -> str:
    return method if method in ("teacher", "student") else f"student + {method}"


def models(results: Results) -> list[dict[str, str]]:
    """Return a row for each model: its size, speed and what was tuned."""
    rows = []
    # Errors: what falls is a gain.
    error = {m: [-r["mae/mean"] for r in runs] for m, runs in by_method(results["runs"]).items()}
    latency = typical_latency(results["runs"])
    for method, runs in by_method(results["runs"]).items():
        config = runs[0]["config"]
        tuned = ("weight",) if "weight" in config else ("lr", "dropout")
        rows.append(
            {
                "model": label(method),
                "parameters": f"{runs[0]['parameters']:,}",
                "latency of a window (ms)": f"{latency[runs[0]['parameters']]:.1f}",
                "epochs to the best": spread([r["best_epoch"] + 1 for r in runs], 0, scale=1),
                "MAE on validation": spread([-r["val"] for r in runs], scale=1),
                **_columns(error, method),
                "tuned": ", ".join(f"{key} {config[key]:g}" for key in tuned),
            }
        )
    return rows


def _columns(error: dict[str, list[float]], method: str) -> dict[str, str]:
    alone = "teacher", "student"
    known = compare(error["teacher"], error["student"], error[method])
    known = dict.fromkeys(known, "") if method in alone else known
    return {"MAE below alone": known["gain over alone"], "gap closed": known["gap closed"]}


def errors(results: Results, measure: str) -> list[dict[str, str]]:
    """Return a row for each baseline and model: an error at each horizon."""
    groups = {name: [scores] for name, scores in results["baselines"].items()}
    groups |= {label(method): runs for method, runs in by_method(results["runs"]).items()}
    return [
        {"model": name}
        | {
            (f"{h} min" if h != "mean" else "mean of 5 to 60"): spread(
                [run[f"{measure}/{h}"] for run in runs], scale=1
            )
            for h in HORIZONS
        }
        for name, runs in groups.items()
    ]


def draw_errors(results: Results) -> Figure:
    """Draw the MAE of every seed, and the course of training."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, scores) in enumerate(results["baselines"].items()):
        values = [scores[f"mae/{h}"] for h in HORIZONS[:-1]]
        left.plot(values, color="0.4", ls=("--", ":")[i % 2], label=name)
    runs = by_method(results["runs"])
    for i, (method, group) in enumerate(runs.items()):
        points = np.array([[run[f"mae/{h}"] for h in HORIZONS[:-1]] for run in group])
        shift = 0.06 * (i - (len(runs) - 1) / 2)
        x = np.arange(points.shape[1]) + shift
        left.plot(x, points.mean(0), "_", ms=11, mew=2, color=f"C{i}", label=label(method))
        left.plot(np.tile(x, len(group)), points.flatten(), ".", ms=4, color=f"C{i}")
        for j, run in enumerate(group):
            curve = [-score for _, score in run["history"]]
            name = None if j else label(method)
            right.plot(curve, ".-", ms=3, lw=1, color=f"C{i}", alpha=0.8, label=name)
    left.set_xticks(range(4), [f"{h} min" for h in HORIZONS[:-1]])
    left.set_ylabel(f"test MAE ({results['scene']['unit']})")
    left.set_title("bars: mean, dots: seeds (the axis does not start at 0)", fontsize=9)
    left.legend(fontsize=7)
    right.set(xlabel="epoch", ylabel=f"validation MAE ({results['scene']['unit']})")
    right.legend(fontsize=7)
    return figure


def draw_scene(results: Results) -> Figure:
    """Draw forecasts an hour ahead, and the truth, around an incident."""
    scene, runs = results["scene"], by_method(results["runs"])
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots()
    truth = [np.nan if v is None else v for v in scene["truth"]]
    axes.plot(scene["minutes"], truth, color="k", lw=2, label="truth")
    for i, (name, scores) in enumerate(results["baselines"].items()):
        style = ("--", ":")[i % 2]
        axes.plot(scene["minutes"], scores["forecast"], style, color="0.5", lw=1.2, label=name)
    usual = results["baselines"]["historical average"]["forecast"]
    axes.fill_between(scene["minutes"], truth, usual, color="C3", alpha=0.1, label="unusual")
    for method in ("teacher", "student", "L_STCD"):
        if method in runs:
            axes.plot(scene["minutes"], runs[method][0]["forecast"], lw=1.5, label=label(method))
    axes.set(xlabel="minutes", ylabel=scene["channel"], title=f"Sensor {scene['sensor']}")
    axes.legend(fontsize=8)
    return figure


def draw_map(results: Results) -> Figure:
    """Draw the test MAE of each sensor on the road graph."""
    scene, runs = results["scene"], by_method(results["runs"])
    shown = [method for method in ("teacher", "student", "L_STCD") if method in runs]
    pos = np.array(scene["pos"])
    maps = [np.mean([run["node_mae"] for run in runs[method]], axis=0) for method in shown]
    top = float(np.quantile(np.concatenate(maps), 0.98))
    figure = Figure(figsize=(4.2 * len(shown), 4), layout="constrained")
    row: Sequence[Axes] = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, method, values in zip(row, shown, maps, strict=True):
        if scene["edges"]:
            axes.add_collection(
                LineCollection(pos[np.array(scene["edges"])], colors="0.85", lw=0.4)
            )
        dots = axes.scatter(*pos.T, c=values, s=16, cmap="inferno_r", vmin=0, vmax=top, zorder=2)
        axes.set(title=label(method), xticks=[], yticks=[])
    figure.colorbar(dots, ax=list(row), label=f"test MAE ({scene['unit']})")
    return figure


def present(results: Results, stem: Path) -> str:
    """Write tables, plots and report beside the raw results; return the tables as text."""
    runs = results["runs"]
    seeds = len({run["seed"] for run in runs})
    trials = sum("trial" in run and run["method"] == "teacher" for run in runs)
    budget = ", ".join(
        f"{key.replace('_', ' ')} {runs[0]['config'][key]}"
        for key in ("epochs", "patience", "batch_size", "stride")
    )
    note = (
        f"{results['title']}. Test errors in original units over observed readings, mean ± "
        f"standard deviation over {seeds} seeds; {trials or 'no'} tuning trials for each method, "
        f"chosen on validation; {budget}."
    )
    tables = {"Models": models(results)}
    unit = results["scene"]["unit"]
    for measure, name in MEASURES.items():
        title = name if measure == "mape" else f"{name} ({unit})"
        tables[title] = errors(results, measure)
    figures = {
        "errors": (draw_errors(results), "Test MAE at each horizon, and the course of training."),
        "scene": (draw_scene(results), "The worst incident of the test part, an hour ahead."),
        "map": (draw_map(results), "Test MAE of each sensor on the road graph."),
    }
    machine = runs[-1]["machine"]
    return presentation.present(stem, results["title"], note, tables, figures, machine)
