"""Inference of thin layers on rows [T, C, B * N]: the twins of all layers, and when they may run.

Kernels for matrices of a few columns are slow, those for a few long rows are not, and small models
pay for calls more than for arithmetic. In this order windows of time are in one piece, a linear
map is one product for each time step, and a block copies nothing between its layers.

Everything about rows is in this file, longer than others therefore: no layer computes anything
else with it or without, and a reader of the layers may skip it. :func:`pays` says whether rows are
worth it for tensors of some width, :func:`takes_block` and its like whether a module may be left
out: not with hooks (masks, captures), not where another class took its place, not in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import torch
import torch_geometric.nn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as _hooks

from pyg_stkd.graph import is_transforming
from pyg_stkd.nn.sequence.gates import apply_gate
from pyg_stkd.nn.sequence.operators.graph_operator import GraphOperator, propagate

__all__ = [
    "Role",
    "conv_rows",
    "filter_rows",
    "from_rows",
    "has_short_rows",
    "pays",
    "run_block",
    "run_model",
    "takes_block",
    "takes_model",
    "thin_pays",
    "to_rows",
]


class Role(Enum):
    """What a layer does in a block: a class says so in its own attribute :obj:`thin`."""

    GRAPH = "graph"
    TIME = "time"
    GATED = "gated"
    NORM = "norm"
    BLOCK = "block"
    LINEAR = "linear"
    DROPOUT = "dropout"


_OF_OTHERS = {
    nn.Linear: Role.LINEAR,
    torch_geometric.nn.Linear: Role.LINEAR,
    nn.Dropout: Role.DROPOUT,
}

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
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    return not is_transforming()


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
    weights: Sequence[Tensor],
    bias: Tensor | None,
    first: int,
) -> Tensor:
    r"""Filter as :func:`cheb_filter` does: project, then propagate all orders at once.

    .. math::
        \mathbf{y} = \mathbf{W}_0 \mathbf{x} + \mathbf{b} +
        \left[ T_1(\hat{\mathbf{L}}), T_2(\hat{\mathbf{L}}), \ldots \right]
        \left[ \mathbf{W}_1 \mathbf{x}; \mathbf{W}_2 \mathbf{x}; \ldots \right]
    """
    num_steps, _, size = rows.shape
    num_terms, out_channels = len(weights), weights[0].size(0)
    num_nodes, last = size // num_batch, first + num_terms - 1
    many = num_steps * out_channels * num_batch >= _MANY_ROWS
    if many and first <= 1 and not operator.is_dense:
        maps = torch.cat(list(weights))  # [K * C', C]
        terms = torch.bmm(maps.expand(num_steps, -1, -1), rows)
        terms = terms.view(num_steps, num_terms, -1, num_nodes)  # [T, K, C' * B, N]
        out = _clenshaw(operator, [*[None] * first, *terms.unbind(1)])
        return _add_bias(out.view(num_steps, out_channels, size), bias)
    if first == 0:  # the polynomial of order 0 is the identity
        out = linear_rows(rows, weights[0], bias)
        if last == 0:
            return out
        out, weights = out.view(-1, num_nodes), weights[1:]
    maps = torch.stack(list(weights), dim=1).flatten(0, 1)  # [C' * K, C]
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


def norm_rows(norm: Any, rows: Tensor, num_batch: int) -> Tensor:
    """Normalise rows as NodeLayerNorm does."""
    num_steps, width, size = rows.shape
    x = rows.view(num_steps, width, num_batch, -1).transpose(1, 2)  # [T, B, C, N]
    shape = x.shape[-2:]
    weight, bias = norm._parameters["weight"], norm._parameters["bias"]
    if norm.num_nodes is None:
        weight, bias = weight.unsqueeze(1), bias.unsqueeze(1)
    else:
        norm.check_nodes(x.mT)
        weight, bias = weight.t(), bias.t()
    x = torch.layer_norm(x, shape, weight.expand(shape), bias.expand(shape), norm.eps)
    return x.transpose(1, 2).reshape(num_steps, width, size)  # [T, C, B * N]


def run_temporal(layer: Any, rows: Tensor) -> Tensor:
    """Run a GatedTemporalConv."""
    residual = layer.out_channels if layer.residual else 0
    conv = layer._modules["conv"]._parameters  # direct: attributes of modules are slow
    maps = conv_rows(rows, conv["weight"], conv["bias"], residual)
    return apply_gate(maps, layer.gate, dim=1)


def run_linear(lin: Any, rows: Tensor) -> Tensor:
    """Run a linear layer."""
    return linear_rows(rows, lin._parameters["weight"], lin._parameters["bias"])


def run_block(block: Any, rows: Tensor, num_batch: int, operator: GraphOperator) -> Tensor:
    """Run an STConv."""
    parts = block._modules
    h = run_temporal(parts["temporal1"], rows)
    align, norm, conv = parts.get("align"), parts.get("norm"), parts["conv"]
    if align is not None:
        h = run_linear(align, h)
    elif block.residual and h.size(1) < block.hidden_channels:
        h = F.pad(h, (0, 0, 0, block.hidden_channels - h.size(1)))
    if has_short_rows(operator):
        weights = [lin._parameters["weight"] for lin in conv.maps()]
        out = filter_rows(operator, h, num_batch, weights, conv.bias, conv.first)
    else:
        out = to_rows(conv.filter(from_rows(h, num_batch), operator))
    if block.residual:
        out = out.add_(h)
    h = run_temporal(parts["temporal2"], out.relu_())
    return h if norm is None else norm_rows(norm, h, num_batch)


def run_model(model: Any, x: Tensor, edge_index: Any, edge_weight: Tensor | None) -> Tensor:
    """Run an STGCN on sequences."""
    rows, num_batch, num_nodes = to_rows(x), x.size(0), x.size(2)
    operators: dict[Any, GraphOperator] = {}
    parts = model._modules
    for block in parts["blocks"]._modules.values():
        conv = block._modules["conv"]
        kind = conv.rule()
        if kind not in operators:
            operators[kind] = conv.operator_for(x, edge_index, edge_weight)
        rows = run_block(block, rows, num_batch, operators[kind])
    rows = norm_rows(parts["head_norm"], run_temporal(parts["head_conv"], rows), num_batch)
    rows = run_linear(parts["lin2"], run_linear(parts["lin1"], rows).relu_())  # [1, C', B * N]
    return rows.view(-1, num_batch, num_nodes).transpose(0, 1).contiguous()  # [B, C', N]


# Whether they may run -----------------------------------------------------------------------------


def thin_pays(x: Tensor, in_channels: int, widest: int) -> bool:
    """Whether rows pay for layers up to this width; not with gradients or hooks on all modules."""
    return (
        pays(x, in_channels, widest)
        and not torch.is_grad_enabled()
        and not _hooks._global_forward_hooks
        and not _hooks._global_forward_pre_hooks
    )


def is_plain(module: nn.Module | None, role: Role) -> bool:
    """Whether a module is :obj:`None` or a layer of that role with nothing hooked to it."""
    if module is None:
        return True
    kind, state = type(module), module.__dict__
    if kind not in _OF_OTHERS:
        if kind.__dict__.get("thin") is not role:
            return False
    elif _OF_OTHERS[kind] is not role:
        return False
    return not (state["_forward_hooks"] or state["_forward_pre_hooks"] or "forward" in state)


def takes_temporal(layer: Any) -> bool:
    """Whether a temporal convolution may be run by its twin."""
    if not is_plain(layer, Role.GATED):
        return False
    parts = layer._modules
    plain = parts.get("align") is None and layer.padding == "valid"
    return plain and is_plain(parts["conv"], Role.TIME)


def takes_block(block: nn.Module) -> bool:
    """Whether an STConv may be run by its twin."""
    if not is_plain(block, Role.BLOCK):
        return False
    parts: dict[str, Any] = block._modules  # direct: attributes of modules are slow
    conv, dropout = parts["conv"], parts["dropout"]
    if not (is_plain(conv, Role.GRAPH) and conv.is_own()):
        return False
    for lin in conv.maps():  # loops without generators: small models ask this often
        if not is_plain(lin, Role.LINEAR):
            return False
    return (
        is_plain(parts.get("align"), Role.LINEAR)
        and is_plain(parts.get("norm"), Role.NORM)
        and _is_idle(dropout)
        and takes_temporal(parts["temporal1"])
        and takes_temporal(parts["temporal2"])
    )


def takes_model(model: Any, x: Tensor) -> bool:
    """Whether an STGCN may be run by its twin."""
    widest = max(*map(max, model.hidden_channels), *model.head_channels, model.out_channels)
    if not thin_pays(x, model.in_channels, widest):
        return False
    parts = model._modules
    for block in parts["blocks"]._modules.values():
        if not takes_block(block):
            return False
    return (
        takes_temporal(parts["head_conv"])
        and is_plain(parts["head_norm"], Role.NORM)
        and is_plain(parts["lin1"], Role.LINEAR)
        and is_plain(parts["lin2"], Role.LINEAR)
        and _is_idle(parts["dropout"])
    )


def _is_idle(dropout: nn.Module | None) -> bool:
    return dropout is not None and not dropout.training and is_plain(dropout, Role.DROPOUT)
