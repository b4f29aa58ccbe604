r"""The three sparse primitives: every operator of this package is made of them.

None builds an :math:`(|\mathcal{E}|, F)` array. They are operators of torch's dispatcher, so that
:func:`torch.compile` sees each as one node; each is differentiated in terms of the others, so
derivatives of any order exist. Half precision is computed in float32.
"""

from __future__ import annotations

import warnings

import torch
import torch_geometric.typing
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.graph import Graph

__all__ = ["sddmm", "segment_log_softmax", "segment_softmax", "segment_sum", "spmm"]

# Elements that the fallback's edge chunks may hold at once.
_CHUNK = 1 << 22


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
    if b is a:  # torch.compile wants the inputs of a function to be distinct
        b = b.view_as(b)
    return _SDDMM.apply(a, b, *_index(graph, a, b))


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
    return _SpMM.apply(weight, x, False, *_index(graph, weight, x))


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
    return _SegmentSum.apply(value, *graph.csr()[::2])


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
    wide = score.to(_compute_dtype(score.dtype))
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
    return _SegmentLogSoftmax.apply(score, *graph.csr()[::2])


# Checks -------------------------------------------------------------------------------------------


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
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"'{name}' must be a tensor of real floating point numbers (got {kind})")
    if x.device != graph.device:
        raise ValueError(f"'{name}' must be on the graph's device {graph.device} (got {x.device})")


def _same_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def _index(graph: Graph, *inputs: Tensor) -> list[Tensor]:
    """Return the graph's arrays, with the transpose only where a backward pass may need it."""
    index = list(graph.csr())
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        index += graph.csc()
    return index


# Kernels ------------------------------------------------------------------------------------------


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _has_kernel(x: Tensor) -> bool:
    if x.device.type in ("cpu", "cuda"):
        return True
    warnings.warn(
        f"torch has no sparse kernels for {x.device.type!r}: edges are gathered in chunks",
        stacklevel=2,
    )
    return False


def _csr(pointer: Tensor, index: Tensor, value: Tensor, num_cols: int) -> Tensor:
    global _warned
    size = (pointer.numel() - 1, num_cols)
    if _warned:
        return torch.sparse_csr_tensor(pointer, index, value, size, check_invariants=False)
    with warnings.catch_warnings():  # torch announces once that its CSR layout is in beta
        warnings.simplefilter("ignore")
        _warned = True
        return torch.sparse_csr_tensor(pointer, index, value, size, check_invariants=False)


_warned = False


