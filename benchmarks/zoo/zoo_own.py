"""Nets of one's own, as people write them in a class with a forward."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from zoo_graphs import CHANNELS, CLASSES, EDGES, NODES, Model, graph

from pyg_stkd.nn import STGCN, DynamicEdgeConv

__all__ = ["HAN", "OWN", "Hetero", "OnHeteroData", "hetero_data", "hetero_dicts"]


class Tutorial(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = gnn.GCNConv(CHANNELS, h), gnn.GCNConv(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.conv1(x, edge_index)), training=self.training)
        return F.log_softmax(self.conv2(x, edge_index), dim=1)


class ClusterPPI(nn.Module):
    """GAT with residual linear layers, as in ppi.py."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.lin1 = gnn.GATConv(CHANNELS, h, heads=2), nn.Linear(CHANNELS, 2 * h)
        self.conv2, self.lin2 = gnn.GATConv(2 * h, h, heads=2), nn.Linear(2 * h, 2 * h)
        self.conv3 = gnn.GATConv(2 * h, CLASSES, heads=3, concat=False)
        self.lin3 = nn.Linear(2 * h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.elu(self.conv1(x, edge_index) + self.lin1(x))
        x = F.elu(self.conv2(x, edge_index) + self.lin2(x))
        return self.conv3(x, edge_index) + self.lin3(x)


class MutagGIN(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(3):
            mlp = nn.Sequential(
                nn.Linear(CHANNELS if i == 0 else h, h),
                nn.BatchNorm1d(h),
                nn.ReLU(),
                nn.Linear(h, h),
            )
            self.convs.append(gnn.GINConv(mlp, train_eps=True))
            self.norms.append(gnn.BatchNorm(h))
        self.lin1, self.lin2 = nn.Linear(3 * h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        xs = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index).relu())
            xs.append(gnn.global_add_pool(x, batch))
        x = F.dropout(self.lin1(torch.cat(xs, dim=1)).relu(), training=self.training)
        return self.lin2(x).log_softmax(dim=-1)


class PreNorm(nn.Module):
    """Scaled residuals around layer norms."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.inputs, self.out = nn.Linear(CHANNELS, h), nn.Linear(h, CLASSES)
        self.norms = nn.ModuleList(nn.LayerNorm(h) for _ in range(2))
        self.convs = nn.ModuleList(gnn.SAGEConv(h, h) for _ in range(2))
        self.scales = nn.ParameterList(nn.Parameter(torch.full((h,), 0.5)) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.inputs(x)
        for norm, conv, scale in zip(self.norms, self.convs, self.scales, strict=True):
            x = x + scale * conv(F.gelu(norm(x)), edge_index)
        return self.out(x)


class Molecules(nn.Module):
    """GINE with encoders of atoms and bonds."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.atoms, self.bonds = (
            nn.Embedding(10, h),
            nn.ModuleList(nn.Linear(3, h) for _ in range(2)),
        )
        self.convs = nn.ModuleList(
            gnn.GINEConv(nn.Sequential(nn.Linear(h, 2 * h), nn.ReLU(), nn.Linear(2 * h, h)))
            for _ in range(2)
        )
        self.pool = gnn.AttentionalAggregation(
            nn.Sequential(nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 1))
        )
        self.out = nn.Linear(h, 1)

    def forward(self, z: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        x = self.atoms(z)
        for conv, bond in zip(self.convs, self.bonds, strict=True):
            x = x + conv(x, edge_index, bond(edge_attr)).relu()
        return self.out(self.pool(x, batch))


class LinkPredictor(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = gnn.GCNConv(CHANNELS, h), gnn.GCNConv(h, h)

    def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)

    def decode(self, z: Tensor, pairs: Tensor) -> Tensor:
        return (z[pairs[0]] * z[pairs[1]]).sum(dim=-1)


class Hetero(nn.Module):
    """HeteroConv on dicts, as in hetero_conv_dblp.py."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            gnn.HeteroConv(
                {
                    ("paper", "cites", "paper"): gnn.GCNConv(c, h),
                    ("author", "writes", "paper"): gnn.SAGEConv((c, c), h),
                    ("paper", "by", "author"): gnn.GATConv((c, c), h, add_self_loops=False),
                }
            )
            for c in (CHANNELS, h)
        )
        self.lin = nn.Linear(h, CLASSES)

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Tensor:
        for conv in self.convs:
            x_dict = {k: F.leaky_relu(x) for k, x in conv(x_dict, edge_index_dict).items()}
        return self.lin(x_dict["author"])


class OnHeteroData(nn.Module):
    """Takes a HeteroData, returns a dict."""

    def __init__(self, h: int) -> None:
        super().__init__()
        kinds = [("paper", "cites", "paper"), ("author", "writes", "paper")]
        kinds += [("paper", "by", "author")]
        self.conv = gnn.HGTConv(CHANNELS, h, (["paper", "author"], kinds), heads=2)
        self.outs = nn.ModuleDict({k: nn.Linear(h, CLASSES) for k in ("paper", "author")})

    def forward(self, data: HeteroData) -> dict[str, Tensor]:
        x_dict = self.conv(data.x_dict, data.edge_index_dict)
        return {key: self.outs[key](x.relu()) for key, x in x_dict.items()}


class HAN(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        kinds = [("paper", "cites", "paper"), ("author", "writes", "paper")]
        kinds += [("paper", "by", "author")]
        self.conv = gnn.HANConv(CHANNELS, h, (["paper", "author"], kinds), heads=2)
        self.lin = nn.Linear(h, CLASSES)

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Tensor:
        return self.lin(self.conv(x_dict, edge_index_dict)["author"])


class Homogeneous(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = gnn.SAGEConv((-1, -1), h), gnn.SAGEConv((-1, -1), CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def to_hetero(h: int) -> nn.Module:
    kinds = [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")]
    return gnn.to_hetero(Homogeneous(h), (["paper", "author"], kinds), aggr="sum")


class Points(nn.Module):
    """Dynamic edge convolutions and two pools."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1 = DynamicEdgeConv(gnn.MLP([6, h, h]), k=4)
        self.conv2 = DynamicEdgeConv(gnn.MLP([2 * h, h]), k=4)
        self.lin, self.out = nn.Linear(2 * h, 2 * h), nn.Linear(4 * h, CLASSES)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        a = self.conv1(pos, batch)
        b = self.conv2(a, batch)
        x = self.lin(torch.cat([a, b], dim=1)).relu()
        return self.out(
            torch.cat([gnn.global_max_pool(x, batch), gnn.global_mean_pool(x, batch)], dim=-1)
        )


class Gates(nn.Module):
    """Gates, chunks, GLU and a jumping connection by hand."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv, self.gate = gnn.GCNConv(CHANNELS, 2 * h), nn.Linear(CHANNELS, h)
        self.next, self.att = gnn.GraphConv(h, 2 * h), nn.Linear(h, 1)
        self.out = nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        a, b = self.conv(x, edge_index).chunk(2, dim=-1)
        h1 = a * torch.sigmoid(b) + self.gate(x)
        h2 = F.glu(self.next(h1, edge_index), dim=-1)
        xs = torch.stack([h1, h2], dim=1)
        return self.out((xs * self.att(xs).softmax(dim=1)).sum(dim=1))


class RawParameters(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(CHANNELS, h)),
            nn.Parameter(torch.zeros(h)),
        )
        self.mix, self.gain = nn.Parameter(torch.randn(h, h)), nn.Parameter(torch.ones(1, h))
        self.out = nn.Parameter(torch.randn(h, CLASSES))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = (x @ self.weight + self.bias).relu()
        x = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return torch.einsum("nc,cd->nd", x, self.mix).tanh().mul(self.gain).matmul(self.out)


class HandMadeAttention(nn.Module):
    """Heads by hand, with the root of the width."""

    def __init__(self, h: int, scaled: bool = False) -> None:
        super().__init__()
        self.heads, self.channels, self.scaled = 2, h // 2, scaled
        self.q, self.k, self.v = (nn.Linear(CHANNELS, h) for _ in range(3))
        self.out = nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        q, k, v = (lin(x).view(-1, self.heads, self.channels) for lin in (self.q, self.k, self.v))
        score = (q[target] * k[source]).sum(dim=-1)
        if self.scaled:
            score = score / math.sqrt(self.channels)
        alpha = (
            score.exp()
            / (1e-6 + torch.zeros(NODES, self.heads).to(score).index_add(0, target, score.exp()))[
                target
            ]
        )
        out = torch.zeros_like(v).index_add(0, target, alpha.unsqueeze(-1) * v[source])
        return self.out(out.reshape(-1, self.heads * self.channels))


class UserLayer(gnn.MessagePassing):
    """A message passing layer of one's own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(aggr="mean")
        self.lin, self.edge = nn.Linear(2 * inputs, outputs), nn.Linear(3, outputs)
        self.update_net = nn.Linear(inputs + outputs, outputs)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, edge_attr=edge_attr)

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return F.relu(self.lin(torch.cat([x_i, x_j], dim=-1)) + self.edge(edge_attr))

    def update(self, inputs: Tensor, x: Tensor) -> Tensor:
        return self.update_net(torch.cat([x, inputs], dim=-1))


