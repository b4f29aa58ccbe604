"""A net of two layers for each convolution, norm and pool of PyG, as its examples write them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor, nn
from zoo_graphs import CHANNELS, CLASSES, NODES, Model, graph

__all__ = ["LAYERS"]

Make = Callable[[int, int], nn.Module]


class Two(nn.Module):
    """Two layers with an activation, and a linear layer."""

    def __init__(self, make: Make, hidden: int, width: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = make(CHANNELS, hidden), make(hidden * width, hidden)
        self.lin = nn.Linear(hidden * width, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, *args: Any) -> Tensor:
        x = F.elu(self.conv1(x, edge_index, *args))
        x = F.dropout(x, p=0.5, training=self.training)
        x = F.relu(self.conv2(x, edge_index, *args))
        return self.lin(x).log_softmax(dim=-1)


class Same(nn.Module):
    """Layers that keep the width, between two linear layers."""

    def __init__(self, make: Callable[[int], nn.Module], hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, hidden), nn.Linear(hidden, CLASSES)
        self.convs = nn.ModuleList(make(hidden) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor, *args: Any) -> Tensor:
        x = x0 = self.first(x).relu()
        for conv in self.convs:
            if isinstance(conv, (gnn.GCN2Conv, gnn.FAConv)):
                x = conv(x, x0, edge_index, *args).relu()
            else:
                x = conv(x, edge_index, *args).relu()
        return self.last(x)


class Points(nn.Module):
    """Two layers on points."""

    def __init__(self, make: Make, hidden: int, order: Callable[..., Any]) -> None:
        super().__init__()
        self.conv1, self.conv2 = make(CHANNELS, hidden), make(hidden, hidden)
        self.lin, self.order = nn.Linear(hidden, CLASSES), order

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
        x = self.conv1(*self.order(x, pos, edge_index)).relu()
        return self.lin(self.conv2(*self.order(x, pos, edge_index)).relu())


class Dense(nn.Module):
    """Two layers on a dense adjacency matrix."""

    def __init__(self, make: Make, hidden: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = make(CHANNELS, hidden), make(hidden, hidden)
        self.lin = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        x = self.conv1(x, adj).relu()
        return self.lin(self.conv2(x, adj).relu().mean(dim=1))


class Normed(nn.Module):
    """A norm between two convolutions."""

    def __init__(self, make: Callable[[int], nn.Module], hidden: int) -> None:
        super().__init__()
        self.conv1, self.norm = gnn.GCNConv(CHANNELS, hidden), make(hidden)
        self.conv2 = gnn.GCNConv(hidden, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv2(self.norm(self.conv1(x, edge_index)).relu(), edge_index)


class Pooled(nn.Module):
    """A pool that chooses nodes between two convolutions, and a readout."""

    def __init__(self, make: Callable[[int], nn.Module], hidden: int) -> None:
        super().__init__()
        self.conv1, self.pool = gnn.GraphConv(CHANNELS, hidden), make(hidden)
        self.conv2, self.lin = gnn.GraphConv(hidden, hidden), nn.Linear(2 * hidden, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.conv1(x, edge_index).relu()
        x, edge_index, _, batch, *_ = self.pool(x, edge_index, batch=batch)
        x = self.conv2(x, edge_index).relu()
        mean, top = gnn.global_mean_pool(x, batch), gnn.global_max_pool(x, batch)
        return self.lin(torch.cat([mean, top], dim=-1))


class Read(nn.Module):
    """An aggregation of nodes that learns."""

    def __init__(self, make: Callable[[int], nn.Module], hidden: int, width: int = 1) -> None:
        super().__init__()
        self.conv, self.read = gnn.SAGEConv(CHANNELS, hidden), make(hidden)
        self.lin = nn.Linear(width * hidden, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.lin(self.read(self.conv(x, edge_index).relu(), batch))


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def _xe() -> Any:
    g = graph()
    return g.x, g.edge_index


def _with(*names: str) -> Callable[[], Any]:
    def example() -> Any:
        g = graph()
        return (g.x, g.edge_index, *[getattr(g, name) for name in names])

    return example


def _xb() -> Any:
    g = graph()
    return g.x, g.edge_index, g.batch


def _points() -> Any:
    g = graph()
    return g.x, g.pos, g.edge_index


def _dense() -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, NODES, CHANNELS, generator=generator)
    adj = (torch.rand(2, NODES, NODES, generator=generator) < 0.2).float()
    return x, adj


def _deg() -> Tensor:
    return torch.bincount(torch.bincount(graph().edge_index[1], minlength=NODES))


def _pna(i: int, o: int) -> nn.Module:
    ways, scalers = ["mean", "max", "std"], ["identity", "amplification"]
    return gnn.PNAConv(i, o, ways, scalers, _deg(), edge_dim=3, towers=2 if i > CHANNELS else 1)


_TWO: dict[str, tuple[Make, Callable[[], Any]]] = {
    "GCNConv": (gnn.GCNConv, _with("edge_weight")),
    "ChebConv": (lambda i, o: gnn.ChebConv(i, o, K=3), _xe),
    "SAGEConv": (lambda i, o: gnn.SAGEConv(i, o, aggr=["mean", "max"], project=True), _xe),
    "GraphConv": (gnn.GraphConv, _with("edge_weight")),
    "ResGatedGraphConv": (gnn.ResGatedGraphConv, _xe),
    "TransformerConv": (gnn.TransformerConv, _xe),
    "TAGConv": (gnn.TAGConv, _xe),
    "SGConv": (lambda i, o: gnn.SGConv(i, o, K=2), _xe),
    "SSGConv": (lambda i, o: gnn.SSGConv(i, o, alpha=0.1, K=2), _xe),
    "ARMAConv": (lambda i, o: gnn.ARMAConv(i, o, num_stacks=2, num_layers=2), _xe),
    "ClusterGCNConv": (gnn.ClusterGCNConv, _xe),
    "LEConv": (gnn.LEConv, _xe),
    "FiLMConv": (gnn.FiLMConv, _xe),
    "RGCNConv": (lambda i, o: gnn.RGCNConv(i, o, 3), _with("edge_type")),
    "RGCNConv, bases": (lambda i, o: gnn.RGCNConv(i, o, 3, num_bases=2), _with("edge_type")),
    "FastRGCNConv": (lambda i, o: gnn.FastRGCNConv(i, o, 3), _with("edge_type")),
    "RGATConv": (lambda i, o: gnn.RGATConv(i, o, 3), _with("edge_type")),
    "NNConv": (lambda i, o: gnn.NNConv(i, o, _mlp(3, 12, i * o)), _with("edge_attr")),
    "GENConv": (lambda i, o: gnn.GENConv(i, o, edge_dim=3), _with("edge_attr")),
    "GINConv": (lambda i, o: gnn.GINConv(_mlp(i, o, o)), _xe),
    "GINEConv": (lambda i, o: gnn.GINEConv(_mlp(i, o, o), edge_dim=3), _with("edge_attr")),
    "GeneralConv": (lambda i, o: gnn.GeneralConv(i, o, attention=True), _xe),
    "MFConv": (lambda i, o: gnn.MFConv(i, o, max_degree=6), _xe),
    "FeaStConv": (lambda i, o: gnn.FeaStConv(i, o, heads=2), _xe),
    "PANConv": (lambda i, o: _First(gnn.PANConv(i, o, filter_size=2)), _xe),
    "PDNConv": (lambda i, o: gnn.PDNConv(i, o, 3, 8), _with("edge_attr")),
    "EGConv": (lambda i, o: gnn.EGConv(i, o, num_heads=2, num_bases=2), _xe),
    "GMMConv": (lambda i, o: gnn.GMMConv(i, o, dim=3, kernel_size=2), _with("edge_attr")),
    "HypergraphConv": (gnn.HypergraphConv, _xe),
    "EdgeConv": (lambda i, o: gnn.EdgeConv(_mlp(2 * i, o, o)), _xe),
    "PNAConv": (_pna, _with("edge_attr")),
    "WLConvContinuous": (lambda i, o: _Lin(i, o, gnn.WLConvContinuous()), _xe),
}
_HEADS: dict[str, tuple[Make, Callable[[], Any]]] = {
    "GATConv": (lambda i, o: gnn.GATConv(i, o, heads=2, edge_dim=3), _with("edge_attr")),
    "GATv2Conv": (lambda i, o: gnn.GATv2Conv(i, o, heads=2, residual=True), _xe),
    "SuperGATConv": (lambda i, o: gnn.SuperGATConv(i, o, heads=2), _xe),
    "TransformerConv, heads": (
        lambda i, o: gnn.TransformerConv(i, o, heads=2, edge_dim=3, beta=True),
        _with("edge_attr"),
    ),
    "MixHopConv": (lambda i, o: gnn.MixHopConv(i, o, powers=[0, 1]), _xe),
}
_SAME: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Any]]] = {
    "GCN2Conv": (lambda c: gnn.GCN2Conv(c, alpha=0.1, theta=0.5, layer=1), _xe),
    "FAConv": (lambda c: gnn.FAConv(c), _xe),
    "GatedGraphConv": (lambda c: gnn.GatedGraphConv(c, num_layers=2), _xe),
    "AGNNConv": (lambda c: gnn.AGNNConv(), _xe),
    "APPNP": (lambda c: gnn.APPNP(K=3, alpha=0.1), _xe),
    "LGConv": (lambda c: gnn.LGConv(), _xe),
    "SimpleConv": (lambda c: gnn.SimpleConv(aggr="mean"), _xe),
    "CGConv": (lambda c: gnn.CGConv(c, dim=3), _with("edge_attr")),
    "GPSConv": (
        lambda c: gnn.GPSConv(c, gnn.GINConv(_mlp(c, c)), heads=2),
        _with("batch"),
    ),
    "AntiSymmetricConv": (lambda c: gnn.AntiSymmetricConv(c), _xe),
    "DirGNNConv": (lambda c: gnn.DirGNNConv(gnn.SAGEConv(c, c)), _xe),
    "DeepGCNLayer": (
        lambda c: gnn.DeepGCNLayer(gnn.GENConv(c, c), nn.LayerNorm(c), nn.ReLU(), dropout=0.1),
        _xe,
    ),
}
_ON_POINTS: dict[str, tuple[Make, Callable[..., Any]]] = {
    "PointNetConv": (
        lambda i, o: gnn.PointNetConv(_mlp(i + 3, o, o), _mlp(o, o)),
        lambda x, pos, e: (x, pos, e),
    ),
    "PointTransformerConv": (gnn.PointTransformerConv, lambda x, pos, e: (x, pos, e)),
    "PointGNNConv": (
        lambda i, o: _Lin(i, o, gnn.PointGNNConv(_mlp(o, 3), _mlp(o + 3, o), _mlp(o, o))),
        lambda x, pos, e: (x, pos, e),
    ),
}
_ON_DENSE: dict[str, Make] = {
    "DenseGCNConv": gnn.DenseGCNConv,
    "DenseSAGEConv": gnn.DenseSAGEConv,
    "DenseGraphConv": gnn.DenseGraphConv,
    "DenseGINConv": lambda i, o: gnn.DenseGINConv(_mlp(i, o, o)),
    "DenseGATConv": gnn.DenseGATConv,
}
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BatchNorm": gnn.BatchNorm,
    "InstanceNorm": gnn.InstanceNorm,
    "LayerNorm": gnn.LayerNorm,
    "GraphNorm": gnn.GraphNorm,
    "GraphSizeNorm": lambda c: gnn.GraphSizeNorm(),
    "PairNorm": lambda c: gnn.PairNorm(),
    "MeanSubtractionNorm": lambda c: gnn.MeanSubtractionNorm(),
    "DiffGroupNorm": lambda c: gnn.DiffGroupNorm(c, groups=3),
    "torch GroupNorm": lambda c: nn.GroupNorm(4, c),
}
_POOLS: dict[str, Callable[[int], nn.Module]] = {
    "TopKPooling": lambda c: gnn.TopKPooling(c, ratio=0.6),
    "SAGPooling": lambda c: gnn.SAGPooling(c, ratio=0.6),
    "ASAPooling": lambda c: gnn.ASAPooling(c, ratio=0.6),
    "PANPooling": lambda c: _PAN(c),
}
_READS: dict[str, Callable[[int], nn.Module]] = {
    "SoftmaxAggregation": lambda c: gnn.SoftmaxAggregation(learn=True, channels=c),
    "PowerMeanAggregation": lambda c: gnn.PowerMeanAggregation(learn=False),
    "AttentionalAggregation": lambda c: gnn.AttentionalAggregation(nn.Linear(c, 1)),
    "DeepSetsAggregation": lambda c: gnn.DeepSetsAggregation(_mlp(c, c), _mlp(c, c)),
    "SetTransformerAggregation": lambda c: gnn.SetTransformerAggregation(c, heads=2),
    "GRUAggregation": lambda c: gnn.GRUAggregation(c, c),
    "LSTMAggregation": lambda c: gnn.LSTMAggregation(c, c),
    "SumAggregation": lambda c: gnn.SumAggregation(),
    "MeanAggregation": lambda c: gnn.MeanAggregation(),
    "MaxAggregation": lambda c: gnn.MaxAggregation(),
    "MinAggregation": lambda c: gnn.MinAggregation(),
    "MulAggregation": lambda c: gnn.MulAggregation(),
    "VarAggregation": lambda c: gnn.VarAggregation(),
    "StdAggregation": lambda c: gnn.StdAggregation(),
    "MedianAggregation": lambda c: gnn.MedianAggregation(),
    "QuantileAggregation": lambda c: gnn.QuantileAggregation(0.7),
    "VariancePreservingAggregation": lambda c: gnn.VariancePreservingAggregation(),
    "GraphMultisetTransformer": lambda c: gnn.GraphMultisetTransformer(c, 4, heads=2),
    "EquilibriumAggregation": lambda c: gnn.EquilibriumAggregation(c, c, [c], grad_iter=2),
    "MLPAggregation": lambda c: gnn.MLPAggregation(c, c, NODES // 2, num_layers=1),
    "LCMAggregation": lambda c: gnn.LCMAggregation(c, c),
    "PatchTransformerAggregation": lambda c: gnn.PatchTransformerAggregation(c, c, 4, c, heads=2),
}
_WIDE_READS: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "MultiAggregation": (lambda c: gnn.MultiAggregation(["mean", "max"]), 2),
    "Set2Set": (lambda c: gnn.Set2Set(c, processing_steps=2), 2),
    "SortAggregation": (lambda c: gnn.SortAggregation(3), 3),
    "DegreeScalerAggregation": (
        lambda c: gnn.DegreeScalerAggregation(["mean"], ["identity", "amplification"], _deg()),
        2,
    ),
}


class _First(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Tensor:
        return self.module(*args)[0]


class _Lin(nn.Module):
    def __init__(self, inputs: int, outputs: int, conv: nn.Module) -> None:
        super().__init__()
        self.lin, self.conv = nn.Linear(inputs, outputs), conv

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        return self.conv(self.lin(x), *args)


class _PAN(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.pool = gnn.PANConv(channels, channels, 2), gnn.PANPooling(channels, 0.6)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Any:
        x, m = self.conv(x, edge_index)
        return self.pool(x, m, batch)


def _entry(name: str, build: Callable[[int], nn.Module], example: Callable[[], Any]) -> Model:
    return Model(name, "layers of PyG", build, example)


LAYERS = [
    *[_entry(n, lambda h, m=m: Two(m, h), e) for n, (m, e) in _TWO.items()],
    *[_entry(n, lambda h, m=m: Two(m, h, 2), e) for n, (m, e) in _HEADS.items()],
    *[_entry(n, lambda h, m=m: Same(m, h), e) for n, (m, e) in _SAME.items()],
    *[_entry(n, lambda h, m=m, o=o: Points(m, h, o), _points) for n, (m, o) in _ON_POINTS.items()],
    *[_entry(n, lambda h, m=m: Dense(m, h), _dense) for n, m in _ON_DENSE.items()],
    *[_entry(n, lambda h, m=m: Normed(m, h), _xe) for n, m in _NORMS.items()],
    *[_entry(n, lambda h, m=m: Pooled(m, h), _with("batch")) for n, m in _POOLS.items()],
    *[_entry(n, lambda h, m=m: Read(m, h), _xb) for n, m in _READS.items()],
    *[_entry(n, lambda h, m=m, w=w: Read(m, h, w), _xb) for n, (m, w) in _WIDE_READS.items()],
]
