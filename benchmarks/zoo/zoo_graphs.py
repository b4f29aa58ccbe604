"""Small inputs for the models of the zoo, and what an entry of it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CHANNELS", "CLASSES", "EDGES", "HIDDEN", "NODES", "Model", "graph"]

NODES, EDGES, CHANNELS, CLASSES, HIDDEN = 24, 72, 8, 4, 16


@dataclass(frozen=True)
class Model:
    """A model of the zoo.

    Args:
        name: Its name in the table.
        family: Where it is from.
        build: Makes it with a number of hidden channels.
        example: Makes its inputs, alike each time.
        call: How it is called, where it has no forward.
    """

    name: str
    family: str
    build: Callable[[int], nn.Module]
    example: Callable[[], Any]
    call: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Graph:
    """Features, edges and whatever else layers take."""

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    edge_weight: Tensor
    edge_type: Tensor
    batch: Tensor
    pos: Tensor
    z: Tensor


def graph(nodes: int = NODES, edges: int = EDGES) -> Graph:
    """Two graphs in a batch, without edges between them."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    half = nodes // 2
    ends = torch.randint(half, (2, edges), generator=generator)
    ends += half * (torch.arange(edges) % 2)
    return Graph(
        x=normal(nodes, CHANNELS),
        edge_index=ends,
        edge_attr=normal(edges, 3),
        edge_weight=normal(edges).abs() + 0.1,
        edge_type=torch.randint(3, (edges,), generator=generator),
        batch=torch.arange(nodes) // half,
        pos=normal(nodes, 3),
        z=torch.randint(1, 9, (nodes,), generator=generator),
    )
