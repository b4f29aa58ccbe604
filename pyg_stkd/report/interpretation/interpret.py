"""What teacher and student of a forecaster weigh alike and unlike, measured and shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd import checks
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF, Kernel
from pyg_stkd.modes import eval_mode
from pyg_stkd.prune import Pruner
from pyg_stkd.report.interpretation import drawing
from pyg_stkd.report.interpretation.channels import Channels, channels_taken
from pyg_stkd.report.interpretation.occlusion import Influence, occlude
from pyg_stkd.report.interpretation.structures import (
    Agreement,
    local_agreement,
    temporal_agreement,
)
from pyg_stkd.report.interpretation.watching import outputs_of
from pyg_stkd.report.page import Report
from pyg_stkd.report.statistics import rank_correlation

__all__ = ["Interpretation", "interpret"]

_MOST = 10  # rows of a table of extremes


@dataclass(frozen=True)
class Interpretation:
    r"""What :func:`interpret` found; :meth:`report` shows it.

    Args:
        edge_index (Tensor): The edges that all values of edges belong to, in this order,
            :math:`(2, |\mathcal{E}|)`.
        names (tuple of str): The names of the nodes.
        spatial (Agreement): How far the student keeps the local structures of the teacher's layer.
        temporal (Agreement, optional): The same of its temporal structures, if it has two steps.
        teacher (Influence): What the teacher's forecasts depend on.
        student (Influence): What the student's forecasts depend on.
        channels (tuple of Channels): What a pruner did to the teacher's layers.
    """

    edge_index: Tensor
    names: tuple[str, ...]
    spatial: Agreement
    temporal: Agreement | None
    teacher: Influence
    student: Influence
    channels: tuple[Channels, ...]

    def agreement(self) -> dict[str, float]:
        """Return in one number each how alike teacher and student are, 1 for the same.

        The shares of the structures that are kept, and the rank correlations of the influence of
        time steps, edges, and sensors on each other. NaN where there is nothing to compare.
        """
        apart = ~torch.eye(len(self.names), dtype=torch.bool)
        temporal = math.nan if self.temporal is None else self.temporal.total
        found = {"local structures": self.spatial.total, "temporal structures": temporal}
        for what, teacher, student in (
            ("time steps", self.teacher.steps, self.student.steps),
            ("edges", self.teacher.edges, self.student.edges),
            ("pairs of sensors", self.teacher.nodes[apart], self.student.nodes[apart]),
        ):
            found[what] = rank_correlation(teacher.tolist(), student.tolist())
        return found

    def summary(self) -> list[dict[str, str]]:
        """Return the rows that tell :meth:`agreement` in words."""
        words = {
            "local structures": "share kept",
            "temporal structures": "share kept",
            "time steps": "rank correlation of influence",
            "edges": "rank correlation of influence",
            "pairs of sensors": "rank correlation of influence",
        }
        return [
            {"of": name, "agreement": _number(value), "as": words[name]}
            for name, value in self.agreement().items()
        ]

    def edges(self) -> list[dict[str, str]]:
        """Return the edges that teacher and student weigh most unlike, by their influence.

        Each is a share of its model's largest, since a student's forecasts may move less in all.
        """
        shares = [_of_largest(each.edges) for each in (self.teacher, self.student)]
        order = (shares[0] - shares[1]).abs().argsort(descending=True, stable=True)
        return [
            {
                "edge": self._edge(e),
                "teacher": _number(shares[0][e]),
                "student": _number(shares[1][e]),
                "structure, teacher": _number(self.spatial.teacher[e]),
                "structure, student": _number(self.spatial.student[e]),
            }
            for e in order[:_MOST].tolist()
        ]

    def sensors(self) -> list[dict[str, str]]:
        """Return the nodes whose local structure the student keeps worst and best."""
        kept = self.spatial.nodes
        order = [n for n in kept.argsort(stable=True).tolist() if not math.isnan(kept[n])]
        half = _MOST // 2
        chosen = order if len(order) <= _MOST else order[:half] + order[-half:]
        reach = [each.nodes.sum(1) for each in (self.teacher, self.student)]
        return [
            {
                "sensor": self.names[n],
                "local structure kept": _number(kept[n]),
                "temporal structure kept": "" if self.temporal is None
                else _number(self.temporal.nodes[n]),
                "moves, teacher": _number(reach[0][n]),
                "moves, student": _number(reach[1][n]),
            }
            for n in chosen
        ]  # fmt: skip

    def layers(self) -> list[dict[str, str]]:
        """Return, for each layer that lost channels, what kept and dropped ones did."""
        return [
            {
                "layer": each.layer,
                "channels": f"{len(each.kept)}",
                "kept": f"{int(each.kept.sum())}",
                "effect of a kept one": _mean(each.effect[each.kept]),
                "of a dropped one": _mean(each.effect[~each.kept]),
                "dropped ones that mattered more than the median kept one":
                f"{int((each.effect[~each.kept] > each.effect[each.kept].median()).sum())}",
                "likeness of dropped ones to a kept one": _mean(each.twin[~each.kept]),
            }
            for each in self.channels
        ]  # fmt: skip

    def report(self, title: str = "What teacher and student look at") -> Report:
        """Return all of it as a page in one file (needs matplotlib)."""
        page, both = Report(title), (self.teacher, self.student)
        page.text(
            "Structures: 1 is the teacher's, 0 no better than all neighbours alike. Influence: the "
            "mean change of the forecasts when an edge, a step or a sensor is taken away."
        )
        page.table(self.summary(), "How alike they are")
        page.figure(drawing.steps(*both), "What a time step of the input moves.")
        page.figure(drawing.edges(*both), "What an edge moves, in teacher and student.")
        page.table(self.edges(), "Edges weighed most unlike (influence as a share of the largest; "
                   "structure against the other edges of the same target)")  # fmt: skip
        page.figure(drawing.sensors(*both), "What a sensor (row) moves at another one (column).")
        page.table(self.sensors(), "Sensors whose structure the student keeps worst and best")
        if self.channels:
            page.table(self.layers(), "What the pruner took")
            page.figure(
                drawing.channels(self.channels), "The effect of each channel of the teacher."
            )
        return page

    def _edge(self, e: int) -> str:
        source, target = self.edge_index[:, e].tolist()
        return f"{self.names[source]} to {self.names[target]}"


def interpret(
    teacher: nn.Module,
    student: nn.Module,
    inputs: Sequence[Any],
    layers: tuple[str, str],
    *,
    kernel: Kernel | None = None,
    pruner: Pruner | None = None,
    names: Sequence[str] | None = None,
) -> Interpretation:
    r"""Return what teacher and student of a forecaster weigh alike and unlike.

    Three views: the local and temporal structures of a hidden layer of both (what the losses of
    `"STCD" <https://arxiv.org/abs/2401.11798>`_ compare), occlusion (how forecasts change when a
    sensor, a time step or an edge is taken away), and, with a pruner, which of the teacher's
    channels are gone and what these did. Both models run
    :math:`1 + N + T + |\mathcal{E}|` times, the teacher once more for each channel of the layers
    that were pruned: some tens of windows of a network of some hundred sensors are enough.

    Args:
        teacher (torch.nn.Module): The teacher.
        student (torch.nn.Module): The student, of the same inputs and outputs.
        inputs (tuple): Sequences, edges and, if there are any, edge weights.
        layers (tuple of str): The hidden layer of the teacher and of the student.
        kernel (Kernel, optional): The similarity of the structures.
            (default: :obj:`RBF(sigma="median")`)
        pruner (Pruner, optional): What has pruned a copy of the teacher. (default: :obj:`None`)
        names (sequence of str, optional): The names of the nodes. (default: their numbers)

    Shapes:
        - **inputs:** :math:`(B, T, N, C)`, :math:`(2, |\mathcal{E}|)`,
          :math:`(|\mathcal{E}|)`
        - **outputs** of the models: :math:`(B, C', N)`
        - **layers:** :math:`(B, T', N, C'')`

    Raises:
        TypeError: If a model is no module.
        ValueError: If the inputs are not two or three, a layer is not there or no sequence, or
            there is not a name for each node.

    Example:
        >>> from pyg_stkd.nn import STGCN
        >>> teacher, student = STGCN(1, 8), STGCN(1, 2, temporal_channels=4)
        >>> x, edge_index = torch.randn(4, 12, 3, 1), torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
        >>> found = interpret(teacher, student, (x, edge_index), ("blocks.0", "blocks.0"))
        >>> found.teacher.steps.shape, found.spatial.nodes.shape
        (torch.Size([12]), torch.Size([3]))
        >>> list(found.agreement())
        ['local structures', 'temporal structures', 'time steps', 'edges', 'pairs of sensors']
    """
    for name, model in (("teacher", teacher), ("student", student)):
        checks.instance(name, model, nn.Module)
    if not 2 <= len(inputs) <= 3:
        raise ValueError(
            f"'inputs' must be sequences, edges and, at most, weights (got {len(inputs)})"
        )
    x = inputs[0]
    checks.sequence("inputs", x, 1)
    num_nodes = x.size(2)
    graph = Graph.of(inputs[1], num_nodes)
    weight = inputs[2] if len(inputs) > 2 else None
    if weight is not None and not isinstance(inputs[1], Graph):
        weight = graph.sort_edges(weight)
    told = [str(i) for i in range(num_nodes)] if names is None else list(names)
    if len(told) != num_nodes:
        raise ValueError(f"'names' must be one for each of {num_nodes} nodes (got {len(told)})")
    kernel = RBF(sigma="median") if kernel is None else kernel
    args = (x, graph.edge_index, weight)
    with eval_mode(teacher, student), torch.no_grad():
        hidden = [
            _hidden(model, layer, args)
            for model, layer in zip((teacher, student), layers, strict=True)
        ]
        common = min(h.size(1) for h in hidden)
        last = [h[:, h.size(1) - common :] for h in hidden]
        channels: list[Channels] = []
        if pruner is not None:
            channels = channels_taken(teacher, pruner, lambda model: model(*args), args)
        return Interpretation(
            graph.edge_index,
            tuple(told),
            local_agreement(last[0], last[1], graph, kernel),
            temporal_agreement(last[0], last[1], kernel),
            occlude(teacher, x, graph, weight),
            occlude(student, x, graph, weight),
            tuple(channels),
        )


def _hidden(model: nn.Module, layer: str, args: tuple[Any, ...]) -> Tensor:
    output = outputs_of(model, [layer], lambda each: each(*args))[1].get(layer)
    if not isinstance(output, Tensor) or output.dim() != 4:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"'layers' must return sequences [B, T, N, C] (got {shape} of {layer!r})")
    return output


def _of_largest(values: Tensor) -> Tensor:
    return values / values.max().clamp(min=1e-12) if len(values) else values


def _number(value: Any) -> str:
    return "" if math.isnan(value) else f"{float(value):.2f}"


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):.2g}" if len(values) else ""
