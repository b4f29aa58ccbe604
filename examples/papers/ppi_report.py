"""What the protein example shows of its stored results: a table, a plot and a report."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from presentation import by_method, compare, present, spread, typical_latency

ALONE = ("teacher", "student")


def summarize(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the final table: a row for each method, mean and deviation over the seeds."""
    final = by_method(results)
    f1 = {m: [r["f1"] for r in runs] for m, runs in final.items()}
    percent = {m: [100 * value for value in values] for m, values in f1.items()}
    typical = typical_latency(results)
    rows = []
    for method, runs in final.items():
        columns = {"gain over alone": "", "gap closed": ""}
        if method not in ALONE:
            columns = compare(percent["teacher"], percent["student"], percent[method])
        rows.append(
            {
                "model": method if method in ALONE else f"student + {method}",
                "parameters": f"{runs[0]['parameters']:,}",
                "micro-F1 (%)": spread(f1[method]),
                "AP (%)": spread([r["ap"] for r in runs]),
                "epochs to the best": spread([r["best_epoch"] + 1 for r in runs], 0, 1),
                "latency (ms)": f"{typical[runs[0]['parameters']]:.1f}",
                **columns,
                "settings": ", ".join(
                    f"{k} {runs[0]['config'][k]:g}"
                    for k in (("lr", "weight") if method not in ALONE else ("lr", "dropout"))
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
    if (labelled := results[-1]["config"].get("labelled")) is not None:
        note += (
            f" Students have the labels of the first {labelled} graphs, their teacher those of "
            "all; half of the recipe's steps are on graphs without. All have as many steps."
        )
    scores = draw(results), "Test scores of every seed, and the course of training."
    tables = {"Scores": summarize(results)}
    return present(stem, title, note, tables, {"scores": scores}, results[-1]["machine"])
