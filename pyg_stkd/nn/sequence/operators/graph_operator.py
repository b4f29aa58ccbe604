"""The matrix that a spectral layer propagates with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

import pyg_stkd.functional.sparse.primitives  # noqa: F401 - registers the operator that propagate() calls
from pyg_stkd import checks
from pyg_stkd.functional.sparse.spmm_slices import spmm_slices
from pyg_stkd.graph import Graph, is_exporting, wants_plain
from pyg_stkd.graph.graph import OfGraph

__all__ = ["GraphOperator", "propagate", "Propagation"]

Propagation = Literal["auto", "dense", "sparse"]


class GraphOperator(OfGraph):
    r"""A constant :math:`(N, N)` matrix, stored densely or as a :class:`~pyg_stkd.graph.Graph`.

    Which of the two is chosen by density: a dense product wins where the matrix is small or full.

    Losses of structures take it for the graph, its diagonal for self-loops.

    Args:
        graph (Graph): Where the matrix may differ from zero (rows are targets).
        value (Tensor): The entries, in the graph's order; entries of duplicate edges add up.
        propagation (str, optional): :obj:`"dense"`, :obj:`"sparse"`, or :obj:`"auto"` for the
            one that measures faster. (default: :obj:`"auto"`)

    Raises:
        ValueError: If :obj:`propagation` is unknown.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> GraphOperator(graph, torch.tensor([2.0, 3.0])).to_dense().tolist()
        [[0.0, 2.0], [3.0, 0.0]]
    """

    def __init__(self, graph: Graph, value: Tensor, propagation: Propagation = "auto") -> None:
        checks.choice("propagation", propagation, ("auto", "dense", "sparse"))
        self.graph = graph
        self.num_nodes = graph.num_nodes
        # Shared with the same operator in other types.
        self._polynomials: dict[tuple[int, int, torch.dtype], Tensor] = {}
        self.is_dense = propagation == "dense" or (
            propagation == "auto" and _dense_is_faster(graph)
        )
        # What propagate() takes: the matrix, or its values and the arrays of the graph.
        self.tensors: tuple[Tensor, ...]
        if self.is_dense:
            source, target = graph.edge_index
            matrix = value.new_zeros(graph.num_nodes, graph.num_nodes)
            self.tensors = (matrix.index_put((target, source), value, accumulate=True),)
        else:
            self.tensors = (value, *graph.csr(), *graph.csc())

    @property
    def requires_grad(self) -> bool:
        return self.tensors[0].requires_grad

    def to(self, dtype: torch.dtype) -> GraphOperator:
        """Return the operator with entries of :obj:`dtype` (itself if they are)."""
        if self.tensors[0].dtype == dtype:
            return self
        out = GraphOperator.__new__(GraphOperator)
        out.__dict__ |= self.__dict__
        out.tensors = (self.tensors[0].to(dtype), *self.tensors[1:])
        return out

    def to_dense(self) -> Tensor:
        """Return the matrix, rows are targets."""
        if self.is_dense:
            return self.tensors[0]
        value, _, col, row = self.tensors[:4]
        matrix = value.new_zeros(self.num_nodes, self.num_nodes)
        return matrix.index_put((row.long(), col.long()), value, accumulate=True)

    def polynomials(self, first: int, last: int) -> Tensor:
        """Return the transposed Chebyshev polynomials of these orders below each other, kept."""
        dtype = self.tensors[0].dtype
        kept = self._polynomials.get((first, last, dtype))
        if kept is None:
            # In full precision, once; and they must serve training too.
            with torch.inference_mode(False), torch.no_grad():
                matrix = self.to_dense().t().double()
                terms = [torch.eye(self.num_nodes, dtype=matrix.dtype, device=matrix.device)]
                terms.append(matrix)
                while len(terms) <= last:
                    terms.append(2.0 * matrix @ terms[-1] - terms[-2])
                kept = torch.cat(terms[first : last + 1]).to(dtype)
            self._polynomials[first, last, dtype] = kept
        return kept

    def __repr__(self) -> str:
        kind = "dense" if self.is_dense else "sparse"
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, {kind})"


def propagate(x: Tensor, tensors: tuple[Tensor, ...], transpose: bool = False) -> Tensor:
    """Multiply a constant operator (or its transpose) with the columns of :obj:`x` [N, F].

    A sparse one also takes slices [S, N, F] of it.
    """
    plain = wants_plain()
    if plain and len(tensors) == 1:
        return (tensors[0].t() if transpose else tensors[0]) @ x
    if plain:
        value, _, source, target = tensors[:4]
        if transpose:
            source, target = target, source
        rows = value.view(-1, 1) * x.index_select(-2, source)
        return torch.zeros_like(x).index_add(-2, target.long(), rows)
    return _Propagate.apply(x, transpose, *tensors)


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, transpose, *tensors):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*tensors)
        ctx.transpose = transpose
        if len(tensors) == 1:
            return (tensors[0].t() if transpose else tensors[0]) @ x
        if x.dim() == 3:
            return spmm_slices(list(tensors[1:]), tensors[0], x, transpose)
        return torch.ops.pyg_stkd.spmm(list(tensors[1:]), tensors[0], x, transpose)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        out = _Propagate.apply(grad, not ctx.transpose, *ctx.saved_tensors)
        return out, None, *[None] * len(ctx.saved_tensors)


def _dense_is_faster(graph: Graph) -> bool:
    num_nodes, num_edges = graph.num_nodes, graph.num_edges
    symbols = not (isinstance(num_nodes, int) and isinstance(num_edges, int))
    if symbols or (is_exporting() and torch.compiler.is_dynamo_compiling()):
        return False  # torch.export must not choose; its strict mode shows symbols as integers
    if graph.edge_index.is_cuda:  # sparse kernels pay their launches
        return num_nodes <= 256 or (num_nodes <= 400 and num_edges > 0.1 * num_nodes**2)
    # Measured with 16 to 64 channels: a sparse entry costs 6 to 12 dense ones.
    return num_nodes <= 32 or (num_nodes <= 4096 and 8 * num_edges > num_nodes**2)
