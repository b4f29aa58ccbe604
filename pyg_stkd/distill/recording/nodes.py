"""The nodes that the losses of a forward are restricted to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_stkd import checks

__all__ = ["as_nodes"]


def as_nodes(nodes: Tensor | Sequence[int] | None, device: torch.device) -> Tensor | None:
    """Return an index or a mask of nodes, checked, on the device of the features.

    Example:
        >>> as_nodes([2, 0], torch.device("cpu"))
        tensor([2, 0])
    """
    if nodes is None:
        return None
    nodes = torch.as_tensor(nodes, device=device)
    checks.nodes("nodes", nodes)
    return nodes
