"""What arguments must be: one text and one exception for each question.

Every check takes the name of the argument first and returns the value where it makes a plain one
of it. What is of the wrong kind raises :obj:`TypeError`, what is of the right kind and has the
wrong value :obj:`ValueError`, both saying ``'name' must ... (got ...)``. An index that is out of
range raises :obj:`IndexError`, as in torch. NumPy's numbers count as numbers; bools do not.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "choice",
    "count",
    "dense",
    "features",
    "floating",
    "instance",
    "node_index",
    "nodes",
    "number",
    "sequence",
]

T = TypeVar("T")

_COMPUTED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_BOUNDS = {
    "at least": operator.ge,
    "above": operator.gt,
    "at most": operator.le,
    "below": operator.lt,
}


def choice(name: str, value: T, options: Iterable[Any]) -> T:
    """Return a value that is one of a few.

    Raises:
        ValueError: If it is none of them.

    Example:
        >>> choice("gate", "elu", ("glu", None))
        Traceback (most recent call last):
        ValueError: 'gate' must be one of 'glu', None (got 'elu')
    """
    options = tuple(options)
    for option in options:
        if value is option:
            return value
    if any(type(value) is type(x) and bool(value == x) for x in options):
        return value
    few = "one of " * (len(options) > 1) + ", ".join(map(repr, options))
    raise ValueError(f"'{name}' must be {few} (got {_shown(value)})")


def count(name: str, value: Any, least: int | None = 1) -> int:
    """Return an integer that is not below the least, if there is one.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is below :obj:`least`.

    Example:
        >>> count("heads", 0)
        Traceback (most recent call last):
        ValueError: 'heads' must be at least 1 (got 0)
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"'{name}' must be an integer (got {_shown(value)})")
    if least is not None and value < least:
        raise ValueError(f"'{name}' must be at least {least} (got {value})")
    return operator.index(value)


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> float:
    """Return a number within bounds, which :obj:`above` and :obj:`below` leave out.

    Raises:
        TypeError: If it is no real number.
        ValueError: If it is out of bounds, NaN, or (as :obj:`finite` says) infinite.

    Example:
        >>> number("dropout", 1.5, least=0, most=1)
        Traceback (most recent call last):
        ValueError: 'dropout' must be at least 0 and at most 1 (got 1.5)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"'{name}' must be a number (got {_shown(value)})")
    given = {"at least": least, "above": above, "at most": most, "below": below}
    bounds = {rule: bound for rule, bound in given.items() if bound is not None}
    try:
        size = abs(float(value))
    except OverflowError:  # an integer that no float can be
        size = math.inf
    sound = size < math.inf or (size == math.inf and not finite)
    if not sound or not all(_BOUNDS[rule](value, bound) for rule, bound in bounds.items()):
        said = finite and len(bounds) < 2  # two bounds say it
        rules = ["finite"] * said + [f"{rule} {bound}" for rule, bound in bounds.items()]
        raise ValueError(f"'{name}' must be {' and '.join(rules)} (got {value})")
    # Not a union of types, which torch 2.6 does not compile.
    return value if isinstance(value, (int, float)) else float(value)


def instance(name: str, value: Any, kind: type) -> None:
    """Raise unless a value is an instance of a class.

    Raises:
        TypeError: If it is not.

    Example:
        >>> instance("model", "gat", torch.nn.Module)
        Traceback (most recent call last):
        TypeError: 'model' must be a Module (got 'gat')
    """
    if not isinstance(value, kind):
        a = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"'{name}' must be {a} {kind.__name__} (got {_shown(value)})")


def floating(name: str, value: Any) -> None:
    """Raise unless a value is a tensor of real floating point numbers.

    Raises:
        TypeError: If it is not.

    Example:
        >>> floating("x", torch.ones(2, dtype=torch.long))
        Traceback (most recent call last):
        TypeError: 'x' must be a tensor of real floating point numbers (got torch.int64)
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"'{name}' must be a tensor of real floating point numbers (got {kind})")


def dense(name: str, value: Any) -> None:
    """Raise unless a value is a plain tensor of numbers that torch computes with.

    Raises:
        TypeError: If it is none of real floating point numbers, or of 8 bits each, or sparse,
            nested or of another layout.

    Example:
        >>> dense("z", torch.eye(2).to_sparse())
        Traceback (most recent call last):
        TypeError: 'z' must be a dense tensor of 16 bits a number or more (got torch.float32 in
        torch.sparse_coo)
    """
    floating(name, value)
    if value.layout is not torch.strided or value.is_nested or value.dtype not in _COMPUTED:
        layout = "a nested tensor" if value.is_nested else value.layout
        raise TypeError(
            f"'{name}' must be a dense tensor of 16 bits a number or more "
            f"(got {value.dtype} in {layout})"
        )


