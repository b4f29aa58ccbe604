"""Layers of PyG that are called in ways of their own: signs, types, dicts, meshes, sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor, nn
from zoo_graphs import CHANNELS, CLASSES, NODES, Model, graph
from zoo_own import HAN, Hetero, OnHeteroData, hetero_data, hetero_dicts

__all__ = ["SPECIAL"]

TYPES = torch.arange(NODES) % 3


class Around(nn.Module):
    """A layer of some inputs between two linear ones; what it returns first goes on."""

    def __init__(self, layer: nn.Module, hidden: int, width: int = 1) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(CHANNELS, hidden), layer
        self.last = nn.Linear(width * hidden, CLASSES)

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        out = self.layer(self.first(x).relu(), *args)
        out = out[0] if isinstance(out, tuple) else out
        return self.last(out.relu())


class Signed(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1 = gnn.SignedConv(CHANNELS, h, first_aggr=True)
        self.conv2, self.lin = gnn.SignedConv(h, h, first_aggr=False), nn.Linear(2 * h, CLASSES)

    def forward(self, x: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        return self.lin(self.conv2(self.conv1(x, pos, neg).relu(), pos, neg).relu())


class Dna(nn.Module):
    """The net of dna.py: layers see all layers before them."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, h), nn.Linear(h, CLASSES)
        self.convs = nn.ModuleList(gnn.DNAConv(h, heads=2, groups=1) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found = self.first(x).relu().view(x.size(0), 1, -1)
        for conv in self.convs:
            found = torch.cat([found, conv(found, edge_index).relu().unsqueeze(1)], dim=1)
        return self.last(found[:, -1])


class Messages(nn.Module):
    """A message norm, as in GENConv."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.first, self.conv = nn.Linear(CHANNELS, h), gnn.SimpleConv(aggr="mean")
        self.norm, self.last = gnn.MessageNorm(learn_scale=True), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x + self.norm(x, self.conv(x, edge_index)))


class Clustered(nn.Module):
    """A pool that joins nodes between two convolutions."""

    def __init__(self, make: Callable[[int], nn.Module], h: int) -> None:
        super().__init__()
        self.conv1, self.pool = gnn.GraphConv(CHANNELS, h), make(h)
        self.conv2, self.lin = gnn.GraphConv(h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.conv1(x, edge_index).relu()
        x, edge_index, batch, _ = self.pool(x, edge_index, batch)
        return self.lin(gnn.global_mean_pool(self.conv2(x, edge_index).relu(), batch))


class Memory(nn.Module):
    """The net of mem_pool.py: queries that learn."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, h), nn.Linear(h, CLASSES)
        self.pools = nn.ModuleList(
            [gnn.MemPooling(h, h, 2, 4), gnn.MemPooling(h, h, heads=2, num_clusters=1)]
        )

    def forward(self, x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        x, s = self.pools[0](self.first(x).relu(), batch)
        x, _ = self.pools[1](nn.functional.leaky_relu(x))
        return self.last(x.squeeze(1)), gnn.MemPooling.kl_loss(s)


class Clusters(nn.Module):
    """The net of proteins_dmon_pool.py, of one pool."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv, self.pool = gnn.DenseGCNConv(CHANNELS, h), gnn.DMoNPooling([h, h], 5)
        self.dense, self.lin = gnn.DenseGraphConv(h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, adj: Tensor) -> tuple[Tensor, ...]:
        _, x, adj, *losses = self.pool(self.conv(x, adj).relu(), adj)
        return self.lin(self.dense(x, adj).relu().mean(dim=1)), *losses


class ByType(nn.Module):
    """A linear layer for each type of nodes, in a dict."""

    def __init__(self, h: int) -> None:
        super().__init__()
        widths = {"paper": CHANNELS, "author": CHANNELS}
        self.lin1, self.last = gnn.HeteroDictLinear(widths, h), nn.Linear(h, CLASSES)
        self.lin2 = gnn.HeteroDictLinear(h, h, types=list(widths))

    def forward(self, x_dict: Any, _: Any) -> Tensor:
        x_dict = self.lin2({key: x.relu() for key, x in self.lin1(x_dict).items()})
        return self.last(x_dict["paper"].relu() + x_dict["author"].relu())


class Encoded(nn.Module):
    """An encoding of numbers, which is fixed, added to features."""

    def __init__(self, encoding: Callable[[int], nn.Module], h: int) -> None:
        super().__init__()
        self.first, self.encoding = nn.Linear(CHANNELS, h), encoding(h)
        self.hidden, self.last = nn.Linear(h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        time = torch.arange(x.size(0)).to(x)
        return self.last(self.hidden(self.first(x) + self.encoding(time)).relu())


class Triples(nn.Module):
    """Scores of triples of a knowledge graph."""

    def __init__(self, cls: Any, h: int) -> None:
        super().__init__()
        self.model = cls(NODES, 3, h)

    def forward(self, head: Tensor, kind: Tensor, tail: Tensor) -> Tensor:
        return self.model(head, kind, tail)


def _given(*names: str) -> Callable[[], Any]:
    return lambda: tuple(getattr(graph(), name) for name in names)


def _x(*more: Any) -> Callable[[], Any]:
    return lambda: (graph().x, *more)


def _signed() -> Any:
    g = graph()
    return g.x, g.edge_index[:, :40], g.edge_index[:, 40:]


def _heat() -> Any:
    g = graph()
    return g.x, g.edge_index, TYPES, g.edge_type, g.edge_attr


def _normals() -> Any:
    g = graph()
    return g.x, g.pos, nn.functional.normalize(g.pos.flip(0)), g.edge_index


def _mesh() -> Any:
    """Each edge of a mesh has four neighbours."""
    generator = torch.Generator().manual_seed(0)
    near = torch.randint(NODES, (4 * NODES,), generator=generator)
    return graph().x, torch.stack([near, torch.arange(NODES).repeat_interleave(4)])


def _batched() -> Any:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, NODES, CHANNELS, generator=generator),)


def _dense() -> Any:
    generator = torch.Generator().manual_seed(0)
    adj = (torch.rand(2, NODES, NODES, generator=generator) < 0.2).float()
    return _batched()[0], ((adj + adj.mT) > 0).float()


def _triples() -> Any:
    g = graph()
    return g.edge_index[0], g.edge_type, g.edge_index[1]


def _mlp(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))


def _conv(name: str, *args: Any) -> Callable[[int], nn.Module]:
    return lambda h: Around(getattr(gnn, name)(h, h, *args), h)


_XE, _XEB = _given("x", "edge_index"), _given("x", "edge_index", "batch")
_SPECIAL: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Any]]] = {
    "SignedConv": (Signed, _signed),
    "DNAConv": (Dna, _XE),
    "HeteroConv": (Hetero, hetero_dicts),
    "HANConv": (HAN, hetero_dicts),
    "HGTConv": (OnHeteroData, hetero_data),
    "HEATConv": (lambda h: Around(gnn.HEATConv(h, h, 3, 3, 4, 3, 5, 2), h, 2), _heat),
    "PPFConv": (lambda h: Around(gnn.PPFConv(_mlp(h + 4, h), _mlp(h, h)), h), _normals),
    "MeshCNNConv": (_conv("MeshCNNConv"), _mesh),
    "GravNetConv": (_conv("GravNetConv", 3, 8, 4), _given("x")),
    "SplineConv": (_conv("SplineConv", 3, 3), _given("x", "edge_index", "edge_attr")),
    "DynamicEdgeConv": (lambda h: Around(gnn.DynamicEdgeConv(_mlp(2 * h, h), 4), h), _given("x")),
    "XConv": (_conv("XConv", 3, 4), _given("x", "pos")),
    "FusedGATConv": (_conv("FusedGATConv"), _XE),
    "CuGraphSAGEConv": (_conv("CuGraphSAGEConv"), _XE),
    "CuGraphGATConv": (_conv("CuGraphGATConv"), _XE),
    "CuGraphRGCNConv": (_conv("CuGraphRGCNConv", 3), _XE),
    "HeteroBatchNorm": (lambda h: Around(gnn.HeteroBatchNorm(h, 3), h), _x(TYPES)),
    "HeteroLayerNorm": (lambda h: Around(gnn.HeteroLayerNorm(h, 3), h), _x(TYPES)),
    "MessageNorm": (Messages, _XE),
    "EdgePooling": (lambda h: Clustered(gnn.EdgePooling, h), _XEB),
    "ClusterPooling": (lambda h: Clustered(gnn.ClusterPooling, h), _XEB),
    "MemPooling": (Memory, _given("x", "batch")),
    "Linear": (lambda h: Around(gnn.Linear(-1, h), h), _x()),
    "HeteroLinear": (lambda h: Around(gnn.HeteroLinear(h, h, 3), h), _x(TYPES)),
    "HeteroDictLinear": (ByType, hetero_dicts),
    "DMoNPooling": (Clusters, _dense),
    "PositionalEncoding": (lambda h: Encoded(gnn.PositionalEncoding, h), _x()),
    "PerformerAttention": (lambda h: Around(gnn.PerformerAttention(h, 2), h), _batched),
    "QFormer": (lambda h: Around(gnn.QFormer(h, h, h, 2, 1), h), _batched),
    "SGFormerAttention": (
        lambda h: Around(gnn.SGFormerAttention(h, 2, h), h),
        lambda: (*_batched(), torch.ones(2, NODES, dtype=torch.bool)),
    ),
    "PolynormerAttention": (
        lambda h: Around(gnn.PolynormerAttention(h, 2, h // 2), h),
        lambda: (*_batched(), torch.ones(2, NODES, dtype=torch.bool)),
    ),
}
_KNOWLEDGE = ("TransE", "ComplEx", "DistMult", "RotatE")

SPECIAL = [
    *[Model(name, "layers of PyG", *entry) for name, entry in _SPECIAL.items()],
    *[
        Model(n, "torch_geometric.nn.models", lambda h, n=n: Triples(getattr(gnn, n), h), _triples)
        for n in _KNOWLEDGE
    ],
]
