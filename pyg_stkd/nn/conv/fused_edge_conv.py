"""The edge convolution of one linear layer, computed node by node."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.edge_norm_max import edge_norm_max
from pyg_stkd.functional.sparse.neighbour_max import neighbour_max
from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv.edge_network import EdgeBlock

__all__ = ["fused_edge_conv"]

# What rounding may do to a variance, relative to it.
_PRECISION = 1e-4


def fused_edge_conv(block: EdgeBlock, x: tuple[Tensor, Tensor], graph: Graph) -> Tensor | None:
    """Return the output, :obj:`None` where too many digits would be lost.

    What stands for a difference of neighbours is one of two products here. In half precision each
    would be rounded by more than the difference may be, so that all are of single precision; there
    is one for each node, where the layer's own are one for each edge.
    """
    linear, norm, act = block
    for hook in linear._forward_pre_hooks.values():  # masks of torch.nn.utils.prune
        hook(linear, None)
    weight, shift = linear.weight, linear.bias
    kind, half = x[0].device.type, _half_dtype(x[0], weight)
    if half is not None:
        weight, shift = weight.float(), None if shift is None else shift.float()
    if half is not None and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            out = _largest(weight, shift, norm, x, graph)
    else:
        out = _largest(weight, shift, norm, x, graph)
    if out is None:
        return None
    out = out if half is None else out.to(half)
    out = out if act is None else act(out)
    isolated = (graph.degree == 0).view(-1, 1)
    if torch.compiler.is_compiling() or bool(isolated.any()):
        out = out.masked_fill(isolated, 0)
    return out


def _half_dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return the dtype of the layer's output if it is less than single precision."""
    if torch.float64 in (x.dtype, weight.dtype):
        return None
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype if x.dtype == weight.dtype and x.dtype != torch.float32 else None


def _largest(
    weight: Tensor,
    shift: Tensor | None,
    norm: torch.nn.BatchNorm1d | None,
    x: tuple[Tensor, Tensor],
    graph: Graph,
) -> Tensor | None:
    """Return the largest normalised output of the linear layer over the edges of each node."""
    # Differences do not change when all nodes move; float32 keeps more digits near the origin.
    origin = x[0].detach().mean(dim=0, dtype=weight.dtype)
    origin = torch.where(origin.isfinite(), origin, 0)  # a node that is not must not spoil others
    # An origin of single precision makes them so too.
    moved = (x[0] - origin,) * 2 if x[0] is x[1] else (x[0] - origin, x[1] - origin)
    if norm is not None and not _uses_batch(norm):
        weight, shift = _fold(norm, weight, shift)
    own, other = weight.chunk(2, dim=1)
    offset = (own * origin).sum(dim=1)  # no product of matrices: it is of full precision always
    offset = offset if shift is None else offset + shift
    a, b = F.linear(moved[1], own - other, offset), F.linear(moved[0], other)
    if norm is None or not _uses_batch(norm):
        return a + neighbour_max(graph, b)
    return _normalise(norm, graph, a, b)


def _uses_batch(norm: torch.nn.BatchNorm1d) -> bool:
    return norm.training or norm.running_mean is None


def _fold(
    norm: torch.nn.BatchNorm1d, weight: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Merge a normalisation by fixed statistics into the linear layer before it."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    scale = torch.rsqrt(var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean if shift is None else shift - mean
    shift = shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale)
    return weight * scale.view(-1, 1), shift


def _normalise(norm: torch.nn.BatchNorm1d, graph: Graph, a: Tensor, b: Tensor) -> Tensor | None:
    dtype = torch.promote_types(a.dtype, torch.float32)
    gamma: Tensor = torch.ones_like(a[0]) if norm.weight is None else norm.weight
    beta: Tensor = torch.zeros_like(a[0]) if norm.bias is None else norm.bias
    given = a.dtype
    a, b, gamma, beta = (part.to(dtype) for part in (a, b, gamma, beta))
    out, mean, var, parts = edge_norm_max(graph, a, b, gamma, beta, norm.eps)
    if not torch.compiler.is_compiling():
        lost = torch.finfo(dtype).eps * parts > _PRECISION * (var + norm.eps)
        if bool(lost.any()):
            return None
    if norm.training and norm.track_running_stats and norm.running_mean is not None:
        _update_statistics(norm, mean, var * (graph.num_edges / (graph.num_edges - 1)))
    return out.to(given)


@torch.no_grad()
def _update_statistics(norm: torch.nn.BatchNorm1d, mean: Tensor, var: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor: float | Tensor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = norm.num_batches_tracked.to(mean.dtype).reciprocal()
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
    norm.running_var.lerp_(var.to(norm.running_var.dtype), factor)
