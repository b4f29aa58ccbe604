"""How many nodes, edges and the like the arguments of a call say that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data.data import BaseData

from pyg_stkd.distill.recording.reading.inputs import find_edge_index, find_input, is_edge_index
from pyg_stkd.distill.recording.reading.parts import tensors_of
from pyg_stkd.graph import Graph
from pyg_stkd.graph.graph import OfGraph

__all__ = ["has_graph", "node_counts", "nodes_of", "sizes_of"]


def node_counts(bound: Mapping[str, Any]) -> set[int]:
    """Return how many nodes a call with a graph may be on, nothing where it does not say.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
        >>> node_counts({"x": torch.ones(3, 2), "edge_index": edge_index})
        {3}
    """
    exact = set(_exact(bound))
    if exact:
        return exact
    x = find_input(bound, "x")
    if isinstance(x, (tuple, list)) and x:
        x = x[-1] if isinstance(x[-1], Tensor) else x[0]
    if isinstance(x, Tensor) and x.layout == torch.strided and x.dim() > 0:
        return {x.size(0)} if x.dim() <= 2 else set(x.shape)
    batch = find_input(bound, "batch")
    if isinstance(batch, Tensor) and batch.dim() == 1:
        return {batch.numel()}
    edges = find_edge_index(bound)
    of_edges = {edges.size(1)} if isinstance(edges, Tensor) and edges.dim() == 2 else set()
    return nodes_of(bound) - of_edges


def has_graph(context: Mapping[str, Any]) -> bool:
    """Tell whether a model was given a graph, as edges or as a dense matrix."""
    return find_edge_index(context) is not None or _dense(context) is not None


def _dense(context: Mapping[str, Any]) -> Tensor | None:
    """Return a dense adjacency matrix among the arguments, one for each graph or for all."""
    adj = find_input(context, "adj")
    if isinstance(adj, Tensor) and adj.layout == torch.strided and adj.dim() in (2, 3):
        return adj if adj.size(-1) == adj.size(-2) and adj.is_floating_point() else None
    return None


def sizes_of(context: Mapping[str, Any], axes: bool) -> set[int]:
    """Return how many nodes, edges and the like there are; of several axes, how many nodes."""
    nodes = set(_exact(context))
    if not axes or not nodes:
        edges = find_edge_index(context)
        least = 1
        if axes and type(edges) is Tensor and edges.layout == torch.strided and edges.numel():
            least = int(edges.max()) + 1  # fewer nodes there cannot be
        for value in tensors_of(dict(context)):
            if value.layout != torch.strided or value.dim() == 0:
                continue
            if axes and value.is_floating_point():
                sizes = value.shape if value.dim() > 2 else value.shape[:1]
                nodes.update(size for size in sizes if size >= least)
            elif not axes:
                index = not value.is_floating_point() and value.dim() == 2 and value.size(0) == 2
                nodes.add(value.size(1) if index else value.size(0))
                nodes.update(value.shape[-2:-1])  # [B, N, C] and [B, T, N, C]
    return nodes - {0}


def nodes_of(context: Mapping[str, Any]) -> set[int]:
    """Return how many nodes there may be: as a graph says, or features [*, N, C] do."""
    given = (x for x in tensors_of(dict(context)) if x.layout == torch.strided)
    found = {x.size(-2) for x in given if x.is_floating_point() and x.dim() > 1}
    return {*_exact(context), *found} - {0, 1}


def _exact(context: Mapping[str, Any]) -> Iterator[int]:
    for value in context.values():
        if isinstance(value, OfGraph):
            value = value.graph
        if isinstance(value, Graph):
            yield value.num_nodes
        elif is_edge_index(value) and getattr(value, "layout", None) != torch.strided:  # a matrix
            yield value.size(0)
        elif isinstance(value, BaseData):
            with_type = value.to_dict()
            yield from (store["num_nodes"] for store in with_type.values() if _counts(store))
            if "num_nodes" in with_type:
                yield with_type["num_nodes"]
    adj = _dense(context)
    if adj is not None:
        yield adj.size(-1)


def _counts(store: Any) -> bool:
    return isinstance(store, Mapping) and isinstance(store.get("num_nodes"), int)
