"""The models of torch_geometric.nn.models, plain or in the nets of PyG's examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch_geometric.nn import models
from zoo_graphs import CHANNELS, CLASSES, NODES, Model, graph

__all__ = ["NETS"]


def _xe() -> Any:
    g = graph()
    return g.x, g.edge_index


def _deg() -> Tensor:
    return torch.bincount(torch.bincount(graph().edge_index[1], minlength=NODES))


def _basic(cls: Any, **kwargs: Any) -> Callable[[int], nn.Module]:
    return lambda h: cls(CHANNELS, h, num_layers=3, out_channels=CLASSES, **kwargs)


def _molecule() -> Any:
    g = graph(12, 24)
    return g.z, g.pos, g.batch


def _attentive() -> Any:
    g = graph()
    return g.x, g.edge_index, g.edge_attr, g.batch


def _linkx() -> Any:
    g = graph()
    return g.x, g.edge_index


def _signed() -> Any:
    g = graph()
    return g.x, g.edge_index[:, :40], g.edge_index[:, 40:]


class Residual(nn.Module):
    """GroupAddRev between linear layers."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, hidden), nn.Linear(hidden, CLASSES)
        self.rev = gnn.GroupAddRev(gnn.SAGEConv(hidden // 2, hidden // 2), num_groups=2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.last(self.rev(self.first(x), edge_index).relu())


class Unet(nn.Module):
    """The net of graph_unet.py."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.unet = gnn.GraphUNet(CHANNELS, hidden, CLASSES, depth=2, pool_ratios=0.7)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return F.log_softmax(self.unet(F.dropout(x, training=self.training), edge_index), dim=1)


class Meta(nn.Module):
    """A MetaLayer of three networks."""

    class Edge(nn.Module):
        def __init__(self, hidden: int) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(2 * hidden + 3, hidden), nn.ReLU())

        def forward(self, src: Tensor, dst: Tensor, attr: Tensor, u: Any, batch: Any) -> Tensor:
            return self.mlp(torch.cat([src, dst, attr], 1))

    class Node(nn.Module):
        def __init__(self, hidden: int) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU())

        def forward(self, x: Tensor, edge_index: Tensor, attr: Tensor, u: Any, b: Any) -> Tensor:
            sums = torch.zeros_like(x).index_add(0, edge_index[1], attr)
            return self.mlp(torch.cat([x, sums], dim=1))

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, hidden), nn.Linear(hidden, CLASSES)
        self.op = gnn.MetaLayer(Meta.Edge(hidden), Meta.Node(hidden))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        x, _, _ = self.op(self.first(x), edge_index, edge_attr)
        return self.last(x)


def _xea() -> Any:
    g = graph()
    return g.x, g.edge_index, g.edge_attr


def _encode(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
    z = model.encode(x, edge_index)
    return model.decode(z, edge_index)


def _lightgcn(model: Any, edge_index: Tensor) -> Tensor:
    return model(edge_index)


def _pna(h: int) -> nn.Module:
    ways, scalers = ["mean", "max"], ["identity", "amplification"]
    return gnn.PNA(CHANNELS, h, 3, CLASSES, aggregators=ways, scalers=scalers, deg=_deg(), towers=1)


def _sequential(h: int) -> nn.Module:
    return gnn.Sequential(
        "x, edge_index, batch",
        [
            (nn.Dropout(p=0.5), "x -> x"),
            (gnn.GCNConv(CHANNELS, h), "x, edge_index -> x1"),
            nn.ReLU(inplace=True),
            (gnn.GCNConv(h, h), "x1, edge_index -> x2"),
            nn.ReLU(inplace=True),
            (lambda x1, x2: [x1, x2], "x1, x2 -> xs"),
            (gnn.JumpingKnowledge("cat", h, num_layers=2), "xs -> x"),
            (gnn.global_mean_pool, "x, batch -> x"),
            nn.Linear(2 * h, CLASSES),
        ],
    )


def _xeb() -> Any:
    g = graph()
    return g.x, g.edge_index, g.batch


_NETS: dict[str, tuple[Any, ...]] = {
    "GCN": (_basic(gnn.GCN), _xe),
    "GCN, jk cat, batch norm": (_basic(gnn.GCN, jk="cat", norm="batch_norm"), _xe),
    "GCN, jk lstm": (_basic(gnn.GCN, jk="lstm"), _xe),
    "GCN, pair norm": (_basic(gnn.GCN, norm="pair_norm"), _xe),
    "GCN, act softmax": (_basic(gnn.GCN, act=nn.Softmax(dim=-1)), _xe),
    "GraphSAGE, multi": (_basic(gnn.GraphSAGE, aggr=["mean", "max"], project=True), _xe),
    "GraphSAGE, softmax": (_basic(gnn.GraphSAGE, aggr="softmax"), _xe),
    "GIN, jk cat": (_basic(gnn.GIN, jk="cat", train_eps=True), _xe),
    "GAT": (_basic(gnn.GAT, heads=2), _xe),
    "GAT v2, residual": (_basic(gnn.GAT, v2=True, heads=2, residual=True), _xe),
    "EdgeCNN": (_basic(gnn.EdgeCNN), _xe),
    "PNA": (_pna, _xe),
    "MLP": (lambda h: gnn.MLP([CHANNELS, h, h, CLASSES]), lambda: (graph().x,)),
    "MLP, layer norm": (
        lambda h: gnn.MLP([CHANNELS, h, h, CLASSES], norm="layer_norm", plain_last=False),
        lambda: (graph().x,),
    ),
    "GAE": (lambda h: gnn.GAE(gnn.GCN(CHANNELS, h, 2, h)), _xe, _encode),
    "VGAE": (lambda h: gnn.VGAE(Variational(h)), _xe, _encode),
    "ARGA": (lambda h: gnn.ARGA(gnn.GCN(CHANNELS, h, 2, h), nn.Linear(h, 1)), _xe, _encode),
    "GraphUNet": (Unet, _xe),
    "SchNet": (
        lambda h: models.SchNet(h, h, num_interactions=2, num_gaussians=10, interaction_graph=None),
        _molecule,
    ),
    "AttentiveFP": (
        lambda h: gnn.AttentiveFP(CHANNELS, h, CLASSES, 3, num_layers=2, num_timesteps=2),
        _attentive,
    ),
    "RECT_L": (lambda h: gnn.RECT_L(CHANNELS, h), _xe),
    "LINKX": (lambda h: gnn.LINKX(NODES, CHANNELS, h, CLASSES, num_layers=2), _linkx),
    "LightGCN": (lambda h: gnn.LightGCN(NODES, h, 2), lambda: (graph().edge_index,), _lightgcn),
    "SignedGCN": (lambda h: gnn.SignedGCN(CHANNELS, 2 * h, num_layers=2), _signed),
    "PMLP": (lambda h: gnn.PMLP(CHANNELS, h, CLASSES, num_layers=3), _xe),
    "GroupAddRev": (Residual, _xe),
    "MetaLayer": (Meta, _xea),
    "Sequential, jk": (_sequential, _xeb),
    "NeuralFingerprint": (
        lambda h: gnn.NeuralFingerprint(CHANNELS, h, CLASSES, num_layers=2),
        _xeb,
    ),
    "SGFormer": (lambda h: models.SGFormer(CHANNELS, h, CLASSES), _xeb),
    "Polynormer": (lambda h: models.Polynormer(CHANNELS, h, CLASSES, heads=1), _xeb),
    "GNNFF": (
        lambda h: models.GNNFF(h, h, num_layers=2, cutoff=5.0, max_num_neighbors=8),
        _molecule,
    ),
    "DimeNet++": (
        lambda h: models.DimeNetPlusPlus(
            h, 1, 2, 2 * h, h, h, num_spherical=3, num_radial=4, num_output_layers=1
        ),
        _molecule,
    ),
    "ViSNet": (
        lambda h: models.ViSNet(hidden_channels=h, num_heads=4, num_layers=1, num_rbf=8),
        _molecule,
    ),
    "MaskLabel": (lambda h: Masked(h), _xe),
    "torch.compile(GCN)": (lambda h: torch.compile(_basic(gnn.GCN)(h)), _xe),
    "DataParallel(GCN)": (lambda h: nn.DataParallel(_basic(gnn.GCN)(h)), _xe),
}


class Variational(nn.Module):
    """The encoder of autoencoder.py."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.conv1 = gnn.GCNConv(CHANNELS, 2 * hidden)
        self.conv_mu, self.conv_logstd = (gnn.GCNConv(2 * hidden, hidden) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv1(x, edge_index).relu()
        return self.conv_mu(x, edge_index), self.conv_logstd(x, edge_index)


class Masked(nn.Module):
    """Labels as features, as in unimp_arxiv.py."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(CHANNELS, hidden)
        self.label = gnn.MaskLabel(CLASSES, hidden)
        self.conv, self.last = (
            gnn.TransformerConv(hidden, hidden // 2, 2),
            nn.Linear(hidden, CLASSES),
        )
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        y = torch.arange(NODES) % CLASSES
        x = self.label(self.first(x), y, torch.arange(NODES) % 3 == 0)
        return self.last(self.norm(self.conv(x, edge_index)).relu())


NETS = [
    Model(name, "torch_geometric.nn.models", entry[0], entry[1], *entry[2:])
    for name, entry in _NETS.items()
]
