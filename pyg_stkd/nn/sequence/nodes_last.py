"""Inference on rows [T, C, B * N]: thin layers become products with long rows of nodes.

Kernels for matrices of a few columns are slow, those for a few long rows are not. In this order
windows of time are in one piece, and a linear map is one product for each time step.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, propagate

__all__ = [
    "conv_rows",
    "filter_rows",
    "from_rows",
    "has_short_rows",
    "linear_rows",
    "pays",
    "to_rows",
]

# Measured: at this width products of either order take the same time.
_WIDEST = 32
# A product with the whole matrix needs no transpose, which outweighs zeros up to here.
_MOST_NODES = 256
# Polynomials of a larger dense matrix are better not kept.
_MOST_DENSE_NODES = 1024
# From so many rows on, sparse products are faster in spite of their transposes.
_MANY_ROWS = 1024


def pays(x: Tensor, in_channels: int, out_channels: int, *weights: Tensor | None) -> bool:
    """Whether a layer is thin, on CPU and in full precision, and no gradient is wanted."""
    if in_channels > _WIDEST or out_channels > _WIDEST or x.device.type != "cpu":
        return False
    if type(x) is not Tensor or not x.numel():
        return False
    if torch.is_grad_enabled() and (
        x.requires_grad or any(w is not None and w.requires_grad for w in weights)
    ):
        return False
    if x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
        return False
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing())  # type: ignore[attr-defined]


def has_short_rows(operator: GraphOperator) -> bool:
    """Whether a constant operator is best applied as a dense matrix here."""
    most = _MOST_DENSE_NODES if operator.is_dense else _MOST_NODES
    return operator.num_nodes <= most and not operator.requires_grad


def to_rows(x: Tensor) -> Tensor:
    """Return sequences [B, T, N, C] as rows [T, C, B * N]."""
    num_batch, num_steps, num_nodes, width = x.shape
    rows = x.permute(1, 3, 0, 2).reshape(num_steps, width, num_batch * num_nodes)
    return rows.contiguous()  # reshape may have made a view


def from_rows(rows: Tensor, num_batch: int) -> Tensor:
    """Return rows [T, C, B * N] as sequences [B, T, N, C]."""
    num_steps, width, _ = rows.shape
    return rows.view(num_steps, width, num_batch, -1).permute(2, 0, 3, 1).contiguous()


def conv_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, residual: int = 0) -> Tensor:
    """Convolve along time, [T, C, L] to [T', C', L]; arguments as in TimeConv."""
    num_steps, width, size = rows.shape
    num_maps, num_taps = weight.size(0), weight.size(2)
    length = num_taps * width
    # Windows overlap in memory; none is copied.
    shape, stride = (num_steps - num_taps + 1, length, size), (width * size, size, 1)
    taps = weight.squeeze(3).transpose(1, 2)  # [C', k, C]
    if residual:
        # The last tap of the first maps gets an identity: no pass over the output is needed.
        taps = _identity(num_maps, num_taps, width, min(residual, width), weight.dtype) + taps
    return linear_rows(rows.as_strided(shape, stride), taps.reshape(num_maps, length), bias)


@lru_cache(64)
def _identity(num_maps: int, num_taps: int, width: int, count: int, dtype: torch.dtype) -> Tensor:
    """Return taps [C', k, C] that give the last step of the first inputs."""
    with torch.inference_mode(False):
        taps = torch.zeros(num_maps, num_taps, width, dtype=dtype)
        taps[:count, -1, :count].fill_diagonal_(1.0)
    return taps


def linear_rows(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return weight [C', C] times each of the rows [T, C, L], plus bias [C']."""
    weight = weight.expand(rows.size(0), -1, -1)
    if bias is None:
        return torch.bmm(weight, rows)
    return torch.baddbmm(bias.unsqueeze(1), weight, rows)


def filter_rows(
    operator: GraphOperator,
    rows: Tensor,
    num_batch: int,
    weight: Tensor,
    bias: Tensor | None,
    first: int,
) -> Tensor:
    r"""Filter as :func:`cheb_filter` does: project, then propagate all orders at once.

    .. math::
        \mathbf{y} = \mathbf{x} \mathbf{W}_0 + \mathbf{b} +
        \left[ T_1(\hat{\mathbf{L}}), T_2(\hat{\mathbf{L}}), \ldots \right]
        \left[ \mathbf{x} \mathbf{W}_1; \mathbf{x} \mathbf{W}_2; \ldots \right]
    """
    num_steps, width, size = rows.shape
    num_terms, _, out_channels = weight.shape
    num_nodes, last = size // num_batch, first + num_terms - 1
    many = num_steps * out_channels * num_batch >= _MANY_ROWS
    if many and first <= 1 and not operator.is_dense:
        maps = weight.transpose(1, 2).reshape(-1, width)  # [K * C', C]
        terms = torch.bmm(maps.expand(num_steps, -1, -1), rows)
        terms = terms.view(num_steps, num_terms, -1, num_nodes)  # [T, K, C' * B, N]
        out = _clenshaw(operator, [*[None] * first, *terms.unbind(1)])
        return _add_bias(out.view(num_steps, out_channels, size), bias)
    if first == 0:  # the polynomial of order 0 is the identity
        out = linear_rows(rows, weight[0].t(), bias)
        if last == 0:
            return out
        out, weight = out.view(-1, num_nodes), weight[1:]
    maps = weight.permute(2, 0, 1).reshape(-1, width)  # [C' * K, C]
    terms = torch.bmm(maps.expand(num_steps, -1, -1), rows)
    terms = terms.view(num_steps * out_channels, -1, num_batch, num_nodes).transpose(1, 2)
    matrix = operator.polynomials(max(first, 1), last)  # [K * N, N]
    terms = terms.reshape(-1, matrix.size(0))  # [T * C' * B, K * N]
    if first == 0:
        return out.addmm_(terms, matrix).view(num_steps, out_channels, size)
    return _add_bias((terms @ matrix).view(num_steps, out_channels, size), bias)


def _clenshaw(operator: GraphOperator, terms: list[Tensor | None]) -> Tensor:
    """Return the sum of T_k(L) x_k over the orders k, for signals [T, C' * B, N], as rows [., N].

    By Clenshaw's recurrence, a product less than with the polynomials themselves.
    """
    after: Tensor | None = None
    last: Tensor | None = None
    for term in terms[:0:-1]:
        assert term is not None
        columns = term.reshape(-1, operator.num_nodes).t()
        if last is None:
            after, last = last, columns.contiguous()
            continue
        total = propagate(last, operator.tensors).mul_(2.0).add_(columns)
        after, last = last, total if after is None else total.sub_(after)
    zero = terms[0]
    out = None if zero is None else zero.reshape(-1, operator.num_nodes)
    if last is not None:
        total = propagate(last, operator.tensors)
        total = total if after is None else total.sub_(after)
        out = total.t().contiguous() if out is None else out.add_(total.t())
    assert out is not None
    return out


def _add_bias(rows: Tensor, bias: Tensor | None) -> Tensor:
    return rows if bias is None else rows.add_(bias.unsqueeze(1))
