"""The nodes that the losses of a forward are restricted to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pyg_stkd import checks

__all__ = ["as_nodes"]


def as_nodes(nodes: Any, device: torch.device, empty: bool = False) -> Any:
    """Return an index or a mask of nodes, checked, on the device of the features; in a dictionary
    by part, each of them. They may be none if :obj:`empty` is set.

    Example:
        >>> as_nodes([2, 0], torch.device("cpu"))
        tensor([2, 0])
    """
    if nodes is None:
        return None
    if isinstance(nodes, Mapping):
        return {part: as_nodes(chosen, device, empty) for part, chosen in nodes.items()}
    nodes = torch.as_tensor(nodes, device=device)
    if empty and nodes.dtype == torch.bool and nodes.dim() == 1 and not nodes.any():
        nodes = nodes.nonzero().view(-1)
    checks.nodes("nodes", nodes, num_nodes=0 if empty and nodes.numel() == 0 else None)
    return nodes