def _sampled_dot(pointer: Tensor, index: Tensor, row: Tensor, a: Tensor, b: Tensor) -> Tensor:
    if index.numel() == 0 or a.size(-1) == 0:
        return a.new_zeros(index.numel())
    # torch's kernel takes no more edges than the matrix has places, so few nodes with many
    # duplicate edges are gathered.
    if index.numel() > a.size(0) * b.size(0) or not _has_kernel(a):
        out = a.new_empty(index.numel())
        step = max(1, _CHUNK // a.size(-1))
        for i in range(0, index.numel(), step):
            part = slice(i, i + step)
            out[part] = (a[row[part].long()] * b[index[part].long()]).sum(-1)
        return out
    pattern = _csr(pointer, index, a.new_zeros(index.numel()), b.size(0))
    return torch.sparse.sampled_addmm(pattern, a, b.t(), beta=0.0).values()


def _weighted_sum(pointer: Tensor, index: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    if index.numel() == 0 or x.size(-1) == 0:
        return x.new_zeros(pointer.numel() - 1, x.size(-1))
    if not _has_kernel(x):
        out = x.new_zeros(pointer.numel() - 1, x.size(-1))
        row = torch.repeat_interleave(pointer.diff().long(), output_size=index.numel())
        step = max(1, _CHUNK // x.size(-1))
        for i in range(0, index.numel(), step):
            part = slice(i, i + step)
            out.index_add_(0, row[part], weight[part, None] * x[index[part].long()])
        return out
    return F.embedding_bag(
        index, x, pointer, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


_library = torch.library.Library("pyg_stkd", "DEF")
_library.define("sddmm(Tensor[] index, Tensor a, Tensor b) -> Tensor")
_library.define("spmm(Tensor[] index, Tensor weight, Tensor x, bool transpose) -> Tensor")
_library.define("segment_sum(Tensor pointer, Tensor value) -> Tensor")
_library.define("segment_log_softmax(Tensor pointer, Tensor row, Tensor score) -> Tensor")


@torch.library.impl(_library, "sddmm", "CompositeExplicitAutograd")
def _sddmm(index: list[Tensor], a: Tensor, b: Tensor) -> Tensor:
    dtype = _compute_dtype(a.dtype)
    if a.dim() == 2:
        one = (z.to(dtype).contiguous() for z in (a, b))
        return _sampled_dot(*index[:3], *one).to(a.dtype)
    out = a.new_empty(index[1].numel(), a.size(1))
    for h in range(a.size(1)):
        one = (z[:, h].to(dtype).contiguous() for z in (a, b))
        out[:, h] = _sampled_dot(*index[:3], *one)
    return out


@torch.library.register_fake("pyg_stkd::sddmm", lib=_library)
def _(index: list[Tensor], a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((index[1].size(0),) + a.shape[1:-1])


@torch.library.impl(_library, "spmm", "CompositeExplicitAutograd")
def _spmm(index: list[Tensor], weight: Tensor, x: Tensor, transpose: bool) -> Tensor:
    pointer, col, perm = index[3:] if transpose else index[:3]
    dtype = _compute_dtype(x.dtype)
    weight = (weight.index_select(0, perm) if transpose else weight).to(dtype)
    if x.dim() == 2:
        return _weighted_sum(pointer, col, weight, x.to(dtype).contiguous()).to(x.dtype)
    num_heads = x.size(1)
    out = x.new_empty(pointer.numel() - 1, num_heads, x.size(2))
    rows = x.to(dtype).reshape(-1, x.size(2))  # one row for each (node, head)
    if rows.size(0) >= 2**31:
        pointer, col = pointer.long(), col.long()
    for h in range(num_heads):
        out[:, h] = _weighted_sum(pointer, col * num_heads + h, weight[:, h].contiguous(), rows)
    return out


@torch.library.register_fake("pyg_stkd::spmm", lib=_library)
def _(index: list[Tensor], weight: Tensor, x: Tensor, transpose: bool) -> Tensor:
    return x.new_empty((index[3 if transpose else 0].size(0) - 1,) + x.shape[1:])


def _use_scatter(value: Tensor) -> bool:
    # On CPU torch's own reduction is the faster one (2.7x for the maximum of 1.2M edges).
    return torch_geometric.typing.WITH_TORCH_SCATTER and value.is_cuda


def _reduce(pointer: Tensor, value: Tensor, reduce: str) -> Tensor:
    pointer = pointer.long()
    if _use_scatter(value):
        return torch_geometric.typing.torch_scatter.segment_csr(value, pointer, reduce=reduce)
    initial = 0 if reduce == "sum" else None
    return torch.segment_reduce(
        value.contiguous(), reduce, offsets=pointer, axis=0, unsafe=True, initial=initial
    )


@torch.library.impl(_library, "segment_sum", "CompositeExplicitAutograd")
def _segment_sum(pointer: Tensor, value: Tensor) -> Tensor:
    dtype = _compute_dtype(value.dtype)
    return _reduce(pointer, value.to(dtype), "sum").to(value.dtype)


@torch.library.register_fake("pyg_stkd::segment_sum", lib=_library)
def _(pointer: Tensor, value: Tensor) -> Tensor:
    return value.new_empty((pointer.size(0) - 1,) + value.shape[1:])


@torch.library.impl(_library, "segment_log_softmax", "CompositeExplicitAutograd")
def _segment_log_softmax(pointer: Tensor, row: Tensor, score: Tensor) -> Tensor:
    out = score.to(_compute_dtype(score.dtype)).contiguous()
    if score.numel() == 0:
        return score.new_empty(score.shape)
    out = out - _reduce(pointer, out, "max").index_select(0, row)
    # Nodes without edges have the logarithm of 0, which no edge reads.
    total = _reduce(pointer, out.exp(), "sum").log_()
    return out.sub_(total.index_select(0, row)).to(score.dtype)


@torch.library.register_fake("pyg_stkd::segment_log_softmax", lib=_library)
def _(pointer: Tensor, row: Tensor, score: Tensor) -> Tensor:
    return score.new_empty(score.shape)


# Derivatives, each in terms of the primitives -----------------------------------------------------


class _SDDMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, *index):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(a, b, *index)
        return torch.ops.pyg_stkd.sddmm(list(index), a, b)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        a, b, *index = ctx.saved_tensors
        grad_a = _SpMM.apply(grad, b, False, *index) if ctx.needs_input_grad[0] else None
        grad_b = _SpMM.apply(grad, a, True, *index) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b, *[None] * len(index)


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, x, transpose, *index):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight, x, *index)
        ctx.transpose = transpose
        return torch.ops.pyg_stkd.spmm(list(index), weight, x, transpose)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        weight, x, *index = ctx.saved_tensors
        grad_weight = grad_x = None
        if ctx.needs_input_grad[0]:
            ends = (x, grad) if ctx.transpose else (grad, x)
            grad_weight = _SDDMM.apply(*ends, *index)
        if ctx.needs_input_grad[1]:
            grad_x = _SpMM.apply(weight, grad, not ctx.transpose, *index)
        return grad_weight, grad_x, None, *[None] * len(index)


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, pointer, row):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(row)
        return torch.ops.pyg_stkd.segment_sum(pointer, value)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (row,) = ctx.saved_tensors
        return grad.index_select(0, row), None, None


class _SegmentLogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, score, pointer, row):  # type: ignore[no-untyped-def]
        out = torch.ops.pyg_stkd.segment_log_softmax(pointer, row, score)
        ctx.save_for_backward(out, pointer, row)
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        out, pointer, row = ctx.saved_tensors
        total = _SegmentSum.apply(grad, pointer, row).index_select(0, row)
        return grad - out.exp() * total, None, None
