"""A figure for each loss: what it reads of teacher and student, on one small graph.

Numbers are the library's own, on ten nodes in two groups; the student is the teacher's features,
projected to fewer channels, with noise. Drawn when the documentation is built.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import networkx as nx
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pyg_stkd.files import write_atomic
from pyg_stkd.functional import local_structure, similarity
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF

INK, TEACHER, STUDENT = "#555555", "#3867b7", "#d97706"
SIDES = (("teacher", TEACHER), ("student", STUDENT))


@dataclass(frozen=True)
class Scene:
    """Features of both models on a graph, logits, and forecasts of one sensor."""

    graph: nx.Graph
    place: dict[int, Any]
    features: tuple[Tensor, Tensor]  # [10, 6] and [10, 3]
    logits: tuple[Tensor, Tensor]  # [10, 3]
    label: Tensor  # [12]
    forecast: tuple[Tensor, Tensor]  # [12]
    sequence: tuple[Tensor, Tensor]  # [T=12, 10, F]


def scene() -> Scene:
    """Return the scene that all figures show."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    graph = nx.barbell_graph(5, 0)
    group = (torch.arange(10) >= 5).float().mul(2).sub(1)[:, None]
    teacher = 1.2 * group * noise(1, 6) + 0.5 * noise(10, 6)
    student = teacher @ noise(6, 3) / 2.5 + 0.5 * noise(10, 3)
    logits = torch.stack([2.2 * group[:, 0], -1.5 * group[:, 0], 0.4 * noise(10)], dim=1)
    step = torch.arange(12) / 11
    wave = 60 - 12 * torch.sin(3 * step)
    label, told, said = wave + 1.5 * noise(12), wave + noise(12) / 2, wave + 2 - 6 * step
    moves = torch.sin(4 * step[:, None, None] + noise(1, 10, 1)) * (1 + group)
    sequences = moves * noise(1, 1, 6), moves * noise(1, 1, 3) + noise(12, 10, 3) / 3
    place = nx.spring_layout(graph, seed=1)
    return Scene(graph, place, (teacher, student), (logits, 0.5 * logits + 0.4 * noise(10, 3)),
                 label, (told, said), sequences)  # fmt: skip


def alike(z: Tensor) -> Tensor:
    """Return the similarity of each row with each."""
    n = len(z)
    everybody = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T.flip(0)  # sorted by target
    return similarity(z, Graph(everybody, n), RBF("median")).view(n, n)


def mapped(s: Scene) -> Tensor:
    """Return the student's features after the linear map that fits the teacher's best."""
    learnt = torch.linalg.lstsq(s.features[1], s.features[0]).solution
    return (s.features[1] @ learnt).round(decimals=3)  # the last bits differ from run to run


def both(figure: Figure, draw: Callable[[Axes, int], None], **options: Any) -> None:
    """Draw the teacher's half and the student's, side by side."""
    axes = figure.subplots(1, 2, **options)
    for side, (axis, (name, colour)) in enumerate(zip(axes, SIDES, strict=True)):
        draw(axis, side)
        axis.set_title(name, color=colour, fontsize=10)


def bars(axis: Axes, values: Tensor, colour: str, words: str) -> None:
    """Draw a vector."""
    axis.bar(range(len(values)), values.tolist(), color=colour)
    axis.axhline(0, color=INK, lw=0.6)
    axis.set_xticks([])
    axis.set_xlabel(words)


def matrix(axis: Axes, values: Tensor, words: str) -> None:
    """Draw a matrix of similarities."""
    axis.imshow(values.numpy(), cmap="Blues")
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(words)


def nodes(axis: Axes, s: Scene, size: Tensor | None, colour: str, edges: Tensor | None) -> None:
    """Draw the graph, nodes or edges by weight."""
    sizes = 90.0 if size is None else (30 + 400 * size / size.max()).tolist()
    nx.draw_networkx_nodes(s.graph, s.place, node_size=sizes, node_color=colour, ax=axis)
    width = 0.8 if edges is None else (0.3 + 9 * edges).tolist()
    nx.draw_networkx_edges(s.graph, s.place, width=width, edge_color=INK, ax=axis)
    axis.set_axis_off()


def local(figure: Figure, s: Scene) -> None:
    """Draw how alike node 4 finds its neighbours, as edges and as distributions."""
    around = sorted(s.graph[4])
    star = Graph(torch.tensor([around, [4] * len(around)]), 10)
    axes = figure.subplots(1, 4, width_ratios=(1.2, 1, 1.2, 1))
    for side, (name, colour) in enumerate(SIDES):
        share = local_structure(s.features[side], star, RBF("median")).exp()
        weights = dict(zip(star.col.tolist(), share.tolist(), strict=True))
        picture, chart = axes[2 * side : 2 * side + 2]
        drawn = [weights[({a, b} - {4}).pop()] if 4 in (a, b) else 0.0 for a, b in s.graph.edges]
        nodes(picture, s, None, colour, torch.tensor(drawn))
        picture.set_title(name, color=colour, fontsize=10)
        bars(chart, torch.tensor([weights[j] for j in around]), colour, "share of each neighbour")
        chart.set_ylim(0, 0.5)


