"""Functions whose channels are known without a trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.labels import Axis, Labels

__all__ = ["Known", "follow_known"]

# Of one tensor, entry by entry; whether zeros stay zeros.
_ENTRYWISE: dict[str, bool] = {
    "relu": True,
    "relu_": True,
    "leaky_relu": True,
    "leaky_relu_": True,
    "elu": True,
    "elu_": True,
    "gelu": True,
    "silu": True,
    "mish": True,
    "tanh": True,
    "tanh_": True,
    "relu6": True,
    "selu": True,
    "abs": True,
    "neg": True,
    "sqrt": True,
    "square": True,
    "sigmoid": False,
    "softplus": False,
    "exp": False,
    "clone": True,
    "contiguous": True,
    "detach": True,
    "dropout": True,
    "float": True,
    "double": True,
}
# Of one tensor, whose dimensions come in another order.
_PERMUTES = ("movedim", "permute", "swapaxes", "t", "transpose")
# Of one tensor added to another at places along a dimension; zeros stay zeros.
_SCATTER = (
    "index_add",
    "index_add_",
    "scatter_add",
    "scatter_add_",
    "scatter_reduce",
    "scatter_reduce_",
)


class Known(NamedTuple):
    """What a known function returned."""

    out: Any


def follow_known(func: Callable[..., Any], args: Any, kwargs: Any, labels: Labels) -> Known | None:
    """Call a known function and label its result; :obj:`None` if it must be tried."""
    if func is F.linear:
        return _linear(args, kwargs, labels)
    if func is F.embedding:
        return _embedding(args, kwargs, labels)
    name = getattr(func, "__name__", "")
    if func in _FUNCTIONS and name in _SCATTER:
        return _scatter(func, args, kwargs, labels)
    if func in _FUNCTIONS and name == "index_select":
        return _index_select(func, args, kwargs, labels)
    if func in _FUNCTIONS and name in _PERMUTES:
        return _permute(func, args, kwargs, labels)
    zero = _ENTRYWISE.get(name)
    if zero is None or func not in _FUNCTIONS:
        return None
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or len(tensors_of([args, kwargs])) != 1:
        return None
    axes = labels.of(x)
    out = func(*args, **kwargs)
    if not isinstance(out, Tensor) or out.shape != x.shape:
        return None
    labels.put(out, {dim: Axis(axis.channels, axis.zero and zero) for dim, axis in axes.items()})
    return Known(out)


def _linear(args: Any, kwargs: Any, labels: Labels) -> Known | None:
    """Rows of the weight become the channels; its columns meet those of the input."""
    values = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, weight, bias = values["input"], values["weight"], values.get("bias")
    ports = labels.ports
    of_x, of_weight = labels.of(x), labels.of(weight)
    last = x.dim() - 1
    if weight.dim() != 2 or (bias is not None and bias.dim() != 1):
        return None
    columns, rows = of_weight.pop(1, None), of_weight.get(0)
    inputs = of_x.pop(last, None)
    if x.size(-1) > 1:
        if columns is None and inputs is not None:
            ports.freeze(inputs.channels)
        elif inputs is None and columns is not None:
            ports.freeze(columns.channels)
        elif inputs is not None and columns is not None:
            if not (inputs.zero or columns.zero):
                return None
            ports.tie(inputs.channels, columns.channels)
    of_bias = None if bias is None else labels.of(bias).get(0)
    if weight.size(0) > 1:
        if rows is None and of_bias is not None:
            ports.freeze(of_bias.channels)
        elif rows is not None and bias is not None:
            ports.tie(rows.channels, of_bias.channels) if of_bias else ports.freeze(rows.channels)
    out = F.linear(x, weight, bias)
    axes = {dim: Axis(axis.channels, False) for dim, axis in of_x.items()}
    if rows is not None and ports.is_free(rows.channels):
        zero = rows.zero and (of_bias is None or of_bias.zero)
        axes[out.dim() - 1] = Axis(rows.channels, zero)
    labels.put(out, axes)
    return Known(out)


def _index_select(func: Callable[..., Any], args: Any, kwargs: Any, labels: Labels) -> Known | None:
    """Channels beside the dimension stay themselves."""
    values = dict(zip(("input", "dim", "index"), args, strict=False)) | kwargs
    if set(values) != {"input", "dim", "index"}:
        return None
    axes = labels.of(values["input"])
    if values["dim"] % values["input"].dim() in axes or labels.of(values["index"]):
        return None
    out = func(*args, **kwargs)
    labels.put(out, axes)
    return Known(out)


def _permute(func: Callable[..., Any], args: Any, kwargs: Any, labels: Labels) -> Known | None:
    """Dimensions move; where to, a tensor tells whose sizes are their numbers."""
    if not args or not isinstance(args[0], Tensor):
        return None
    x, *rest = args
    out = func(x, *rest, **kwargs)
    places = func(torch.empty(tuple(range(x.dim()))), *rest, **kwargs).shape
    axes = labels.of(x)
    labels.put(out, {new: axes[old] for new, old in enumerate(places) if old in axes})
    return Known(out)


def _scatter(func: Callable[..., Any], args: Any, kwargs: Any, labels: Labels) -> Known | None:
    """Channels beside the dimension are added to the same ones."""
    if len(args) < 4 or not isinstance(args[3], Tensor):
        return None
    to, dim, index, source = args[:4]
    of_to, of_source, of_index = labels.of(to), labels.of(source), labels.of(index)
    ports = labels.ports
    if to.dim() != source.dim() or dim % to.dim() in of_to or set(of_to) != set(of_source):
        return None
    if "scatter" in func.__name__ and not all(
        d in of_index and ports.classes(of_index[d].channels)[0] == ports.classes(a.channels)[0]
        for d, a in of_source.items()
    ):
        return None  # what is taken of an index that does not shrink
    axes = {}
    for d, axis in of_to.items():
        if len(axis.channels) != len(of_source[d].channels):
            return None
        axes[d] = Axis(axis.channels, axis.zero and of_source[d].zero)
    for d, axis in axes.items():
        ports.tie(axis.channels, of_source[d].channels)
    out = func(*args, **kwargs)
    labels.put(out, axes)
    return Known(out)


def _embedding(args: Any, kwargs: Any, labels: Labels) -> Known | None:
    """Columns of the table are the channels; its rows are no channels."""
    values = dict(zip(("input", "weight", "padding_idx", "max_norm"), args, strict=False)) | kwargs
    if values.get("max_norm") is not None:
        return None  # a norm over the channels
    axes = labels.of(values["weight"])
    if 0 in axes:
        labels.ports.freeze(axes[0].channels)
    out = F.embedding(*args, **kwargs)
    labels.put(out, {out.dim() - 1: axes[1]} if 1 in axes else {})
    return Known(out)


_FUNCTIONS = {
    function
    for name in (*_ENTRYWISE, *_SCATTER, *_PERMUTES, "index_select")
    # PyG puts functions of its own over some of torch: what they call is asked too.
    for place in (F, torch, torch._C._VariableFunctions, Tensor)
    if (function := getattr(place, name, None)) is not None
}
