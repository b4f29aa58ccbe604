"""The nodes that a loss is restricted to."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_nodes", "index_of"]


def check_nodes(nodes: Tensor, num_nodes: int) -> None:
    """Raise unless a tensor holds indices of nodes, or is a mask of them."""
    kind = nodes.dtype if isinstance(nodes, Tensor) else type(nodes).__name__
    if kind not in (torch.bool, torch.int32, torch.int64):
        raise TypeError(f"'nodes' must be a tensor of indices or a boolean mask (got {kind})")
    if nodes.dim() != 1:
        raise IndexError(f"'nodes' must have one dimension (got {list(nodes.shape)})")
    if nodes.dtype == torch.bool:
        if nodes.numel() != num_nodes:
            raise IndexError(
                f"'nodes' as a mask must have {num_nodes} values, one for each node "
                f"(got {nodes.numel()})"
            )
    elif nodes.numel() > 0 and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in nodes.aminmax())
        if low < 0 or high >= num_nodes:
            bounds = f"from 0 to {num_nodes - 1}" if num_nodes > 0 else "of which there are none"
            raise IndexError(f"'nodes' must be indices {bounds} (got {low if low < 0 else high})")


def index_of(nodes: Tensor, num_nodes: int) -> Tensor:
    """Return the indices of nodes, or those of a mask."""
    check_nodes(nodes, num_nodes)
    return nodes.nonzero().view(-1) if nodes.dtype == torch.bool else nodes
