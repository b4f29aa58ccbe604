"""The nodes that the losses of a forward are restricted to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["as_nodes", "index_of"]


def as_nodes(nodes: Tensor | Sequence[int] | None, device: torch.device) -> Tensor | None:
    """Return an index or a mask of nodes, checked, on the device of the features.

    Example:
        >>> as_nodes([2, 0], torch.device("cpu"))
        tensor([2, 0])
    """
    if nodes is None:
        return None
    nodes = torch.as_tensor(nodes, device=device)
    if nodes.dim() != 1 or nodes.dtype not in (torch.bool, torch.int64, torch.int32):
        raise ValueError(
            "'nodes' must be one axis of integers or a boolean mask "
            f"(got shape {list(nodes.shape)} of {nodes.dtype})"
        )
    if nodes.numel() == 0 or (nodes.dtype == torch.bool and not nodes.any()):
        raise ValueError("'nodes' must choose at least one node (got none)")
    if nodes.dtype != torch.bool and nodes.is_cpu and int(nodes.min()) < 0:
        raise IndexError(f"'nodes' must not be negative (got {int(nodes.min())})")
    return nodes


def index_of(nodes: Tensor, rows: int, where: str) -> Tensor:
    """Return the index of nodes, given as index or mask, among the rows of a layer's output.

    Example:
        >>> index_of(torch.tensor([False, True]), rows=2, where="student output")
        tensor([1])
    """
    if nodes.dtype != torch.bool:
        if nodes.is_cpu and int(nodes.max()) >= rows:
            raise IndexError(
                f"'nodes' must be below the {rows} rows of the {where} (got {int(nodes.max())})"
            )
        return nodes
    if nodes.numel() != rows:
        raise ValueError(
            f"'nodes' as a mask must have one entry for each of the {rows} rows of the {where} "
            f"(got {nodes.numel()})"
        )
    return nodes.nonzero().view(-1)
