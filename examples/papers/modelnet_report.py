"""Tables and plots of the point cloud example, from its stored results alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import presentation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from modelnet_page import page
from presentation import compare, spread, typical_latency

from pyg_stkd.report import write_atomic

Results = dict[str, Any]
Runs = list[dict[str, Any]]
BASE = ("teacher", "student")


def final(results: Results) -> dict[tuple[str, str], Runs]:
    """Return the runs of each method and variant of the student, without those of tuning."""
    runs: dict[tuple[str, str], Runs] = {}
    for run in results["runs"]:
        if "trial" not in run:
            runs.setdefault((run["method"], run["config"].get("variant", "")), []).append(run)
    return runs


def label(method: str, variant: str = "") -> str:
    if method == "teacher":
        return method
    student = f"student, {variant}" if variant else "student"
    return student if method == "student" else f"{student} + {method}"


def row(method: str, variant: str, runs: Runs, latency: dict[int, float]) -> dict[str, str]:
    config = runs[0]["config"]
    tuned = ("weight",) if "weight" in config else ("lr", "dropout")
    return {
        "model": label(method, variant),
        "parameters": f"{runs[0]['parameters']:,}",
        "accuracy (%)": spread([r["acc"] for r in runs]),
        "mean class accuracy (%)": spread([r["macc"] for r in runs]),
        "accuracy on validation (%)": spread([r["val"] for r in runs], 1),
        "latency of a cloud (ms)": f"{latency[runs[0]['parameters']]:.1f}",
        "epochs to the best": spread([r["best_epoch"] + 1 for r in runs], 0, scale=1),
        "tuned": ", ".join(f"{key} {config[key]:g}" for key in tuned),
    }


def compared(runs: dict[tuple[str, str], Runs], method: str) -> dict[str, str]:
    """Return what a method gains over the student alone, and the share of the teacher's lead.

    Methods may have been run from the first seeds only: these are compared.
    """
    seeds = len(runs[method, ""])
    return compare(*([100 * r["acc"] for r in runs[m, ""]][:seeds] for m in (*BASE, method)))


def tables(results: Results) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each table, by title."""
    runs, latency = final(results), typical_latency(results["runs"])
    rows = {key: row(*key, group, latency) for key, group in runs.items()}
    for method, variant in rows:
        known = compared(runs, method)
        rows[method, variant] |= dict.fromkeys(known, "") if method in BASE or variant else known
    kernels = [key for key in rows if key[0].startswith("LSP ")]
    variants = [key for key in rows if key[1]]
    found = {"Methods": [rows[key] for key in rows if key not in kernels + variants]}
    if kernels:
        shown = [("student", ""), ("LSP", ""), *kernels]
        found["Kernels of LSP (the default is RBF(sigma='median'))"] = [rows[k] for k in shown]
    if variants:
        shown = [("teacher", ""), ("student", ""), ("LSP", ""), *variants]
        found["Larger students"] = [
            {key: rows[k][key] for key in rows[k] if key not in compared(runs, "student")}
            for k in shown
        ]
    return found


def draw_scores(results: Results) -> Figure:
    """Draw the test accuracy of every seed, and the course of training."""
    groups = {key: runs for key, runs in final(results).items() if not key[1]}
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, ((method, _), runs) in enumerate(groups.items()):
        acc = [100 * run["acc"] for run in runs]
        left.bar(i, statistics.fmean(acc), color=f"C{i}", alpha=0.35)
        left.plot([i] * len(acc), acc, "o", color=f"C{i}", ms=5)
        if method.startswith("LSP "):
            continue
        for j, run in enumerate(runs):
            curve = [100 * score for _, score in run["history"]]
            x = np.arange(1, len(curve) + 1)
            right.plot(x, curve, color=f"C{i}", lw=1, alpha=0.8, label=None if j else label(method))
    values = [100 * run["acc"] for runs in groups.values() for run in runs]
    margin = max(1.0, 0.5 * (max(values) - min(values)))
    left.set_ylim(max(0, min(values) - margin), min(100, max(values) + margin))
    names = [method.replace("LSP ", "LSP\n") for method, _ in groups]
    left.set_xticks(range(len(groups)), names, rotation=30 if len(groups) > 6 else 0, fontsize=8)
    left.set_ylabel("test accuracy (%)")
    left.set_title("bars: mean, dots: seeds (the axis does not start at 0)", fontsize=9)
    right.set(xlabel="epoch", ylabel="validation accuracy (%)")
    right.legend(fontsize=8)
    return figure


