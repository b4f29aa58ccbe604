"""What the arguments of a call say about its graph: by name, then by type."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_stkd.graph import Graph
from pyg_stkd.graph.graph import OfGraph

__all__ = [
    "find_edge_index",
    "find_input",
    "has_two_sets",
    "induced",
    "is_edge_index",
    "is_plain",
    "num_sources",
    "usable",
]

_EDGE_NAMES = ("edge_index", "adj_t", "adj", "graph")
# What may look like a graph of nodes and is none: nodes of hyperedges, pairs to be told apart.
_OTHER_NAMES = ("hyperedge_index", "edge_label_index", "x", "edge_attr")


def is_edge_index(value: Any) -> bool:
    """Whether a value is a graph in one of the forms that PyG layers take.

    Example:
        >>> is_edge_index(torch.tensor([[0, 1], [1, 2]])), is_edge_index(torch.ones(2, 2))
        (True, False)
    """
    if type(value) is Tensor and value.layout == torch.strided and value.is_floating_point():
        return False  # as most are
    if isinstance(value, (Graph, OfGraph, SparseTensor)):
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
    edges = bound.get("edge_index")
    if inner is None and type(edges) is Tensor and is_edge_index(edges):
        return edges  # as most layers have it
    others = [inner[name] for name in _OTHER_NAMES if name in inner] if inner else []
    named = (find_input(bound, name) for name in _EDGE_NAMES)
    rest = (value for name, value in bound.items() if name not in _OTHER_NAMES)
    for value in chain(named, rest):
        if is_edge_index(value) and not any(value is other for other in others):
            return value.graph if isinstance(value, OfGraph) else value
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


def is_plain(bound: Mapping[str, Any], value: Tensor) -> bool:
    """Whether a layer was given nothing but tensors, and returned one row for each of its x [N, F].

    So it is with most layers: a quick look, which spares the others.

    Example:
        >>> x, edge_index = torch.ones(5, 2), torch.tensor([[4], [2]])
        >>> is_plain({"x": x, "edge_index": edge_index}, x), is_plain({"x": (x, x)}, x)
        (True, False)
    """
    x = bound.get("x")
    return (
        type(x) is Tensor
        and x.dim() == value.dim() == 2
        and x.size(0) == value.size(0)
        and "adj" not in bound
        and all(
            v is None or (type(v) is Tensor and v.layout == torch.strided) for v in bound.values()
        )
    )


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


def has_two_sets(bound: Mapping[str, Any]) -> bool:
    """Whether a layer was called on two sets of nodes, even if they are as many.

    Example:
        >>> x, edge_index = torch.ones(2, 3), torch.tensor([[1], [0]])
        >>> has_two_sets({"x": (x, torch.zeros(2, 3)), "edge_index": edge_index})
        True
        >>> has_two_sets({"x": (x, x[:2]), "edge_index": edge_index})
        False
    """
    pairs = (value for value in bound.values() if isinstance(value, (tuple, list)))
    for pair in pairs:
        if len(pair) == 2 and all(isinstance(x, Tensor) and x.dim() > 1 for x in pair):
            a, b = pair
            same = a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape)
            if a.is_floating_point() and b.is_floating_point() and not same:
                return find_edge_index(bound) is not None
    return False


def induced(edge_index: Any, rows: Tensor, num_nodes: int | None) -> Tensor:
    """Return the graph among some rows, numbered in their order.

    Example:
        >>> induced(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([2, 0]), 3)
        tensor([[0],
                [1]])
    """
    graph = Graph.of(edge_index, num_nodes)
    edges = graph.edge_index
    place = torch.full((max(graph.size),), -1, device=edges.device)
    place[rows] = torch.arange(rows.numel(), device=edges.device)
    edges = place[edges]  # [2, E]
    return edges[:, (edges >= 0).all(dim=0)]


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
