"""The figures of an interpretation (need matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pyg_stkd.report.interpretation.channels import Channels
from pyg_stkd.report.interpretation.occlusion import Influence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["channels", "edges", "sensors", "steps"]

_TEACHER, _STUDENT, _DROPPED = "#444444", "#1f77b4", "#d62728"


def steps(teacher: Influence, student: Influence) -> Figure:
    """Draw what each time step moves, in both models as shares of their largest."""
    figure, (axis,) = _figure(1, 6.0, 3.0)
    for name, each, colour in (
        ("teacher", teacher, _TEACHER), ("student", student, _STUDENT),
    ):  # fmt: skip
        values = each.steps.cpu().numpy()
        back = np.arange(len(values)) - len(values) + 1
        axis.plot(back, values / max(values.max(), 1e-12), "o-", color=colour, label=name)
    axis.set(xlabel="time step, 0 is the last", ylabel="change of the forecasts", ylim=(0, 1.05))
    axis.legend()
    return figure


def edges(teacher: Influence, student: Influence) -> Figure:
    """Draw the influence of each edge, the teacher's against the student's."""
    figure, (axis,) = _figure(1, 4.5, 4.5)
    axis.plot(_array(teacher.edges), _array(student.edges), ".", color=_STUDENT)
    axis.set(xlabel="teacher: change without the edge", ylabel="student")
    axis.axline((0, 0), slope=1, color="#bbbbbb", linewidth=1)
    return figure


def sensors(teacher: Influence, student: Influence) -> Figure:
    """Draw what each sensor moves at each other one, side by side."""
    figure, axes = _figure(2, 9.0, 4.0)
    for axis, (name, each) in zip(axes, (("teacher", teacher), ("student", student)), strict=True):
        values = _array(each.nodes).copy()
        np.fill_diagonal(values, np.nan)  # its own past, which would outshine all else
        image = axis.imshow(values, cmap="viridis")
        axis.set(title=name, xlabel="sensor", ylabel="is hidden")
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def channels(layers: Sequence[Channels]) -> Figure:
    """Draw the effect of each channel, kept and dropped, from layer to layer."""
    figure, (axis,) = _figure(1, 8.0, 4.0)
    for place, each in enumerate(layers):
        kept, effect = _array(each.kept).astype(bool), _array(each.effect)
        spread = np.linspace(-0.25, 0.25, len(kept))
        for chosen, colour in ((~kept, _DROPPED), (kept, _STUDENT)):
            axis.plot(place + spread[chosen], effect[chosen], ".", color=colour)
    axis.set_xticks(range(len(layers)), [each.layer for each in layers],
                    rotation=30, ha="right")  # fmt: skip
    axis.set(ylabel="change of the forecasts", title="blue: kept, red: dropped")
    return figure


def _figure(count: int, width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _array(values: Tensor) -> Any:
    return values.detach().cpu().numpy()
