r"""The sparse primitives; attention, maxima, distances and searches have kernels of their own.

None builds an :math:`(|\mathcal{E}|, F)` array. They are operators of torch's dispatcher, so that
:func:`torch.compile` sees each as one node, but for products on CPU, which Inductor adds in the
loop that makes them; each is differentiated in terms of the others, so derivatives of any order
exist. Half precision is computed in float32. Under :func:`torch.export.export` they are gathers
and scatters instead, which every runtime has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd import checks
from pyg_stkd.functional.sparse.plain import (
    plain_log_softmax,
    plain_sddmm,
    plain_segment_sum,
    plain_spmm,
)
from pyg_stkd.functional.sparse.sparse_ops import (
    SDDMM,
    SegmentLogSoftmax,
    SegmentSum,
    SpMM,
    compute_dtype,
    graph_index,
)
from pyg_stkd.graph import Graph, wants_plain

__all__ = ["sddmm", "segment_log_softmax", "segment_softmax", "segment_sum", "spmm"]

# Up to so many features of nodes, on CPU, Inductor's sum of products is the faster one with its
# own derivative too: calls of our operators outweigh its atomic additions.
_FEW_FEATURES = 1 << 17


def sddmm(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    r"""Sampled dense-dense product: the inner product of both ends of each edge.

    .. math::
        s_e = \langle \mathbf{a}_{dst(e)}, \mathbf{b}_{src(e)} \rangle

    Args:
        graph (Graph): The edges.
        a (Tensor): Features of the targets.
        b (Tensor): Features of the sources.

    Shapes:
        - **a:** :math:`(N_{dst}, F)`, or :math:`(N_{dst}, H, F)` with heads
        - **b:** :math:`(N_{src}, F)`, or :math:`(N_{src}, H, F)`
        - **output:** :math:`(|\mathcal{E}|)`, or :math:`(|\mathcal{E}|, H)`, in the graph's order

    Raises:
        TypeError: If a tensor is not of real floating point numbers.
        ValueError: If the shapes do not fit the graph or each other, or the devices differ.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> sddmm(graph, torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]]))
        tensor([6., 8.])
    """
    _check_nodes(graph, "a", a, target=True)
    _check_nodes(graph, "b", b, target=False)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"'a' and 'b' must have the same width (got {list(a.shape)} and {list(b.shape)})"
        )
    a, b = _same_dtype(a, b)
    # torch.export must not choose by size.
    if wants_plain() or (torch.compiler.is_compiling() and a.is_cpu and a.numel() <= _FEW_FEATURES):
        return plain_sddmm(graph, a, b).to(a.dtype)
    if b is a:  # torch.compile wants the inputs of a function to be distinct
        b = b.view_as(b)
    return SDDMM.apply(a, b, *graph_index(graph, a, b))


def spmm(graph: Graph, weight: Tensor | None, x: Tensor) -> Tensor:
    r"""Weighted sum of the features of each node's in-neighbours.

    .. math::
        \mathbf{y}_i = \sum_{e:\, dst(e) = i} w_e \, \mathbf{x}_{src(e)}

    Args:
        graph (Graph): The edges.
        weight (Tensor, optional): A weight for each edge, in the graph's order, or :obj:`None`
            for ones.
        x (Tensor): Features of the sources.

    Shapes:
        - **weight:** :math:`(|\mathcal{E}|)`, or :math:`(|\mathcal{E}|, H)` with heads
        - **x:** :math:`(N_{src}, F)`, or :math:`(N_{src}, H, F)`
        - **output:** :math:`(N_{dst}, F)`, or :math:`(N_{dst}, H, F)`

    Raises:
        TypeError: If a tensor is not of real floating point numbers.
        ValueError: If the shapes do not fit the graph or each other, or the devices differ.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> spmm(graph, torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]]))
        tensor([[ 0.],
                [11.]])
    """
    _check_nodes(graph, "x", x, target=False)
    if weight is None:
        weight = x.new_ones((graph.num_edges,) + x.shape[1:-1])
    _check_edges(graph, "weight", weight, x.shape[1:-1])
    weight, x = _same_dtype(weight, x)
    if wants_plain():
        return plain_spmm(graph, weight, x).to(x.dtype)
    return SpMM.apply(weight, x, False, *graph_index(graph, weight, x))


def segment_sum(graph: Graph, value: Tensor) -> Tensor:
    r"""Sum the values of the edges that enter each node.

    Args:
        graph (Graph): The edges.
        value (Tensor): A value for each edge, in the graph's order.

    Shapes:
        - **value:** :math:`(|\mathcal{E}|)` or :math:`(|\mathcal{E}|, H)`
        - **output:** :math:`(N_{dst})` or :math:`(N_{dst}, H)`

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> segment_sum(graph, torch.tensor([1.0, 2.0]))
        tensor([0., 3.])
    """
    _check_edges(graph, "value", value)
    if wants_plain():
        return plain_segment_sum(graph, value)
    return SegmentSum.apply(value, *graph.csr()[::2])


def segment_softmax(graph: Graph, score: Tensor) -> Tensor:
    r"""Softmax over the edges that enter each node.

    .. math::
        p_e = \exp(s_e) \big/ \sum_{e':\, dst(e') = dst(e)} \exp(s_{e'})

    Args:
        graph (Graph): The edges.
        score (Tensor): A score for each edge, in the graph's order.

    Shapes:
        - **score:** :math:`(|\mathcal{E}|)` or :math:`(|\mathcal{E}|, H)`
        - **output:** as :obj:`score`

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 0], [1, 1, 0]]))
        >>> segment_softmax(graph, torch.tensor([5.0, 0.0, 0.0]))
        tensor([1.0000, 0.5000, 0.5000])
    """
    _check_edges(graph, "score", score)
    # The exponential of a rounded logarithm would lose half precision's few digits.
    wide = score.to(compute_dtype(score.dtype))
    return segment_log_softmax(graph, wide).exp().to(score.dtype)


def segment_log_softmax(graph: Graph, score: Tensor) -> Tensor:
    r"""Logarithm of :func:`segment_softmax`, computed in log space.

    Args:
        graph (Graph): The edges.
        score (Tensor): A score for each edge, in the graph's order.

    Shapes:
        - **score:** :math:`(|\mathcal{E}|)` or :math:`(|\mathcal{E}|, H)`
        - **output:** as :obj:`score`

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> segment_log_softmax(graph, torch.tensor([0.0, -1000.0]))
        tensor([    0., -1000.])
    """
    _check_edges(graph, "score", score)
    if wants_plain():
        return plain_log_softmax(graph, score)
    return SegmentLogSoftmax.apply(score, *graph.csr()[::2])


def _check_nodes(graph: Graph, name: str, x: Tensor, target: bool) -> None:
    _check_float(graph, name, x)
    num_nodes = graph.size[1 if target else 0]
    if x.dim() not in (2, 3) or x.size(0) != num_nodes:
        raise ValueError(
            f"'{name}' must have shape [{num_nodes}, F] or [{num_nodes}, H, F] on this graph "
            f"(got {list(x.shape)})"
        )


def _check_edges(graph: Graph, name: str, value: Tensor, heads: torch.Size | None = None) -> None:
    _check_float(graph, name, value)
    expected = [graph.num_edges, *(value.shape[1:] if heads is None else heads)]
    if list(value.shape) != expected or len(expected) > 2:
        shown = expected if len(expected) <= 2 else f"[{graph.num_edges}] or [{graph.num_edges}, H]"
        raise ValueError(
            f"'{name}' must have shape {shown}, a row for each edge (got {list(value.shape)})"
        )


def _check_float(graph: Graph, name: str, x: Tensor) -> None:
    if not isinstance(graph, Graph):
        raise TypeError(f"'graph' must be a Graph, made once of the edges (got {type(graph)})")
    checks.dense(name, x)
    if x.device != graph.device:
        raise ValueError(f"'{name}' must be on the graph's device {graph.device} (got {x.device})")


def _same_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)
