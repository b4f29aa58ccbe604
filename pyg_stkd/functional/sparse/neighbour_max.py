"""Largest neighbour, channel by channel."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.functional.sparse.plain import plain_max
from pyg_stkd.functional.sparse.sparse_ops import csr_matrix
from pyg_stkd.graph import Graph, wants_plain

__all__ = ["neighbour_max", "scatter_to_argmax"]

# A float32 leaves the last 29 bits of a float64 free: room for the number of a node.
_FREE = (1 << 29) - 1
# Keeps zeros from becoming denormal numbers, which a CPU may flush; no other float32 notices it.
_TINY = 2.0**-300
# Stands for infinity, whose other bits must be zero; as a float32 it is infinite again.
_HUGE = 2.0**200


def neighbour_max(graph: Graph, x: Tensor) -> Tensor:
    r"""Take the largest value among each node's in-neighbours, channel by channel.

    .. math::
        y_{if} = \max_{j:\, (j, i) \in \mathcal{E}} x_{jf}

    The gradient goes to one neighbour that attains the maximum. No :math:`(|\mathcal{E}|, F)`
    array is built.

    Args:
        graph (Graph): The edges.
        x (Tensor): Features of the sources.

    Shapes:
        - **x:** :math:`(N_{src}, F)`
        - **output:** :math:`(N_{dst}, F)`, 0 where a node has no in-edges

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 1], [0, 0, 1]]))
        >>> neighbour_max(graph, torch.tensor([[-1.0, 5.0], [-2.0, 7.0]]))
        tensor([[-1.,  7.],
                [-2.,  7.]])
    """
    if wants_plain():
        return plain_max(graph, x)
    pointer, col, _ = graph.csr()
    return _NeighbourMax.apply(x, pointer, col)


_library = torch.library.Library("pyg_stkd", "FRAGMENT")
_library.define(
    "neighbour_max(Tensor x, Tensor pointer, Tensor col, bool argmax) -> (Tensor, Tensor)"
)


@torch.library.impl(_library, "neighbour_max", "CompositeExplicitAutograd")
def _neighbour_max(x: Tensor, pointer: Tensor, col: Tensor, argmax: bool) -> tuple[Tensor, Tensor]:
    """Return the maxima and, on demand, the neighbours that attain them (any for empty nodes)."""
    x = x.contiguous()
    size = (pointer.numel() - 1, x.size(1))
    if col.numel() == 0 or x.size(1) == 0:
        return x.new_zeros(size), col.new_zeros(size if argmax else 0)
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if plain and not argmax:
        return _sparse_max(x, pointer, col), col.new_empty(0)
    if plain and x.dtype == torch.float32 and x.size(0) <= _FREE:
        node = torch.arange(x.size(0)).view(-1, 1)
        wide = x.double().clamp_(-_HUGE, _HUGE).add_(_TINY)
        wide.view(torch.int64).bitwise_or_(node)
        key = _sparse_max(wide, pointer, col).view(torch.int64)
        index = key.to(torch.int32).bitwise_and_(_FREE).to(col.dtype)
        value = key.bitwise_and_(~_FREE).view(torch.float64).float()
        return value, index
    # Infinity in place of NaN, which the maximum would pass over.
    shown = torch.where(x.isnan(), torch.inf, x)
    _, _, _, index = torch.embedding_bag(shown, col, pointer, mode=2, include_last_offset=True)
    index = index.clamp_(min=0).long()
    value = x.gather(0, index).masked_fill_((pointer.diff() == 0).view(-1, 1), 0)
    return value, index.to(col.dtype) if argmax else col.new_empty(0)


@torch.library.register_fake("pyg_stkd::neighbour_max", lib=_library)
def _(x: Tensor, pointer: Tensor, col: Tensor, argmax: bool) -> tuple[Tensor, Tensor]:
    size = (pointer.size(0) - 1, x.size(1))
    return x.new_empty(size), col.new_empty(size if argmax else 0)


def _sparse_max(x: Tensor, pointer: Tensor, col: Tensor) -> Tensor:
    ones = x.new_ones(1).expand(col.numel())
    return torch.sparse.mm(csr_matrix(pointer, col, ones.contiguous(), x.size(0)), x, "amax")


def scatter_to_argmax(grad: Tensor, index: Tensor, num_src: int) -> Tensor:
    """Add each value to the row that its maximum came from."""
    width = grad.size(1)
    if num_src == 0:
        return grad.new_zeros(0, width)
    flat = torch.add(torch.arange(width, device=grad.device), index, alpha=width)
    out = grad.new_zeros(num_src * width)
    return out.index_add_(0, flat.view(-1), grad.reshape(-1)).view(num_src, width)


class _NeighbourMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, pointer, col):  # type: ignore[no-untyped-def]
        value, index = torch.ops.pyg_stkd.neighbour_max(x, pointer, col, ctx.needs_input_grad[0])
        ctx.save_for_backward(index, pointer)
        ctx.num_src = x.size(0)
        return value

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        # Linear in the gradient, and the choice has slope 0: it derives itself.
        index, pointer = ctx.saved_tensors
        grad = grad * (pointer.diff() > 0).view(-1, 1)
        return scatter_to_argmax(grad, index, ctx.num_src), None, None
