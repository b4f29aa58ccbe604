"""When a fused operator may stand in for PyG's message passing: only where nobody could tell."""

from __future__ import annotations

import torch
from torch_geometric.nn import MessagePassing

from pyg_stkd.graph import is_transforming

__all__ = ["overrides_step", "runs_unchanged"]

_STEPS = (
    "message",
    "edge_update",
    "aggregate",
    "update",
    "message_and_aggregate",
    "explain_message",
)
# PyG itself puts these on instances, when it stops explaining for example.
_LOOPS = ("propagate", "edge_updater")
_HOOKED = tuple(
    f"_{step}_forward{kind}_hooks"
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for kind in ("_pre", "")
)


def overrides_step(cls: type) -> bool:
    """Tell whether a class that is being made overrides a step of the message passing."""
    return any(step in cls.__dict__ for step in (*_STEPS, *_LOOPS))


def runs_unchanged(conv: MessagePassing) -> bool:
    """Tell whether a layer has no hook, override, explanation or trace inside its propagation.

    Transforms of :mod:`torch.func` take PyG's own, whose derivatives they know.
    """
    if conv.explain or conv.decomposed_layers != 1 or conv.flow != "source_to_target":
        return False
    if torch.jit.is_tracing() or is_transforming():  # type: ignore[attr-defined]
        return False
    state = conv.__dict__  # loops without generators: small models ask this often
    for step in _STEPS:
        if step in state:
            return False
    for hooks in _HOOKED:  # noqa: SIM110
        if state[hooks]:
            return False
    return True
