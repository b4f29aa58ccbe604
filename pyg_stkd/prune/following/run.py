"""Run a model once, and say what belongs to which channel in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.trial import differs
from pyg_stkd.prune.following.draws import Still
from pyg_stkd.prune.following.follower import Follower
from pyg_stkd.prune.following.sharpened import check_finite
from pyg_stkd.prune.following.training import asks_for_training, in_training
from pyg_stkd.prune.structure.example import Example, evaluating
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import Reason

__all__ = ["follow"]


def follow(ports: Ports, model: nn.Module, example: Example, finite: bool = False) -> list[Reason]:
    """Follow channels through one run of a model in eval mode.

    Where its own code does something else in train mode, they are followed there too, and what is
    found is put together: channels that meet in train mode alone are one in both.

    Args:
        ports (Ports): Where to write what belongs to what.
        model (torch.nn.Module): A copy of the model, whose attributes are changed.
        example (Example): Inputs.
        finite (bool): Whether its outputs must be finite. (default: :obj:`False`)

    Returns:
        list of Reason: Why channels are kept.

    Raises:
        Exception: What the model raises, or a :class:`ValueError` for outputs that are not finite.
    """
    model.eval()
    follower = Follower(ports, model)
    out = _run(follower, example)
    if finite:
        check_finite(out)
    free = follower.free(tensors_of(out))
    trained = None
    if asks_for_training(model, example.call) and _is_other(model, example, out):
        trained = _follow_training(follower, example)
    follower.returns(tensors_of([out, trained]))  # late, so that what meets them is one with them
    ports.in_training = free - follower.free([])
    ports.keep_all_but_heads()
    follower.mark_natural()
    follower.finish()
    return [*follower.reasons, *ports.reasons]


def _run(follower: Follower, example: Example) -> Any:
    with evaluating(), _shapes_anew(), follower.module_hooks(), follower:
        return example.run(follower.model)


def _is_other(model: nn.Module, example: Example, out: Any) -> bool:
    """Tell whether a model returns something else in train mode, random numbers aside."""
    try:
        with evaluating(), in_training(model), Still():
            trained = tensors_of(example.run(model))
    except Exception:  # whatever a model raises that does not run in this mode
        return False
    known = tensors_of(out)
    return len(known) != len(trained) or any(
        a.shape != b.shape or bool(differs(a, b).any()) for a, b in zip(known, trained, strict=True)
    )


def _follow_training(follower: Follower, example: Example) -> Any:
    """Follow once more in train mode; nothing is said where that fails, as it is tried later."""
    state, reasons = follower.ports.snapshot(), list(follower.reasons)
    attributes = dict(follower.counts.attributes)
    try:
        with in_training(follower.model), Still():
            return _run(follower, example)
    except Exception:  # whatever a function of other inputs raises
        follower.ports.restore(state)
        follower.reasons, follower.counts.attributes = reasons, attributes
        return None


@contextmanager
def _shapes_anew() -> Iterator[None]:
    """Keep einops from looking up shapes by their numbers, which say not whose widths they are."""
    einops = sys.modules.get("einops.einops")
    cached = vars(einops).get("_reconstruct_from_shape") if einops is not None else None
    anew = getattr(cached, "__wrapped__", None)
    if einops is None or anew is None:
        yield
        return
    vars(einops)["_reconstruct_from_shape"] = anew
    try:
        yield
    finally:
        vars(einops)["_reconstruct_from_shape"] = cached
