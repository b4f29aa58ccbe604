"""Inference in memory order [B, C, T, N]: thin layers become products with long rows of nodes.

Sequences keep their shape [B, T, N, C]; only their strides tell. Kernels for matrices of a few
columns are slow, those for a few long rows are not, and calls are few: small models pay for
calls more than for arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_stkd.nn.conv.graph_operator import GraphOperator

__all__ = ["conv_nodes_last", "filter_nodes_last", "has_short_rows", "pays"]

# Measured: at this width products of either order take the same time.
_WIDEST = 32
# A product with the whole matrix needs no transpose, which outweighs zeros up to here.
_MOST_NODES = 256


def pays(x: Tensor, in_channels: int, out_channels: int, *weights: Tensor | None) -> bool:
    """Whether a layer is thin, on CPU and in full precision, and no gradient is wanted."""
    if max(in_channels, out_channels) > _WIDEST or x.device.type != "cpu":
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
    small = operator.is_dense or operator.num_nodes <= _MOST_NODES
    return small and not operator.requires_grad


def conv_nodes_last(x: Tensor, weight: Tensor, bias: Tensor | None, residual: int = 0) -> Tensor:
    """Convolve [B, T, N, C] along time; returns maps [B, C', T', N]. Arguments as in TimeConv."""
    num_batch, num_steps, num_nodes, width = x.shape
    num_taps = weight.size(2)
    size = num_steps - num_taps + 1
    b, t, n, c = x.stride()
    rows = x.as_strided((num_batch, width, num_taps, size, num_nodes), (b, c, t, t, n))
    rows = rows.reshape(num_batch, width * num_taps, size * num_nodes)
    weight = weight.flatten(1)  # [C', C * k]
    if residual:
        # The last tap of the first maps gets an identity: no pass over the output is needed.
        weight = weight.clone(memory_format=torch.contiguous_format)
        count, step = min(residual, width), width * num_taps + num_taps
        weight.as_strided((count,), (step,), num_taps - 1).add_(1.0)
    if bias is None:
        maps = torch.bmm(weight.expand(num_batch, -1, -1), rows)
    elif num_batch == 1:
        maps = torch.addmm(bias.unsqueeze(1), weight, rows[0])
    else:
        maps = torch.bmm(weight.expand(num_batch, -1, -1), rows).add_(bias.unsqueeze(1))
    return maps.view(num_batch, weight.size(0), size, num_nodes)


def filter_nodes_last(
    operator: GraphOperator, x: Tensor, weight: Tensor, bias: Tensor | None, first: int
) -> Tensor:
    r"""Filter as :func:`cheb_filter` does, by Clenshaw's recurrence: project, then propagate.

    .. math::
        \mathbf{b}_k = \mathbf{x} \mathbf{W}_k + 2 \hat{\mathbf{L}} \mathbf{b}_{k+1}
        - \mathbf{b}_{k+2}, \qquad
        \mathbf{y} = \mathbf{x} \mathbf{W}_0 + \hat{\mathbf{L}} \mathbf{b}_1 - \mathbf{b}_2
    """
    num_batch, num_steps, num_nodes, width = x.shape
    num_terms, _, out_channels = weight.shape
    rows = x.permute(0, 3, 1, 2).reshape(num_batch, width, num_steps * num_nodes)
    maps = weight.transpose(1, 2).reshape(-1, width).expand(num_batch, -1, -1)  # [B, K * C', C]
    terms = torch.bmm(maps, rows)  # [B, K * C', T * N]
    terms = terms.view(num_batch, num_terms, out_channels * num_steps, num_nodes)
    matrix = operator.matrix().t().expand(num_batch, -1, -1)
    after, term = None, terms[:, -1]
    for k in reversed(range(first + num_terms - 1)):
        own = terms[:, k - first] if k >= first else torch.zeros_like(term)
        own.baddbmm_(term, matrix, alpha=2.0 if k else 1.0)
        after, term = term, own if after is None else own.sub_(after)
    out = term.view(num_batch, out_channels, num_steps, num_nodes)
    if bias is not None:
        out.add_(bias.view(-1, 1, 1))
    return out.permute(0, 2, 3, 1)