class OwnLayers(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.a, self.b = UserLayer(CHANNELS, h), UserLayer(h, h)
        self.out = nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        x = F.silu(self.a(x=x, edge_index=edge_index, edge_attr=edge_attr))
        return self.out(self.b(x=x, edge_index=edge_index, edge_attr=edge_attr))


class GeniePath(nn.Module):
    """Attention along breadth, an LSTM along depth."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, h), nn.Linear(h, CLASSES)
        self.convs = nn.ModuleList(gnn.GATConv(h, h) for _ in range(2))
        self.lstm = nn.LSTM(h, h, 1, bias=False)
        self.hidden = h

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x)
        h = torch.zeros(1, x.size(0), self.hidden, dtype=x.dtype)
        c = torch.zeros(1, x.size(0), self.hidden, dtype=x.dtype)
        for conv in self.convs:
            x = torch.tanh(conv(x, edge_index))
            x, (h, c) = self.lstm(x.unsqueeze(0), (h, c))
            x = x[0]
        return self.last(x)


class RecurrentGCN(nn.Module):
    """A GRU cell over time steps, states by graph convolution."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv, self.cell = gnn.GCNConv(CHANNELS, h), nn.GRUCell(h, h)
        self.out = nn.Linear(h, 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        state = None
        for step in x.unbind(0):
            state = self.cell(self.conv(step, edge_index).relu(), state)
        return self.out(state)


class Seq2Seq(nn.Module):
    """A GRU over the steps of each node, and a transformer's layer."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.gru = nn.GRU(CHANNELS, h, num_layers=2, batch_first=True)
        self.att = nn.MultiheadAttention(h, 2, batch_first=True)
        self.norm, self.out = nn.LayerNorm(h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.gru(x)
        a, _ = self.att(h, h, h)
        return self.out(self.norm(h + a).mean(dim=1))


class ConvNet(nn.Module):
    """Convolutions along time and a graph filter, channels first."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.start, self.filter = nn.Conv2d(CHANNELS, h, 1), nn.Conv2d(h, h, (1, 2))
        self.gate, self.norm = nn.Conv2d(h, h, (1, 2)), nn.BatchNorm2d(h)
        self.mix, self.end = nn.Conv2d(2 * h, h, 1), nn.Conv2d(h, 3, 1)
        self.emb1, self.emb2 = (
            nn.Parameter(torch.randn(NODES, 6)),
            nn.Parameter(torch.randn(6, NODES)),
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, C, N, T]
        adj = (self.emb1 @ self.emb2).relu().softmax(dim=1)
        x = self.start(x)
        x = torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))
        y = torch.einsum("bcnt,nm->bcmt", x, adj)
        return self.end(self.norm(self.mix(torch.cat([x, y], dim=1))).relu())


