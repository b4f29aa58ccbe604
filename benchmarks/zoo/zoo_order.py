"""The inputs of a model of the zoo with its nodes in another order, and what becomes of outputs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data.data import BaseData
from zoo_graphs import EDGES, NODES

from pyg_stkd.distill.recording.reading.parts import map_tensors, tensors_of
from pyg_stkd.prune.structure.example import Example

__all__ = ["Order"]

# Numbers of rows that are no nodes: edges as given, those of signs and of meshes, graphs.
KNOWN = {EDGES, 40, EDGES - 40, 4 * NODES, 1, 2, 4}


class Order:
    """Nodes in another order within their graphs, so that a batch vector stays sorted.

    Args:
        given: The inputs.

    Attributes:
        example: The same inputs in that order.
        tolerance: By how much values may differ, relative to their size.
        why: Why no order was found that a model does not see, if so.
    """

    def __init__(self, given: Example) -> None:
        self.given = given
        tensors = list(tensors_of(given.inputs))
        sizes = {size for x in tensors for size in x.shape}
        sizes |= {NODES} if any(map(_is_edges, tensors)) else set()
        self.nodes = next((n for n in (NODES, NODES // 2) if n in sizes), 0)
        double = any(x.dtype == torch.float64 for x in tensors)
        self.tolerance = 1e-7 if double else 1e-3
        half, generator = self.nodes // 2, torch.Generator().manual_seed(0)
        halves = [torch.randperm(half, generator=generator) for _ in range(2)]
        self.perm = torch.cat([halves[0], halves[1] + half])
        self.place = torch.empty_like(self.perm)  # where each node has gone
        self.place[self.perm] = torch.arange(self.nodes)
        self.example = Example(_mapped(given.inputs, self._moved), given.call)
        self.why = "" if self.nodes else "its inputs have no axis of nodes"

    @torch.no_grad()
    def find(self, *models: nn.Module) -> tuple[nn.Module, ...] | None:
        """Return the models, with weights of each node moved if need be, or None if they see it."""
        if not self.nodes:
            return None
        for model in models:  # some vary by themselves, such as with the start of an eigensolver
            once, twice = (_run(model, self.given) for _ in range(2))
            gaps = [float((x - y).abs().max()) for x, y in zip(once, twice, strict=True) if len(x)]
            self.tolerance = 1e-4 if any(gaps) else self.tolerance
        moved = tuple(self._with_weights(model) for model in models)
        for found in (models, moved):
            if all(map(self._blind, models, found)):
                return found
        self.why = "it sees an order of its nodes itself"
        return None

    def kind(self, a: Any, b: Any) -> str:
        """Return what the rows of an output are, given it before and in the other order."""
        kinds = set()
        for x, y in zip(tensors_of(a), tensors_of(b), strict=True):
            if x.is_floating_point() and x.dim() > 0:
                kinds.add(self._kind(x, y))
        return next(k for k in ("unknown", "stays", "nodes", "none") if k in kinds or k == "none")

    def _kind(self, x: Tensor, y: Tensor) -> str:
        if x.shape != y.shape:
            return "unknown"
        if any(self._close(moved, y) for moved in self._ways(x)):
            return "nodes"
        rows = x.size(max(x.dim() - 2, 0))
        return "stays" if self._close(x, y) and (rows in KNOWN or x.dim() > 2) else "unknown"

    def _blind(self, model: nn.Module, other: nn.Module) -> bool:
        """Whether a model says the same in the other order: of nodes in it, of others as before."""
        outputs = _run(model, self.given), _run(other, self.example)
        return all(
            x.shape == y.shape and any(self._close(z, y) for z in chain([x], self._ways(x)))
            for x, y in zip(*outputs, strict=True)
        )

    def _with_weights(self, model: nn.Module) -> nn.Module:
        other = copy.deepcopy(model)
        for x in chain(other.parameters(), other.buffers()):
            if x.is_floating_point():
                x.data = self._moved(x.data)
        return other

    def _moved(self, x: Tensor) -> Tensor:
        if _is_edges(x):
            return self.place[x]
        if x.layout == torch.sparse_csr:
            indices = self.place[x.to_sparse_coo().indices()]
            return torch.sparse_coo_tensor(indices, x.values(), x.shape).to_sparse_csr()
        for axis in [i for i, size in enumerate(x.shape) if size == self.nodes]:
            x = x.index_select(axis, self.perm)
        return x

    def _ways(self, x: Tensor) -> Iterator[Tensor]:
        """Yield a tensor in the other order, for each way its axes may hold nodes."""
        yield self._moved(x)
        half = self.nodes // 2
        if x.dim() > 1 and x.size(0) == 2 and half in x.shape[1:]:  # a dense batch of both graphs
            axis = list(x.shape[1:]).index(half)
            perms = (self.perm[:half], self.perm[half:] - half)
            yield torch.stack([y.index_select(axis, p) for y, p in zip(x, perms, strict=True)])
        for axis, size in enumerate(x.shape):
            if size % self.nodes == 0 and size > 0:
                several = size // self.nodes
                yield x.unflatten(axis, (several, -1)).index_select(axis + 1, self.perm).view_as(x)
                yield x.unflatten(axis, (-1, several)).index_select(axis, self.perm).view_as(x)
            if size > self.nodes:  # edges, and behind them a self-loop of each node
                rest = torch.arange(size - self.nodes)
                yield x.index_select(axis, torch.cat([rest, self.perm + size - self.nodes]))

    def _close(self, x: Tensor, y: Tensor) -> bool:
        if not x.is_floating_point():
            return True
        scale = max(1.0, float(x.abs().max())) if x.numel() else 1.0
        return torch.allclose(x, y, rtol=0.0, atol=self.tolerance * scale, equal_nan=True)


def _run(model: nn.Module, example: Example) -> list[Tensor]:
    torch.manual_seed(2)
    return [x for x in tensors_of(example.run(model)) if x.is_floating_point()]


def _is_edges(x: Tensor) -> bool:
    return x.dtype == torch.int64 and x.dim() == 2 and x.size(0) == 2


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, BaseData):
        return copy.copy(value).apply(change)
    return map_tensors(change, value)
