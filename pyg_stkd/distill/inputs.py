"""What the call of a module says about its graph: arguments by name, then by type."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd.graph import Graph

__all__ = ["bind_inputs", "find_edge_index", "find_input", "first_tensor", "is_edge_index"]

_EDGE_NAMES = ("edge_index", "adj_t", "adj", "graph")


def bind_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of one call of a module by the names of its signature.

    Arguments that a signature does not name (``forward(*args)``) are called by their place,
    ``"0"``, ``"1"``, ...

    Example:
        >>> bind_inputs(nn.Identity(), (1,), {})
        {'input': 1}
    """
    bound: dict[str, Any] = {}
    try:
        arguments = inspect.signature(module.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):  # no signature to be had: names are lost, values are not
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    for name, value in arguments.arguments.items():
        kind = arguments.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            start = len(bound)
            bound.update({str(start + i): item for i, item in enumerate(value)})
        elif kind is inspect.Parameter.VAR_KEYWORD:
            bound.update(value)
        else:
            bound[name] = value
    return bound


def is_edge_index(value: Any) -> bool:
    """Whether a value is a graph in one of the forms that PyG layers take.

    Example:
        >>> is_edge_index(torch.tensor([[0, 1], [1, 2]])), is_edge_index(torch.ones(2, 2))
        (True, False)
    """
    if isinstance(value, (Graph, SparseTensor)):
        return True
    if not isinstance(value, Tensor):
        return False
    if is_torch_sparse_tensor(value):
        return value.dim() == 2
    is_index = value.dtype in (torch.int64, torch.int32)
    return is_index and value.dim() == 2 and value.size(0) == 2


def find_edge_index(bound: Mapping[str, Any]) -> Any | None:
    """Return the graph among bound arguments: by name, else by type, else :obj:`None`.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [1, 2]])
        >>> find_edge_index({"x": torch.ones(3, 2), "e": edge_index}) is edge_index
        True
    """
    for name in _EDGE_NAMES:
        value = find_input(bound, name)
        if is_edge_index(value):
            return value
    return next((value for value in bound.values() if is_edge_index(value)), None)


def find_input(bound: Mapping[str, Any], name: str) -> Any | None:
    """Return the argument of that name, or that attribute of a PyG :obj:`Data` argument.

    Example:
        >>> find_input({"batch": 3}, "batch")
        3
    """
    value = bound.get(name)
    if value is not None and not isinstance(value, BaseData):  # model(batch): Data named 'batch'
        return value
    for value in bound.values():
        if isinstance(value, BaseData) and name in value:
            return value[name]
    return None


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor of an output, depth first through tuples, lists and dicts.

    Example:
        >>> first_tensor((torch.tensor(1), (torch.tensor(2), torch.tensor(3)))).item()
        1
    """
    return next(_tensors(output), None)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
