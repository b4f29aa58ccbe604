"""Nodes that pools of a model chose, and which of them the rows of a layer behind them are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import SortAggregation
from torch_geometric.nn.pool import ClusterPooling, EdgePooling, MemPooling
from torch_geometric.nn.pool.select import Select, SelectOutput

__all__ = ["Choice", "choice_of", "chooses", "common_rows", "rows_of"]

_MERGERS = (ClusterPooling, EdgePooling, MemPooling, SortAggregation)


class Choice(NamedTuple):
    """What a pool took: of how many nodes which ones, None where it merged them."""

    sources: int
    nodes: Tensor | None


def chooses(module: nn.Module) -> bool:
    """Whether a module decides which nodes go on.

    Example:
        >>> from torch_geometric.nn import TopKPooling
        >>> chooses(TopKPooling(8).select), chooses(nn.Linear(8, 8))
        (True, False)
    """
    return isinstance(module, (Select, *_MERGERS))


def choice_of(output: Any) -> Choice:
    """Return what a pool took, given what it returned."""
    if not isinstance(output, SelectOutput):
        return Choice(-1, None)
    nodes, cluster = output.node_index, output.cluster_index
    if nodes.numel() != output.num_clusters:
        return Choice(output.num_nodes, None)
    return Choice(output.num_nodes, torch.empty_like(nodes).scatter_(0, cluster, nodes))


def rows_of(choices: Iterable[Choice], rows: int) -> Tensor | None:
    """Return which of the model's nodes the rows of a layer are, None where they are all of them.

    Raises:
        LookupError: If that is not known.

    Example:
        >>> chosen = [Choice(5, torch.tensor([4, 2, 0])), Choice(3, torch.tensor([1]))]
        >>> rows_of(chosen, 3), rows_of(chosen, 1), rows_of(chosen, 5)
        (tensor([4, 2, 0]), tensor([2]), None)
    """
    by_size: dict[int, Tensor | None] = {}
    twice: set[int] = set()
    for choice in choices:
        known = by_size.setdefault(choice.sources, None) if not by_size else None
        if choice.nodes is None or choice.sources not in by_size:
            raise LookupError
        known = by_size[choice.sources]
        nodes = choice.nodes if known is None else known.index_select(0, choice.nodes)
        twice.update({nodes.numel()} & set(by_size))  # a pool that keeps all still sorts them
        by_size[nodes.numel()] = nodes
    if rows in twice or rows not in by_size:
        raise LookupError
    return by_size[rows]


def common_rows(ours: Tensor | None, theirs: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the nodes that both sides have, and their rows on either side; None if both have all
    nodes, in order.

    Example:
        >>> common_rows(torch.tensor([4, 2, 0]), torch.tensor([0, 1, 4]))
        (tensor([0, 4]), tensor([2, 0]), tensor([0, 2]))
    """
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:  # one side has all nodes, in order
        nodes = (theirs if ours is None else ours).sort()[0]  # type: ignore[union-attr]
        of_ours = nodes if ours is None else ours.argsort()
        of_theirs = nodes if theirs is None else theirs.argsort()
        return nodes, of_ours, of_theirs
    s, at_s = ours.sort()
    t, at_t = theirs.sort()
    both = torch.isin(s, t, assume_unique=True), torch.isin(t, s, assume_unique=True)
    return s[both[0]], at_s[both[0]], at_t[both[1]]
