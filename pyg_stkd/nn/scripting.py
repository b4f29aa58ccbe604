"""What torch.jit.script says to layers that it cannot compile."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["refuse_script"]


def refuse_script(module: Any) -> NoReturn:
    """Refuse to be compiled by TorchScript, which calls a module's ``__prepare_scriptable__``.

    Without it, TorchScript ends in a recursion or in a message about its own inner works. A layer
    of PyG returned in place of ours would work, but TorchScript writes it into the user's own
    model, which would go on with it; and torch has deprecated TorchScript.

    Example:
        >>> import torch
        >>> from pyg_stkd.nn import KNNGraph
        >>> torch.jit.script(KNNGraph(2))
        Traceback (most recent call last):
        TypeError: 'obj' must not be a KNNGraph, which torch.jit.script cannot compile: use \
torch.compile to make it faster, torch.export to save it (got KNNGraph(k=2, loop=False))
    """
    raise TypeError(
        f"'obj' must not be a {type(module).__name__}, which torch.jit.script cannot compile: use "
        f"torch.compile to make it faster, torch.export to save it (got {module})"
    )