def all_pairs(figure: Figure, s: Scene) -> None:
    """Draw how alike all nodes of a graph are."""
    both(figure, lambda axis, side: matrix(
        axis, alike(s.features[side]), "node with node"))  # fmt: skip


def contrast(figure: Figure, s: Scene) -> None:
    """Draw which of the teacher's nodes each node of the student is nearest to."""
    axis = figure.subplots()
    teacher, student = (torch.nn.functional.normalize(z, dim=1) for z in (s.features[0], mapped(s)))
    matrix(axis, torch.softmax(student @ teacher.T / 0.3, dim=1), "nodes of the teacher")
    axis.set_ylabel("nodes of the student")
    for i in range(10):
        box = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, color=STUDENT, lw=1.5)
        axis.add_patch(box)


def hint(figure: Figure, s: Scene) -> None:
    """Draw features of one node, the student's as a linear map makes them."""
    shown = s.features[0][3], mapped(s)[3]
    words = ("features of a node", "after a learnt linear map")
    both(figure, lambda axis, side: bars(axis, shown[side], SIDES[side][1], words[side]),
         sharey=True)  # fmt: skip


def attention(figure: Figure, s: Scene) -> None:
    """Draw nodes by the sum of their squared features."""
    both(figure, lambda axis, side: nodes(
        axis, s, s.features[side].square().sum(1), SIDES[side][1], None))  # fmt: skip


def soft_targets(figure: Figure, s: Scene) -> None:
    """Draw probabilities of classes, softened."""
    both(figure, lambda axis, side: bars(
        axis, torch.softmax(s.logits[side][1] / 2, 0), SIDES[side][1], "classes, T = 2"),
        sharey=True)  # fmt: skip


def logits(figure: Figure, s: Scene) -> None:
    """Draw logits without their mean."""
    both(figure, lambda axis, side: bars(
        axis, s.logits[side][1] - s.logits[side][1].mean(), SIDES[side][1], "logits, centred"),
        sharey=True)  # fmt: skip


def outputs(figure: Figure, s: Scene, *, label: bool = False) -> None:
    """Draw forecasts of one sensor, and the area that counts."""
    axis, (told, said) = figure.subplots(), (x.tolist() for x in s.forecast)
    steps = range(12)
    axis.fill_between(steps, told, said, color=STUDENT, alpha=0.2, lw=0)
    for values, (name, colour) in zip((told, said), SIDES, strict=True):
        axis.plot(steps, values, color=colour, label=name)
    if label:
        axis.plot(steps, s.label.tolist(), "o", color=INK, ms=3, label="label")
    axis.set(xlabel="step ahead", ylabel="speed")
    axis.legend(frameon=False)


def response(figure: Figure, s: Scene) -> None:
    """Draw forecasts beside the labels."""
    outputs(figure, s, label=True)


def spatial(figure: Figure, s: Scene) -> None:
    """Draw how alike sensors that a road joins are, at one step."""
    road = torch.from_numpy(nx.to_numpy_array(s.graph, range(10))) > 0
    shown = [alike(z[5]).where(road, torch.nan) for z in s.sequence]
    both(figure, lambda axis, side: matrix(axis, shown[side], "neighbours, one step"))


def temporal(figure: Figure, s: Scene) -> None:
    """Draw how alike steps are, at one sensor."""
    both(figure, lambda axis, side: matrix(
        axis, alike(s.sequence[side][:, 7]), "steps, one sensor"))  # fmt: skip


def spatio_temporal(figure: Figure, s: Scene) -> None:
    """Draw both correlations of both sides."""
    for part, draw in zip(figure.subfigures(1, 2), (spatial, temporal), strict=True):
        draw(part, s)


FIGURES: dict[str, Callable[[Figure, Scene], None]] = {
    "AttentionTransferLoss": attention,
    "ContrastiveLoss": contrast,
    "GSPLoss": all_pairs,
    "HintLoss": hint,
    "LSPLoss": local,
    "LogitLoss": logits,
    "OutputLoss": outputs,
    "ResponseLoss": response,
    "STCDLoss": spatio_temporal,
    "SoftTargetLoss": soft_targets,
    "SpatialCorrelationLoss": spatial,
    "TemporalCorrelationLoss": temporal,
}


def write_figures(folder: Path) -> None:
    """Write a picture for each loss, the same bytes each time."""
    folder.mkdir(exist_ok=True)
    shown = scene()
    wide = {"LSPLoss", "STCDLoss"}
    with mpl.rc_context({"svg.hashsalt": "pyg_stkd", "font.size": 8}):
        for name, draw in FIGURES.items():
            figure = Figure(figsize=(6.4 if name in wide else 4.0, 2.0), layout="constrained")
            draw(figure, shown)
            page = io.BytesIO()
            figure.savefig(page, format="svg", metadata={"Date": None})
            write_atomic(folder / f"{name}.svg", page.getvalue())


if __name__ == "__main__":
    write_figures(Path(__file__).parent / "_figures")
