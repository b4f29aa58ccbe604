"""The gates of temporal convolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["apply_gate"]


def apply_gate(y: Tensor, gate: str, dim: int = -1) -> Tensor:
    """Gate maps whose parts lie one after the other."""
    if gate == "linear":
        return y
    if gate == "glu":
        return F.glu(y, dim)
    if gate == "relu":
        return torch.relu(y)
    if gate == "sigmoid":
        return torch.sigmoid(y)
    if gate == "gtu":
        p, q = y.chunk(2, dim)
        return p.tanh() * q.sigmoid()
    p, q, r = y.chunk(3, dim)
    return torch.relu(p * q.sigmoid() + r)
