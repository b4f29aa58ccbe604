"""Models of PyG Temporal, where that is installed."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import coalesce
from zoo_graphs import CHANNELS, NODES, Model, graph

__all__ = ["TEMPORAL"]


class Step(nn.Module):
    """A recurrent layer on a few steps, and a linear layer, as in PyG Temporal's examples."""

    def __init__(self, layer: nn.Module, hidden: int, states: int = 1) -> None:
        super().__init__()
        self.layer, self.lin, self.states = layer, nn.Linear(hidden, 1), states

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        state: Any = (None,) * self.states
        for step in x.unbind(0):
            out = self.layer(step, edge_index, edge_weight, *state)
            state = out if isinstance(out, tuple) else (out,)
        return self.lin(state[0].relu())


class Once(nn.Module):
    """A layer that takes all steps at once."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer, self.lin = layer, nn.Linear(hidden, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        return self.lin(self.layer(x, edge_index, edge_weight).relu())


class Blocks(nn.Module):
    """Two blocks of STConv."""

    def __init__(self, cls: Any, hidden: int) -> None:
        super().__init__()
        self.a = cls(NODES, CHANNELS, hidden, hidden, 3, 3)
        self.b = cls(NODES, hidden, hidden, hidden, 3, 3)
        self.lin = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        x = self.b(self.a(x, edge_index, edge_weight), edge_index, edge_weight)
        return self.lin(x.relu())


def _steps(*shape: int) -> Any:
    g = graph()
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator), g.edge_index, g.edge_weight


def _simple_steps(*shape: int) -> Any:
    """The same on a graph where each edge is there once, and each node has one in and out."""
    x, edge_index, _ = _steps(*shape)
    ring = torch.stack([torch.arange(NODES), torch.arange(NODES).roll(1)])
    edge_index = coalesce(torch.cat([edge_index, ring], dim=1))
    return x, edge_index, torch.linspace(0.5, 1.5, edge_index.size(1))


def _models() -> list[Model]:
    try:
        nets = importlib.import_module("torch_geometric_temporal.nn.recurrent")
        blocks = importlib.import_module("torch_geometric_temporal.nn.attention")
    except Exception:  # not installed, or not with this PyG
        return []

    def recurrent(name: str, states: int, *args: Any, steps: Any = _steps) -> Model:
        cls = getattr(nets, name)
        return Model(
            name,
            "PyG Temporal",
            lambda h: Step(cls(CHANNELS, h, *args), h, states),
            lambda: steps(3, NODES, CHANNELS),
        )

    return [
        recurrent("DCRNN", 1, 2, steps=_simple_steps),  # by a matrix, where edges are once
        recurrent("GConvGRU", 1, 2),
        recurrent("GConvLSTM", 2, 2),
        recurrent("GCLSTM", 2, 2),
        recurrent("TGCN", 1),
        Model(
            "A3TGCN",
            "PyG Temporal",
            lambda h: Once(nets.A3TGCN(CHANNELS, h, 4), h),
            lambda: _steps(NODES, CHANNELS, 4),
        ),
        Model(
            "A3TGCN2",
            "PyG Temporal",
            lambda h: Once(nets.A3TGCN2(CHANNELS, h, 4, 2), h),
            lambda: _steps(2, NODES, CHANNELS, 4),
        ),
        Model(
            "STConv",
            "PyG Temporal",
            lambda h: Blocks(blocks.STConv, h),
            lambda: _steps(2, 12, NODES, CHANNELS),
        ),
        Model(
            "ASTGCN",
            "PyG Temporal",
            lambda h: blocks.ASTGCN(2, CHANNELS, 3, h, h, 1, 3, 6, NODES),
            lambda: (_steps(2, NODES, CHANNELS, 6)[0], graph().edge_index),
        ),
        Model(
            "MSTGCN",
            "PyG Temporal",
            lambda h: blocks.MSTGCN(2, CHANNELS, 3, h, h, 1, 3, 6),
            lambda: (_steps(2, NODES, CHANNELS, 6)[0], graph().edge_index),
        ),
        Model(
            "MTGNN",
            "PyG Temporal",
            lambda h: blocks.MTGNN(
                True,
                True,
                2,
                NODES,
                [2, 3, 6, 7],
                7,
                0.3,
                5,
                8,
                1,
                h,
                h,
                2 * h,
                2 * h,
                12,
                2,
                3,
                3,
                0.05,
                3,
                True,
            ),
            lambda: (torch.randn(2, 2, NODES, 12), torch.eye(NODES)),
        ),
        Model(
            "AGCRN",
            "PyG Temporal",
            lambda h: Adaptive(nets.AGCRN(NODES, CHANNELS, h, 2, 4), h),
            lambda: (_steps(2, NODES, CHANNELS)[0],),
        ),
    ]


class Adaptive(nn.Module):
    """AGCRN with its node embeddings."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer, self.lin = layer, nn.Linear(hidden, 1)
        self.embedding = nn.Parameter(torch.randn(NODES, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(self.layer(x, self.embedding).relu())


TEMPORAL = _models()
