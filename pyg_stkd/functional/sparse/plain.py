r"""The operators composed of gathers and scatters, which every runtime has: for export alone.

They build the arrays of edges times features that the kernels of this package are made to avoid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.sparse.sparse_ops import compute_dtype
from pyg_stkd.graph import Graph

__all__ = [
    "plain_attention",
    "plain_knn",
    "plain_log_softmax",
    "plain_max",
    "plain_sddmm",
    "plain_segment_sum",
    "plain_spmm",
]


def plain_sddmm(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """Compute :func:`~pyg_stkd.functional.sddmm`."""
    source, target = graph.edge_index
    dtype = compute_dtype(a.dtype)
    return (a.to(dtype).index_select(0, target) * b.to(dtype).index_select(0, source)).sum(-1)


def plain_spmm(graph: Graph, weight: Tensor, x: Tensor) -> Tensor:
    """Compute :func:`~pyg_stkd.functional.spmm`."""
    dtype = compute_dtype(x.dtype)
    value = weight.to(dtype).unsqueeze(-1) * x.to(dtype).index_select(0, graph.col)
    return plain_segment_sum(graph, value)


def plain_segment_sum(graph: Graph, value: Tensor) -> Tensor:
    """Compute :func:`~pyg_stkd.functional.segment_sum`."""
    wide = value.to(compute_dtype(value.dtype))
    out = wide.new_zeros((graph.num_nodes, *value.shape[1:]))
    return out.index_add(0, graph.edge_index[1], wide).to(value.dtype)


def plain_log_softmax(graph: Graph, score: Tensor) -> Tensor:
    """Compute :func:`~pyg_stkd.functional.segment_log_softmax`."""
    wide = _minus_top(graph, score.to(compute_dtype(score.dtype)))
    total = plain_segment_sum(graph, wide.exp()).index_select(0, graph.edge_index[1])
    return (wide - total.log()).to(score.dtype)


def plain_attention(
    graph: Graph,
    x: Tensor,
    att: Tensor,
    score_dst: Tensor | None,
    edge_score: Tensor | None,
    negative_slope: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`~.attention.additive_attention`, with its weights."""
    source, target = graph.edge_index
    given, dtype = x.dtype, compute_dtype(x.dtype)
    x, att = x.to(dtype), att.to(dtype)
    score = (x * att[0]).sum(-1).index_select(0, source)  # [E, H]
    if att.size(0) == 2:
        score = score + (x * att[1]).sum(-1).index_select(0, target)
    if score_dst is not None:
        score = score + score_dst.to(dtype).index_select(0, target)
    if edge_score is not None:
        score = score + edge_score.to(dtype).index_select(0, graph.perm)
    score = _minus_top(graph, F.leaky_relu(score, negative_slope)).exp()
    score = score / plain_segment_sum(graph, score).index_select(0, target)
    weight = F.dropout(score, dropout) if dropout > 0.0 else score
    out = plain_spmm(graph, weight, x).flatten(1).to(given)
    return out, torch.zeros_like(weight).index_copy(0, graph.perm, weight).to(given)


def plain_max(graph: Graph, x: Tensor) -> Tensor:
    """Compute :func:`~pyg_stkd.functional.sparse.neighbour_max.neighbour_max`."""
    value = x.index_select(0, graph.col)
    index = graph.edge_index[1].view(-1, 1).expand_as(value)
    out = x.new_zeros(graph.num_nodes, x.size(1))
    return out.scatter_reduce(0, index, value, "amax", include_self=False)


def plain_knn(x: Tensor, k: int, loop: bool, batch: Tensor | None = None) -> Tensor:
    """Compute :func:`~pyg_stkd.functional.knn_graph` of clouds of k points at least.

    With :obj:`batch`, in an array of all pairs of points of all clouds, loops included; a cloud of
    fewer points gives edges of points with themselves in place of those it lacks.
    """
    num_points = x.size(0)
    if isinstance(num_points, int):  # else a symbol, from which torch.export demands enough
        k = min(k, num_points - int(not loop))
    x = x.to(compute_dtype(x.dtype))
    if x.size(1) <= 4:
        score = -(x[:, None] - x).square().sum(-1)
    else:
        x = x.double()  # no look at the values can tell whether float32 is enough
        x = x - x.mean(dim=0)
        score = 2 * x @ x.t() - x.square().sum(-1)
    place = torch.arange(num_points, device=x.device)
    own = torch.inf if loop else -torch.inf
    score = torch.where(place.view(-1, 1) == place, own, score)
    if batch is not None:
        score = torch.where(batch.view(-1, 1) == batch, score, -torch.inf)
    top, near = score.topk(k, dim=1)
    if batch is not None:
        near = torch.where(top == -torch.inf, place.view(-1, 1), near)
    return torch.stack([near, place.view(-1, 1).expand_as(near)]).flatten(1)


def _minus_top(graph: Graph, score: Tensor) -> Tensor:
    """Subtract the largest score of each node's edges."""
    index = graph.edge_index[1].view(-1, *[1] * (score.dim() - 1)).expand_as(score)
    top = score.new_full((graph.num_nodes, *score.shape[1:]), -torch.inf)
    return score - top.scatter_reduce(0, index, score.detach(), "amax").gather(0, index)
