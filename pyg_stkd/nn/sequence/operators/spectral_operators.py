"""The matrices of spectral layers, built once for each edge set and kept."""

from __future__ import annotations

import weakref
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd import checks
from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, Propagation
from pyg_stkd.nn.sequence.operators.laplacian import Rule, normalized_edges

__all__ = ["cheb_operator", "gcn_operator", "Normalization"]

Normalization = Literal["sym", "rw"] | None

# Operators of living edge sets: {edge set: [(what it was built from, operator), ...]}.
_KEPT: WeakIdKeyDictionary = WeakIdKeyDictionary()
_KEPT_PER_EDGE_SET = 4


def cheb_operator(
    edge_index: Any,
    edge_weight: Tensor | None = None,
    num_nodes: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    normalization: Normalization = "sym",
    lambda_max: float | None = 2.0,
    propagation: Propagation = "auto",
) -> GraphOperator:
    r"""Return the scaled Laplacian of `"Convolutional Neural Networks on Graphs with Fast Localized
    Spectral Filtering" <https://arxiv.org/abs/1606.09375>`_, as PyG's :obj:`ChebConv` defines it.

    .. math::
        \hat{\mathbf{L}} = \frac{2}{\lambda_{\max}} \mathbf{L} - \mathbf{I}, \qquad
        \mathbf{L} = \mathbf{I} - \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}

    The operator is kept as long as the edge set lives, and built anew for another tensor object
    or after an in-place change of a tensor. It is not kept for sparse matrices, weights that
    require gradients, or inside :func:`torch.compile`; build it outside and pass it to the layers
    as their :obj:`edge_index` there.

    Args:
        edge_index (Tensor, SparseTensor or Graph): The edges. Self-loops are dropped.
        edge_weight (Tensor, optional): Non-negative weights, in the order of the given
            :obj:`edge_index` (the graph's own order for a :class:`~pyg_stkd.graph.Graph`).
            (default: those of a weighted sparse matrix, else ones)
        num_nodes (int, optional): Number of nodes. (default: that of the graph)
        dtype (torch.dtype, optional): Type of the entries. (default: :obj:`torch.float32`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"rw"`
            (:math:`\mathbf{I} - \mathbf{D}^{-1} \mathbf{A}`) or :obj:`None`
            (:math:`\mathbf{D} - \mathbf{A}`). (default: :obj:`"sym"`)
        lambda_max (float, optional): Largest eigenvalue of the Laplacian, or :obj:`None` for
            twice its largest entry, as PyG's layer assumes. (default: :obj:`2.0`)
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"` or :obj:`"auto"`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If an option is not one of those above, or weights do not fit the edges, are
            negative or not finite.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> cheb_operator(edge_index).to_dense().tolist()
        [[0.0, -1.0], [-1.0, 0.0]]
        >>> cheb_operator(edge_index) is cheb_operator(edge_index)
        True
    """
    checks.choice("normalization", normalization, ("sym", "rw", None))
    if lambda_max is None and normalization is not None:
        lambda_max = 2.0  # the diagonal is of ones
    if lambda_max is not None:
        checks.number("lambda_max", lambda_max, above=0)
    return _operator(
        edge_index,
        edge_weight,
        num_nodes,
        dtype,
        propagation,
        (normalization, None if lambda_max is None else float(lambda_max)),
    )


def gcn_operator(
    edge_index: Any,
    edge_weight: Tensor | None = None,
    num_nodes: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    propagation: Propagation = "auto",
) -> GraphOperator:
    r"""Return the renormalised adjacency of `"Semi-Supervised Classification with Graph
    Convolutional Networks" <https://arxiv.org/abs/1609.02907>`_, as PyG's :obj:`GCNConv` has it:
    :math:`\tilde{\mathbf{D}}^{-1/2} (\mathbf{A} + \mathbf{I}) \tilde{\mathbf{D}}^{-1/2}`.

    A node that has a self-loop keeps its weight. The operator is kept as in :func:`cheb_operator`.

    Args:
        edge_index (Tensor, SparseTensor or Graph): The edges.
        edge_weight (Tensor, optional): Non-negative weights, in the order of the given
            :obj:`edge_index` (the graph's own order for a :class:`~pyg_stkd.graph.Graph`).
            (default: those of a weighted sparse matrix, else ones)
        num_nodes (int, optional): Number of nodes. (default: that of the graph)
        dtype (torch.dtype, optional): Type of the entries. (default: :obj:`torch.float32`)
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"` or :obj:`"auto"`.
            (default: :obj:`"auto"`)

    Raises:
        ValueError: If :obj:`propagation` is unknown, or weights do not fit the edges, are negative
            or not finite.
        IndexError: If an edge names a node that is not there.

    Example:
        >>> gcn_operator(torch.tensor([[0, 1], [1, 0]])).to_dense()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    return _operator(edge_index, edge_weight, num_nodes, dtype, propagation, ("gcn", 0.0))


def _operator(
    edge_index: Any,
    edge_weight: Tensor | None,
    num_nodes: int | None,
    dtype: torch.dtype,
    propagation: Propagation,
    rule: Rule,
) -> GraphOperator:
    made_from = _fingerprint(edge_index, edge_weight)
    if made_from is None:
        return _build(edge_index, edge_weight, num_nodes, dtype, propagation, rule)
    options = (num_nodes, dtype, propagation, rule)
    kept = _KEPT.get(edge_index, [])
    for weight, versions, made_with, operator in kept:
        if versions == made_from and made_with == options and weight() is edge_weight:
            return operator
    # Kept operators must serve training even when the first call was made for inference.
    with torch.inference_mode(False), torch.no_grad():
        operator = _build(edge_index, edge_weight, num_nodes, dtype, propagation, rule)
    weight = (lambda: None) if edge_weight is None else weakref.ref(edge_weight)
    entry = (weight, made_from, options, operator)
    _KEPT[edge_index] = [entry, *kept][:_KEPT_PER_EDGE_SET]
    return operator


def _fingerprint(edge_index: Any, edge_weight: Tensor | None) -> tuple[int, ...] | None:
    """Return the versions of all tensors an operator depends on, None if it may not be kept."""
    if torch.compiler.is_compiling():
        return None
    tensors = [edge_index, edge_weight]
    if isinstance(edge_index, Graph):
        tensors = [edge_index.edge_index, edge_index.value, edge_weight]
    elif not isinstance(edge_index, Tensor) or is_torch_sparse_tensor(edge_index):
        return None
    tensors = [item for item in tensors if item is not None]
    if any(item.is_inference() or item.requires_grad for item in tensors):
        return None
    return tuple(item._version for item in tensors)


def _build(
    edge_index: Any,
    edge_weight: Tensor | None,
    num_nodes: int | None,
    dtype: torch.dtype,
    propagation: Propagation,
    rule: Rule,
) -> GraphOperator:
    graph, value = normalized_edges(edge_index, edge_weight, num_nodes, dtype, rule)
    return GraphOperator(graph, value, propagation).to(dtype)
