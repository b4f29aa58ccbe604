"""What of two outputs is compared with what, part by part."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.copies import has_parameters
from pyg_stkd.distill.recording.capture import Capture

__all__ = ["Pair", "match", "restrict"]


class Pair(NamedTuple):
    """A part of the student's output and the teacher's part that it is compared with."""

    part: Hashable
    student: Capture
    teacher: Capture
    weight: float


def match(loss: DistillationLoss, student: Capture, teacher: Capture) -> list[Pair]:
    """Return the parts that a loss compares of one call of both sides, with weights of sum 1.

    Raises:
        ValueError: If one side lacks a part, or there are several for a loss with parameters that
            does not know of them.

    Example:
        >>> import torch
        >>> s, t = ({"a": torch.ones(3, 2), "b": torch.ones(4, 2)} for _ in range(2))
        >>> loss = DistillationLoss(weights={"b": 2.0})
        >>> [(pair.part, pair.weight) for pair in match(loss, Capture(s), Capture(t))]
        [('b', 1.0)]
    """
    ours = loss.parts_of_student(student)
    theirs = loss.parts_of_teacher(teacher)
    if loss.weights is None and len(ours) == len(theirs) == 1:
        ((part, s),), ((other, t),) = ours.items(), theirs.items()
        # A dictionary of one entry may stand against a plain tensor, not against another entry.
        if part == other or "" in (part, other) or int in (type(part), type(other)):
            return [Pair(part, s, t, 1.0)]
    weights = dict.fromkeys(ours, 1.0) if loss.weights is None else loss.weights
    lost = [part for part in weights if part not in ours or part not in theirs]
    if lost and loss.weights is not None:
        raise ValueError(
            f"'weights' must name parts that the {student.where} and the {teacher.where} have, "
            f"which are {_listed(ours)} and {_listed(theirs)} (got {lost})"
        )
    if loss.weights is None and set(ours) != set(theirs):
        raise ValueError(
            f"The {student.where} and the {teacher.where} must have the same parts "
            f"(got {_listed(ours)} and {_listed(theirs)}): choose one with select=, or some "
            f"with weights={{...}}"
        )
    if loss.weights is None and len(ours) > 1 and has_parameters(loss):
        ones = dict.fromkeys(ours, 1.0)
        raise ValueError(
            f"A loss with parameters of its own needs a copy of them for each part of the "
            f"{student.where} (got the parts {_listed(ours)}): name them when it is built, "
            f"weights={ones}, or choose one with select="
        )
    if loss.weights is None and len(ours) > 1:
        _warn_of_unlike(ours, student)
    total = sum(weights.values())
    return [
        Pair(part, ours[part], theirs[part], weight / total) for part, weight in weights.items()
    ]


def restrict(pairs: list[Pair], nodes: Any) -> list[Pair]:
    """Return pairs restricted to nodes: of a dictionary by part, each to its own.

    Raises:
        ValueError: If there are several parts and nodes of one, or a part has none.

    Example:
        >>> import torch
        >>> x = Capture(torch.tensor([[1.0], [2.0]]))
        >>> (pair,) = restrict([Pair("paper", x, x, 1.0)], {"paper": torch.tensor([1])})
        >>> pair.student.rows
        tensor([[2.]])
    """
    if nodes is None:
        return pairs
    if not isinstance(nodes, Mapping):
        if len(pairs) > 1:
            parts = [pair.part for pair in pairs]
            raise ValueError(
                f"'nodes' must be a dictionary by part where several are compared, which are "
                f"{parts} (got one tensor): give one, or choose a part with select="
            )
        return pairs
    kinds = {pair.part: _of_nodes(pair.part, nodes) for pair in pairs}
    lost = [part for part, kind in kinds.items() if kind not in nodes]
    if lost:
        raise ValueError(
            f"'nodes' must name each part that is compared (got {list(nodes)} without {lost})"
        )
    chosen = [nodes[kinds[pair.part]] for pair in pairs]
    return [
        Pair(pair.part, pair.student.at(rows), pair.teacher.at(rows), pair.weight)
        for pair, rows in zip(pairs, chosen, strict=True)
    ]


def _of_nodes(part: Hashable, nodes: Mapping[Any, Any]) -> Hashable:
    """Return the key that nodes of a part are given by: that of a type of edge is its target."""
    typed = part not in nodes and isinstance(part, tuple) and len(part) == 3
    return part[2] if typed else part  # type: ignore[index]


def _warn_of_unlike(parts: Mapping[Hashable, Capture], student: Capture) -> None:
    """Warn where a tuple without names holds things of different widths: a state, weights, ..."""
    unnamed = not isinstance(student.output, Mapping) and all(type(part) is int for part in parts)
    if unnamed and len({part.value.size(-1) for part in parts.values()}) > 1:
        shapes = ", ".join(f"{key}: {list(part.value.shape)}" for key, part in parts.items())
        warnings.warn(
            f"All parts of the {student.where} are compared, in equal shares ({shapes}), and they "
            f"are not alike: choose one with select=0, or say what each counts with weights=",
            stacklevel=2,
        )


def _listed(parts: Mapping[Hashable, Capture]) -> str:
    return ", ".join(f"{part!r}" if part != "" else "a tensor" for part in parts)
