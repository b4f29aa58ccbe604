"""The nodes that the losses of a forward are restricted to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pyg_stkd import checks

__all__ = ["as_nodes"]


def as_nodes(nodes: Any, device: torch.device) -> Any:
    """Return an index or a mask of nodes, checked, on the device of the features; in a dictionary
    by part, each of them.

    Example:
        >>> as_nodes([2, 0], torch.device("cpu"))
        tensor([2, 0])
    """
    if nodes is None:
        return None
    if isinstance(nodes, Mapping):
        return {part: as_nodes(chosen, device) for part, chosen in nodes.items()}
    nodes = torch.as_tensor(nodes, device=device)
    checks.nodes("nodes", nodes)
    return nodes
