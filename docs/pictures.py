"""The two pictures of the README: the idea, and the gain, from stored results.

python docs/pictures.py
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

sys.path.insert(0, str(Path(__file__).parents[1]))
from pyg_stkd.report import Gap, gap

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
TEACHER, STUDENT, INK = "#3867b7", "#d97706", "#555555"
# What the README tells: words, file, setting, method, key of the score, and the student alone.
GAINS = (
    (
        "Proteins: GAT of 1/18, with graphs without labels",
        "lsp_table2_few",
        None,
        "logits, unlabelled",
        "f1",
    ),
    (
        "the same of 1/17, from the pruned teacher",
        "lsp_table2_few",
        None,
        "logits, unlabelled, pruned",
        "f1",
    ),
    (
        "Shapes: DGCNN of 1/18, 160 of 800 labelled",
        "modelnet_synthetic",
        None,
        "recipe",
        "acc",
    ),
    ("Traffic: STGCN of 1/18, labels of 3 days", "traffic_synthetic", None, "recipe", "mae/mean"),
    ("Cora: GCN to MLP", "mlp_cora", "transductive", "distilled + encodings", "accuracy"),
    (
        "the same, nodes never seen",
        "mlp_cora",
        "inductive",
        "distilled + encodings + LSP",
        "accuracy",
    ),
    ("CiteSeer: GCN to MLP", "mlp_citeseer", "transductive", "distilled", "accuracy"),
    ("the same, nodes never seen", "mlp_citeseer", "inductive", "distilled", "accuracy"),
)


def scores(name: str, setting: str | None, method: str, key: str) -> list[float]:
    """Return the test scores of a method by seed, those of tuning left out."""
    methods = ("student", "alone") if method == "student" else (method,)
    known: Any = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    runs = known if isinstance(known, list) else known.get("teachers", []) + known["runs"]
    chosen = [
        run
        for run in runs
        if "trial" not in run and run["method"] in methods and run.get("setting") == setting
    ]
    return [run[key] for run in sorted(chosen, key=lambda run: run["seed"])]


def gains() -> Iterator[tuple[str, Gap, int]]:
    """Yield the words of each row, what it gained, and of how many seeds."""
    for words, name, setting, method, key in GAINS:
        sign = -1 if key.startswith("mae") else 1  # errors fall
        teacher, alone, distilled = (
            [sign * x for x in scores(name, setting, m, key)]
            for m in ("teacher", "student", method)
        )
        yield words, gap(teacher, alone, distilled), len(alone)


def gain() -> Figure:
    """Draw the share of the gap to the teacher that distilling closes, with intervals."""
    found = list(gains())
    figure = Figure(figsize=(9, 0.9 + 0.42 * len(found)), layout="constrained")
    axes = figure.subplots()
    for at, (_, between, _) in enumerate(found):
        share = between.closed
        axes.plot([100 * share.low, 100 * share.high], [at, at], color=STUDENT, lw=2)
        axes.plot(100 * share.mean, at, "o", color=STUDENT, ms=8)
        axes.annotate(f"{share.mean:.0%}", (100 * share.mean, at), (0, 8), ha="center",
                      textcoords="offset points", color=INK, fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(found)), [f"{words} ({n} seeds)" for words, _, n in found])
    axes.invert_yaxis()
    axes.axvline(0, color=INK, lw=1)
    axes.axvline(100, color=TEACHER, lw=1.5)
    axes.set_xlim(-8, 125)
    axes.set_xticks([0, 25, 50, 75, 100], ["student\nalone", "25 %", "50 %", "75 %", "teacher"])
    axes.set_xlabel("share of the gap that distilling closes, 95 % intervals")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def idea() -> Figure:
    """Draw two models that look at the same neighbours, and what is compared."""
    figure = Figure(figsize=(10, 3.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 3.1)
    axes.set_axis_off()
    likeness = (0.9, 0.3, 0.55, 0.15, 0.75)
    _model(axes, 0.35, (1.9, 1.9, 1.9), TEACHER, "teacher: big, trained, frozen")
    _star(axes, 3.55, 1.75, likeness, TEACHER)
    _star(axes, 6.45, 1.75, likeness, STUDENT)
    _model(axes, 8.35, (0.9, 0.9), STUDENT, "student: small")
    arrow = {"arrowstyle": "<->", "mutation_scale": 16, "color": INK, "lw": 1.6}
    axes.add_patch(FancyArrowPatch((4.5, 1.75), (5.5, 1.75), **arrow))
    axes.text(5, 2.02, "alike?", ha="center", color=INK, fontsize=12)
    axes.text(3.55, 0.42, "which neighbours are alike", ha="center", color=TEACHER, fontsize=10)
    axes.text(6.45, 0.42, "the same neighbours", ha="center", color=STUDENT, fontsize=10)
    for start, end in ((2.1, 2.75), (8.2, 7.3)):
        one_way = arrow | {"arrowstyle": "->"}
        axes.add_patch(FancyArrowPatch((start, 1.75), (end, 1.75), **one_way))
    axes.text(8.92, 0.12, "or pruned from the teacher", ha="center", color=INK, fontsize=10)
    return figure


def _model(axes: Any, left: float, heights: tuple[float, ...], color: str, words: str) -> None:
    """Draw the layers of a model as bars of channels."""
    for i, height in enumerate(heights):
        axes.bar(left + 0.3 + 0.55 * i, height, 0.34, 1.75 - height / 2, color=color, alpha=0.85)
    middle = left + 0.3 + 0.55 * (len(heights) - 1) / 2
    axes.text(middle, 0.42, words, ha="center", color=color, fontsize=10)


def _star(axes: Any, x: float, y: float, likeness: tuple[float, ...], color: str) -> None:
    """Draw a node and its neighbours; the thicker an edge, the more alike the two."""
    for i, share in enumerate(likeness):
        angle = 2 * math.pi * (i / len(likeness) + 0.05)
        at = x + 0.78 * math.cos(angle), y + 0.78 * math.sin(angle)
        axes.plot([x, at[0]], [y, at[1]], color=color, lw=1 + 8 * share, alpha=0.6, zorder=1)
        axes.add_patch(Circle(at, 0.12, facecolor="white", edgecolor=color, lw=1.5, zorder=2))
    axes.add_patch(Circle((x, y), 0.17, color=color, zorder=3))


def main() -> None:
    """Draw both pictures beside this file."""
    idea().savefig(DOCS / "idea.png", dpi=110)
    gain().savefig(DOCS / "gain.png", dpi=110)


if __name__ == "__main__":
    main()
