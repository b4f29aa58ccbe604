"""Run a model once, and say what belongs to which channel in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.follower import Follower
from pyg_stkd.prune.structure.example import Example, evaluating
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import Reason

__all__ = ["follow"]


def follow(ports: Ports, model: nn.Module, example: Example) -> list[Reason]:
    """Follow channels through one run of a model in eval mode.

    Args:
        ports (Ports): Where to write what belongs to what.
        model (torch.nn.Module): A copy of the model, whose attributes are changed.
        example (Example): Inputs.

    Returns:
        list of Reason: Why channels are kept.
    """
    model.eval()
    follower = Follower(ports, model)
    with evaluating(), _shapes_anew(), follower.module_hooks(), follower:
        out = example.run(model)
    follower.returns(tensors_of(out))
    ports.keep_all_but_heads()
    follower.mark_natural()
    follower.finish()
    return [*follower.reasons, *ports.reasons]


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