def features(name: str, value: Any) -> None:
    """Raise unless a value holds features [N, F] of nodes.

    Raises:
        TypeError: If it is no dense tensor of real floating point numbers.
        ValueError: If it has not two axes.

    Example:
        >>> features("z", torch.ones(2))
        Traceback (most recent call last):
        ValueError: 'z' must have shape [N, F] (got [2])
    """
    dense(name, value)
    if value.dim() != 2:
        raise ValueError(f"'{name}' must have shape [N, F] (got {list(value.shape)})")


def sequence(name: str, value: Any, steps: int = 0, channels: int | None = None) -> None:
    """Raise unless a value is a sequence [B, T, N, C] of enough time steps.

    Raises:
        TypeError: If it is no dense tensor of real floating point numbers.
        ValueError: If it has other axes, fewer than :obj:`steps` steps or not
            :obj:`channels` channels.

    Example:
        >>> sequence("x", torch.ones(1, 3, 12, 5), channels=3)
        Traceback (most recent call last):
        ValueError: 'x' must have shape [B, T, N, C] (batch, time, nodes, channels) with C=3 last
        (got [1, 3, 12, 5]; the channels seem to be on axis 1)
    """
    dense(name, value)
    order = "must have shape [B, T, N, C] (batch, time, nodes, channels)"
    if value.dim() != 4:
        raise ValueError(f"'{name}' {order} (got {list(value.shape)})")
    if value.size(1) < steps:
        raise ValueError(
            f"'{name}' [B, T, N, C] must have at least {steps} time steps (got {value.size(1)})"
        )
    if channels is not None and value.size(-1) != channels:
        moved = "; the channels seem to be on axis 1" if value.size(1) == channels else ""
        got = f"{list(value.shape)}{moved}"
        raise ValueError(f"'{name}' {order} with C={channels} last (got {got})")


def nodes(name: str, value: Any, num_nodes: int | None = None, of: str = "nodes") -> None:
    """Raise unless a value chooses nodes: by their indices, or by a mask of all.

    Under :func:`torch.compile` what depends on values is left to torch.

    Args:
        name (str): The name of the argument.
        value (Tensor): Indices [K] or a boolean mask [N].
        num_nodes (int, optional): How many nodes there are, if that is known.
            (default: :obj:`None`)
        of (str): What there are so many of, for the text. (default: :obj:`"nodes"`)

    Raises:
        TypeError: If it holds neither integers nor bools.
        ValueError: If it has not one axis, chooses nobody, or is a mask of another length.
        IndexError: If an index is out of range.

    Example:
        >>> nodes("nodes", torch.tensor([True, False]), num_nodes=3)
        Traceback (most recent call last):
        ValueError: 'nodes' as a mask must have one entry for each of the 3 nodes (got 2)
    """
    kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
    if kind not in (torch.bool, torch.int32, torch.int64):
        raise TypeError(f"'{name}' must be a tensor of indices or a boolean mask (got {kind})")
    if value.dim() != 1:
        raise ValueError(f"'{name}' must have one axis (got shape {list(value.shape)})")
    is_mask = value.dtype == torch.bool
    if is_mask and num_nodes is not None and value.numel() != num_nodes:
        raise ValueError(
            f"'{name}' as a mask must have one entry for each of the {num_nodes} {of} "
            f"(got {value.numel()})"
        )
    values_seen = not torch.compiler.is_compiling()
    nobody = value.numel() == 0 or (is_mask and values_seen and not value.any())
    if nobody and num_nodes != 0:  # all nodes of an empty graph are none
        raise ValueError(f"'{name}' must choose at least one node (got none)")
    if not (nobody or is_mask) and values_seen:
        low, high = (int(bound) for bound in value.aminmax())
        if low < 0:
            raise IndexError(f"'{name}' must not hold negative indices (got {low})")
        if num_nodes is not None and high >= num_nodes:
            raise IndexError(f"'{name}' must be below the {num_nodes} {of} (got {high})")


def node_index(name: str, value: Any, num_nodes: int, of: str = "nodes") -> Tensor:
    """Return the indices of chosen nodes, given as such or as a mask, checked by :func:`nodes`.

    Example:
        >>> node_index("nodes", torch.tensor([False, True]), num_nodes=2)
        tensor([1])
    """
    nodes(name, value, num_nodes, of)
    return value.nonzero().view(-1) if value.dtype == torch.bool else value


def _shown(value: Any) -> str:
    """Return a value in few words: what has many parts by its class, also in a tuple or list."""
    if type(value) in (tuple, list) and any(isinstance(part, Tensor) for part in value):
        parts = ", ".join(_shown(part) for part in value)
        return f"{type(value).__name__} of {parts}"
    many = isinstance(value, (Tensor, nn.Module)) or hasattr(value, "__array__")
    return type(value).__name__ if many else repr(value)