class Wrapped(nn.Module):
    """Holds models of PyG and of this package."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.gnn = gnn.GCN(CHANNELS, h, 2, h, jk="cat")
        self.head = gnn.MLP([h, h, CLASSES], norm="batch_norm")

    def forward(self, x: Tensor, edge_index: Tensor) -> dict[str, Tensor]:
        z = self.gnn(x, edge_index)
        return {"logits": self.head(z), "norm": z.norm(dim=-1)}


class InPlace(nn.Module):
    """In-place functions and slices that are written to."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(CHANNELS, h), gnn.GCNConv(CHANNELS, h)
        self.out = nn.Linear(2 * h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        a, b = self.a(x).relu_(), self.b(x, edge_index)
        b += a
        b.mul_(0.5).clamp_(min=-1.0)
        both = a.new_zeros(a.size(0), a.size(1) + b.size(1))
        both[:, : a.size(1)] = a
        both[:, a.size(1) :] = b
        return self.out(both)


class TopK(nn.Module):
    """The net of proteins_topk_pool.py."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(gnn.GraphConv(c, h) for c in (CHANNELS, h))
        self.pools = nn.ModuleList(gnn.TopKPooling(h, ratio=0.8) for _ in range(2))
        self.lins = nn.ModuleList([nn.Linear(2 * h, h), nn.Linear(h, CLASSES)])

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        found = []
        for conv, pool in zip(self.convs, self.pools, strict=True):
            x = F.relu(conv(x, edge_index))
            x, edge_index, _, batch, _, _ = pool(x, edge_index, None, batch)
            found.append(
                torch.cat([gnn.global_max_pool(x, batch), gnn.global_mean_pool(x, batch)], 1)
            )
        return self.lins[1](self.lins[0](sum(found)).relu())


class DiffPool(nn.Module):
    def __init__(self, h: int) -> None:
        super().__init__()
        self.embed, self.pool = gnn.DenseSAGEConv(CHANNELS, h), gnn.DenseSAGEConv(CHANNELS, 5)
        self.conv, self.out = gnn.DenseSAGEConv(h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, adj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, z = self.pool(x, adj), self.embed(x, adj).relu()
        x, adj, loss1, loss2 = gnn.dense_diff_pool(z, adj, s)
        return self.out(self.conv(x, adj).relu().mean(dim=1)), loss1, loss2


class Forecast(nn.Module):
    """An STGCN with a head of one's own."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.body = STGCN(2, [(h, h // 2, h)] * 2, h)
        self.head = nn.Linear(h, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.body(x, edge_index).transpose(1, 2).relu())


def _g(*names: str) -> Any:
    def example() -> Any:
        g = graph()
        return tuple(getattr(g, name) for name in names)

    return example


def hetero_dicts() -> Any:
    g = graph()
    kinds = [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")]
    return {"paper": g.x, "author": g.x.flip(0)}, dict.fromkeys(kinds, g.edge_index)


def hetero_data() -> Any:
    x_dict, edge_index_dict = hetero_dicts()
    data = HeteroData()
    for key, x in x_dict.items():
        data[key].x = x
    for key, edge_index in edge_index_dict.items():
        data[key].edge_index = edge_index
    return data


def _dense() -> Any:
    generator = torch.Generator().manual_seed(0)
    adj = (torch.rand(2, NODES, NODES, generator=generator) < 0.2).float()
    return torch.randn(2, NODES, CHANNELS, generator=generator), adj


def _steps(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _link(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
    return model.decode(model.encode(x, edge_index), edge_index)


def _hetero(h: int) -> nn.Module:
    model = to_hetero(h)
    with torch.no_grad():
        model(*hetero_dicts())
    return model


assert EDGES
_XE, _XEB, _XEA = (
    _g("x", "edge_index"),
    _g("x", "edge_index", "batch"),
    _g("x", "edge_index", "edge_attr"),
)
_OWN: dict[str, tuple[Any, ...]] = {
    "tutorial GCN": (Tutorial, _XE),
    "GAT with residual linear layers": (ClusterPPI, _XE),
    "GIN, norms and pools": (MutagGIN, _XEB),
    "scaled residuals, layer norms": (PreNorm, _XE),
    "GINE with encoders": (Molecules, _g("z", "edge_index", "edge_attr", "batch")),
    "encode and decode": (LinkPredictor, _XE, _link),
    "HeteroConv": (Hetero, hetero_dicts),
    "HGT on HeteroData, dict out": (OnHeteroData, hetero_data),
    "HAN": (HAN, hetero_dicts),
    "to_hetero, lazy": (_hetero, hetero_dicts),
    "dynamic edge convolutions": (Points, _g("pos", "batch")),
    "gates, GLU, jumping by hand": (Gates, _XE),
    "raw parameters, einsum": (RawParameters, _XE),
    "attention by hand": (HandMadeAttention, _XE),
    "attention by hand, scaled": (lambda h: HandMadeAttention(h, True), _XE),
    "own MessagePassing, keywords": (OwnLayers, _XEA),
    "GeniePath (LSTM)": (GeniePath, _XE),
    "GRU cell over GCN": (RecurrentGCN, lambda: (_steps(3, NODES, CHANNELS), graph().edge_index)),
    "GRU and attention": (Seq2Seq, lambda: (_steps(4, 6, CHANNELS),)),
    "gated convolutions, learnt graph": (ConvNet, lambda: (_steps(2, CHANNELS, NODES, 4),)),
    "GCN and MLP in a net, dict out": (Wrapped, _XE),
    "in-place functions": (InPlace, _XE),
    "TopK pools": (TopK, _XEB),
    "DiffPool": (DiffPool, _dense),
    "STGCN with a head": (Forecast, lambda: (_steps(2, 12, NODES, 2), graph().edge_index)),
}
OWN = [Model(name, "own nets", e[0], e[1], *e[2:]) for name, e in _OWN.items()]
