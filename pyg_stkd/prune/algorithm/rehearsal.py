"""Tried on one batch, before anything is pruned: what losses do when their layers get smaller."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stkd.distill.check import dry
from pyg_stkd.distill.distiller import Distiller
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.copies import copies_of
from pyg_stkd.distill.training import Batch, losses_of, of_models
from pyg_stkd.prune.algorithm.adapters import StudentMaps, is_told, narrow_adapters, takers_of
from pyg_stkd.prune.algorithm.parallel import apart
from pyg_stkd.prune.pruner import Pruner

__all__ = ["copied", "maps_by_trial", "needs_trial", "rehearse"]


def needs_trial(distiller: Distiller) -> bool:
    """Tell whether some loss does not say which of its modules take the student's features."""
    return any(_untold(distiller))


def maps_by_trial(distiller: Distiller, batch: Batch) -> StudentMaps:
    """Return the modules that take the student's features, of losses that do not say it.

    Those are given something that depends on the student's parameters, and on none of the loss's
    own: the teacher's features depend on neither, and what comes out of another map on both.
    Losses that are not computed now are left out.
    """
    asked = {loss: takers_of(loss) for loss in _untold(distiller)}
    with _first_inputs(asked) as seen, dry(distiller), apart(distiller), torch.enable_grad():
        losses_of(distiller, batch)
    if not any(parameter.requires_grad for parameter in distiller.student.parameters()):
        return {}
    maps: StudentMaps = {}
    for loss, takers in asked.items():
        own = set(loss.parameters())
        if any(taker in seen for taker in takers):
            maps[loss] = [
                taker
                for taker in takers
                if taker in seen and seen[taker].requires_grad and not _uses(seen[taker], own)
            ]
    return maps


def rehearse(distiller: Distiller, pruner: Pruner, batch: Batch, maps: StudentMaps) -> None:
    """Take a channel of each group out of copies, and compute the losses.

    Raises:
        ValueError: If that fails. Nothing is changed.
    """
    args, kwargs, target = batch
    with dry(distiller):
        known = kwargs.get("teacher")
        if known is None:
            own = {name: kwargs[name] for name in ("teacher_args",) if name in kwargs}
            known = distiller.capture_teacher(*args, **own, **of_models(kwargs))
    smaller, cutter, maps = copied(distiller, pruner, maps)
    kept = {}
    for group in cutter.groups:
        free = [i for i, fixed in enumerate(group.fixed) if not fixed]
        if pruner.widths[group.name] > 1 and free:
            kept[group.name] = torch.arange(group.width) != free[-1]
    rest = {name: kwargs[name] for name in kwargs if name not in ("teacher", "teacher_args")}
    try:
        cutter.mask(kept)
        narrow_adapters(smaller, cutter, maps)
        cutter.shrink()
        with dry(smaller), apart(smaller):
            losses_of(smaller, (args, {**rest, "teacher": known}, target))
    except Exception as error:  # whatever a loss raises
        raise ValueError(
            "The losses must be such that they can be computed when the student loses channels "
            f"(got {type(error).__name__}: {error})"
        ) from error


def copied(
    distiller: Distiller, pruner: Pruner, maps: StudentMaps
) -> tuple[Distiller, Pruner, StudentMaps]:
    """Return copies that belong together. The teacher is not copied: it must not run in them."""
    memo: dict[int, Any] = {id(distiller.teacher): distiller.teacher}
    for module in distiller.student.modules():
        for value in vars(module).values():
            # Masked or normalised weights are results of a product, which have no copy.
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy((distiller, pruner, maps), memo)


def _untold(distiller: Distiller) -> Iterator[DistillationLoss]:
    for loss in distiller.losses.values():
        assert isinstance(loss, DistillationLoss)
        yield from (one for one in copies_of(loss) if not is_told(one) and takers_of(one))


@contextmanager
def _first_inputs(
    asked: dict[DistillationLoss, list[nn.Module]],
) -> Iterator[dict[nn.Module, Tensor]]:
    """Record the first tensor that each module is given."""
    seen: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        if tensors:
            seen.setdefault(module, tensors[0])

    handles = [
        taker.register_forward_pre_hook(record, with_kwargs=True)
        for takers in asked.values()
        for taker in takers
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _uses(tensor: Tensor, parameters: set[nn.Parameter]) -> bool:
    """Tell whether a tensor was computed from one of these parameters."""
    stack, done = [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in done:
            continue
        done.add(node)
        if getattr(node, "variable", None) in parameters:
            return True
        stack.extend(following for following, _ in node.next_functions)
    return False
