"""Whether the rows of a layer are something that both models share: nodes, edges, graphs."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from pyg_stkd.distill.recording.capture import Capture
from pyg_stkd.distill.recording.reading.choices import common_rows, rows_of
from pyg_stkd.distill.recording.reading.counts import has_graph, nodes_of, sizes_of
from pyg_stkd.distill.recording.reading.inputs import find_input
from pyg_stkd.distill.recording.reading.parts import tensors_of

__all__ = ["check_rows", "num_graphs", "same_rows"]


def same_rows(
    student: Capture, teacher: Capture, *, output: bool = False
) -> tuple[Capture, Capture]:
    """Return two captures whose rows are the same: as they are, or, behind pools that chose other
    nodes in each model, at the nodes that both of them chose.

    :obj:`output` says that the teacher's is the output of one of several, which has a name as
    layers have.

    Raises:
        ValueError: If it is not known which nodes the rows are.

    Example:
        >>> from pyg_stkd.distill import Capture
        >>> from pyg_stkd.distill.recording.reading.choices import Choice
        >>> of = [Choice(4, torch.tensor(nodes)) for nodes in ([3, 0], [0, 3])]
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> s, t = same_rows(Capture(x, choices=(of[0],)), Capture(x * 10, choices=(of[1],)))
        >>> s.value.tolist(), t.value.tolist()
        ([[2.0], [1.0]], [[10.0], [20.0]])
    """
    if not student.choices and not teacher.choices:
        check_rows(student, teacher, output=output)
        return student, teacher
    try:
        ours, theirs = _chosen(student), _chosen(teacher)
    except LookupError:
        of_graphs = student.num_nodes == teacher.num_nodes == num_graphs(student)
        if of_graphs:
            return student, teacher
        rows = f"{student.num_nodes} and {teacher.num_nodes} rows"
        of_output = student.layer == "" and student.part != ""
        instead = "another part of it, select=0" if of_output else "the output"
        raise ValueError(
            f"The {student.where} and the {teacher.where} lie behind pools, and it is not known "
            f"which nodes their {rows} are: compare a layer before them, or {instead}"
        ) from None
    common = common_rows(ours, theirs)
    if common is None:
        return student, teacher
    nodes, of_student, of_teacher = common
    if nodes.numel() < max(student.num_nodes, teacher.num_nodes):
        warnings.warn(
            f"The {student.where} and the {teacher.where} lie behind pools that chose other nodes: "
            f"they are compared at those that both chose",
            stacklevel=2,
        )
    return student.only(of_student, nodes), teacher.only(of_teacher, nodes)


def _chosen(capture: Capture) -> Tensor | None:
    return rows_of(capture.choices, capture.num_nodes) if capture.choices else None


def check_rows(student: Capture, teacher: Capture, *, output: bool = False) -> None:
    """Raise unless the rows of two layers are known to be the same things.

    Rows are known where their number is one of the model's arguments: of nodes, edges, pairs or
    graphs; or where both layers were given the same graph, or the same tensor of as many rows, such
    as the positions of sampled points. Outputs of a model, models that are given no graph, and
    axes that :obj:`layout=` names are not looked at.

    Raises:
        ValueError: If they are not known.
    """
    for capture in (student,) if output else (student, teacher):
        if not capture.layer or capture.frozen or capture.layout != "BTNC":
            continue
        if _is_plain(capture) or not has_graph(capture.context):
            continue
        rows, known = capture.num_nodes, sizes_of(capture.context, capture.value.dim() > 2)
        if rows in known or not known:
            continue
        if capture.value.dim() <= 2 and any(rows % n == 0 for n in nodes_of(capture.context)):
            continue  # nodes of several steps or graphs, flattened
        if rows == num_graphs(capture) or _same_inputs(student, teacher, rows):
            continue
        text = _of_axes if capture.value.dim() > 2 else _of_rows
        raise ValueError(text(capture, known))


def _is_plain(capture: Capture) -> bool:
    """Whether a layer has one row for each of the model's x [N, F], as most do: a quick look."""
    x, value = capture.context.get("x"), capture.value
    if not isinstance(x, Tensor) or x.dim() != 2 or value.dim() != 2:
        return False
    return value.size(0) == x.size(0)


def _of_axes(capture: Capture, known: set[int]) -> str:
    shape = list(capture.value.shape)
    fits = [i for i, size in enumerate(shape) if size in known and i != capture.node_dim]
    where = f", where axis {' or '.join(map(str, fits))} would fit" if fits else ""
    return (
        f"The {capture.where} must have the graph's nodes before the channels, of which there are "
        f"{_listed(known)} (got shape {shape}{where}): say what its axes are, such as layout='BNCT'"
    )


def _of_rows(capture: Capture, known: set[int]) -> str:
    return (
        f"The {capture.where} must have rows that both models share, such as nodes or edges "
        f"(got {capture.num_nodes} rows, and the model was given {_listed(known)}): behind a "
        f"learned pool or a sampling of its own, row i is another node in each model. Compare a "
        f"layer before it; if they are the same, say so by layout='NC'"
    )


def num_graphs(capture: Capture) -> int:
    """Return the number of graphs that the whole model was given, 1 without a batch vector."""
    count = find_input(capture.context, "num_graphs")
    if isinstance(count, int):
        return count
    batch = find_input(capture.context, "batch")
    if not isinstance(batch, Tensor) or batch.numel() == 0:
        return 1
    return int(batch.max()) + 1


def _same_inputs(student: Capture, teacher: Capture, rows: int) -> bool:
    """Whether both layers were given one graph, or one tensor of so many rows."""
    if student.num_nodes != teacher.num_nodes:
        return False
    ours, theirs = student.own_edge_index, teacher.own_edge_index
    plain = all(type(x) is Tensor and x.layout == torch.strided for x in (ours, theirs))
    if plain and torch.equal(ours, theirs):  # type: ignore[arg-type]
        return True
    given = [x for x in tensors_of(dict(teacher.inputs)) if x.dim() > 0 and x.size(0) == rows]
    return any(
        x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y)
        for x in tensors_of(dict(student.inputs))
        for y in given
    )


def _listed(sizes: set[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))
