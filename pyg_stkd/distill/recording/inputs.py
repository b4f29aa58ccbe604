"""What the call of a module says about its graph: arguments by name, then by type."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd.graph import Graph

__all__ = [
    "bind_inputs",
    "find_edge_index",
    "find_input",
    "first_tensor",
    "is_edge_index",
    "num_sources",
    "tensor_version",
    "usable",
]

_EDGE_NAMES = ("edge_index", "adj_t", "adj", "graph")
# What may look like a graph of nodes and is none: nodes of hyperedges, pairs to be told apart.
_OTHER_NAMES = ("hyperedge_index", "edge_label_index", "x", "edge_attr")


def bind_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of one call of a module by the names of its signature.

    Arguments that a signature does not name (``forward(*args)``) are called by their place,
    ``"0"``, ``"1"``, ...; a wrapper, such as a compiled model, has the names of what it wraps.

    Example:
        >>> bind_inputs(nn.Identity(), (1,), {})
        {'input': 1}
    """
    bound: dict[str, Any] = {}
    try:
        arguments = _signature(module).bind(*args, **kwargs)
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


def _signature(module: nn.Module) -> inspect.Signature:
    """Return the signature of a module, through torch.compile, DDP, DataParallel and the like."""
    signature = inspect.signature(module.forward)
    starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
    if isinstance(inner, nn.Module) and all(
        argument.kind in starred for argument in signature.parameters.values()
    ):
        return _signature(inner)
    return signature


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


def find_edge_index(bound: Mapping[str, Any], inner: Mapping[str, Any] | None = None) -> Any | None:
    """Return the graph among bound arguments: by name, else by type, else :obj:`None`.

    What is no graph by its name, such as :obj:`hyperedge_index`, is passed over, as is what a
    layer inside, with the arguments :obj:`inner`, was given under such a name.

    Example:
        >>> edge_index = torch.tensor([[0, 1], [1, 2]])
        >>> find_edge_index({"x": torch.ones(3, 2), "e": edge_index}) is edge_index
        True
    """
    others = [inner[name] for name in _OTHER_NAMES if name in inner] if inner else []
    named = [find_input(bound, name) for name in _EDGE_NAMES]
    rest = [value for name, value in bound.items() if name not in _OTHER_NAMES]
    for value in (*named, *rest):
        if is_edge_index(value) and not any(value is other for other in others):
            return value
    return None


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
        # Not HeteroData: it has one such attribute for each type, and to ask for it makes it.
        if isinstance(value, BaseData) and not isinstance(value, HeteroData) and name in value:
            return value[name]
    return None


def num_sources(bound: Mapping[str, Any]) -> int | None:
    """Return the number of source nodes of a layer called on two sets of nodes, if it was.

    Example:
        >>> x, edge_index = torch.ones(5, 2), torch.tensor([[4], [2]])
        >>> num_sources({"x": (x, x[:3]), "edge_index": edge_index})
        5
    """
    if find_edge_index(bound) is None:
        return None
    x, size = bound.get("x"), bound.get("size")
    if isinstance(size, (tuple, list)) and len(size) == 2 and isinstance(size[0], int):
        return size[0]
    if isinstance(x, (tuple, list)) and len(x) == 2 and isinstance(x[0], Tensor):
        return x[0].size(max(x[0].dim() - 2, 0)) if x[0].dim() > 0 else None
    return None


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor of an output, depth first through tuples, lists and dicts.

    Example:
        >>> first_tensor((torch.tensor(1), (torch.tensor(2), torch.tensor(3)))).item()
        1
    """
    return next(_tensors(output), None)


def tensor_version(value: Tensor | None) -> int:
    """Return the number of in-place operations a tensor has seen, -1 where it is not counted."""
    return -1 if value is None or value.is_inference() else value._version


def usable(value: Any) -> Any:
    """Return a tensor of inference mode as one that training can use, all else as it is.

    Example:
        >>> with torch.inference_mode():
        ...     usable(torch.ones(2)).is_inference()
        False
    """
    if not isinstance(value, Tensor) or not value.is_inference():
        return value
    with torch.inference_mode(False):
        return value.clone()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _tensors(value)