def agreement(distance: Sequence[int], teacher: Sequence[int]) -> float:
    """Return the correlation of two lists of distances."""
    if len(set(distance)) < 2 or len(set(teacher)) < 2:
        return 0.0
    return float(np.corrcoef(distance, teacher)[0, 1])


def draw_features(results: Results) -> Figure:
    """Draw Figure 4: the distance of each point from the red one, in the space of features."""
    scene, features = results["scene"], results["features"]
    epochs = [epoch for epoch in features["student"] if epoch in features["LSP"]]
    teacher = features["teacher"][""]
    shape = (2 * len(scene), len(epochs) + 1)
    figure = Figure(figsize=(1.7 * shape[1], 1.75 * shape[0]), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False)
    for i, cloud in enumerate(scene):
        for j, method in enumerate(("student", "LSP")):
            rows = grid[2 * i + j]
            for axes, epoch in zip(rows, epochs, strict=False):
                distance = features[method][epoch][i]
                _scatter(axes, cloud, distance)
                r = agreement(distance, teacher[i])
                axes.set_title(f"epoch {epoch}, r = {r:.2f}", fontsize=8)
            rows[0].set_ylabel("student alone" if j == 0 else "student + LSP", fontsize=8)
            _scatter(rows[-1], cloud, teacher[i])
            rows[-1].set_title("teacher", fontsize=8)
    return figure


def _scatter(axes: Axes, cloud: dict[str, Any], distance: Sequence[int]) -> None:
    x, y, z = np.array(cloud["pos"]).T / 1000
    across, depth = 0.82 * x + 0.57 * y, 0.57 * x - 0.82 * y  # turned by 35 degrees
    up = 0.94 * z + 0.34 * depth  # and seen from 20 degrees above
    order = np.argsort(-(0.94 * depth - 0.34 * z))  # the nearest points last
    axes.scatter(
        across[order], up[order], c=np.array(distance)[order], s=3, cmap="viridis", vmin=0, vmax=100
    )
    at = cloud["anchor"]
    axes.plot(across[at], up[at], "o", color="red", ms=5)
    axes.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))


def describe(results: Results) -> str:
    """Say in words what was measured."""
    data, runs = results["data"], final(results)
    teacher, student = runs["teacher", ""][0]["config"], runs["student", ""][0]["config"]
    trials = sum("trial" in run and run["method"] == "student" for run in results["runs"])
    trials //= 1 + len({variant for _, variant in runs if variant})
    limit = student["shapes_per_class"]
    models = "; ".join(
        f"{name} widths {c['channels']}, MLP {c['mlp_channels']}, k = {c['k']}, "
        f"at most {c['epochs']} epochs"
        for name, c in (("teacher", teacher), ("student", student))
    )
    subset = f" (at most {limit} shapes of a class)" if limit else ""
    teachers = len(runs["teacher", ""])
    shared = " from one teacher" if teachers < len(runs["student", ""]) else ""
    augmented = "with" if "augment" in student else "no"
    return (
        f"{results['title']}: {data['classes']} classes, clouds of {student['points']} points, "
        f"{data['train']} shapes to train on, {data['val']} held out of the training split for "
        f"validation{subset}, {data['test']} test shapes, {augmented} augmentation. Models: "
        f"{models}, batches of {student['batch_size']}. Test scores, mean ± standard deviation "
        f"over {len(runs['student', ''])} seeds{shared}; {trials or 'no'} tuning trials for each "
        "method, chosen on validation."
    )


def present(results: Results, stem: Path) -> str:
    """Write tables, plots, page and report beside the raw results; return the tables as text."""
    figures = {
        "scores": (draw_scores(results), "Test accuracy, and the course of training."),
        "features": (
            draw_features(results),
            "Distance of each point from the red one in the space of features: student alone "
            "(upper rows), student with LSP (lower rows), teacher (right); blue near, yellow far, "
            "r the correlation with the teacher's.",
        ),
    }
    write_atomic(stem.with_name(f"{stem.stem}-features.html"), page(results).encode())
    note = f"{describe(results)} To turn the clouds: {stem.stem}-features.html, beside this file."
    machine = results["runs"][-1]["machine"]
    return presentation.present(
        stem, results["title"], note, tables(results), figures, machine, dpi=60
    )
