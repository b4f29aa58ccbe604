"""Nets in the forms of PyG's examples that the other nets of the zoo do not have.

Each is named after an example and written anew: what counts is how its inputs come, what it calls,
and what it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import to_dense_adj, to_dense_batch
from zoo_graphs import CHANNELS, CLASSES, NODES, Model, graph
from zoo_own import hetero_dicts

__all__ = ["EXAMPLES"]

KINDS = [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "by", "author")]


class Heads(nn.Module):
    """gat.py: many heads, the last layer of one."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1 = gnn.GATConv(CHANNELS, h // 4, heads=8, dropout=0.6)
        self.conv2 = gnn.GATConv(2 * h, CLASSES, heads=1, concat=False, dropout=0.6)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.dropout(x, p=0.6, training=self.training)
        x = F.elu(self.conv1(x, edge_index))
        return self.conv2(F.dropout(x, p=0.6, training=self.training), edge_index)


class Sampled(nn.Module):
    """reddit.py: a list of layers, an activation in place between them but not after the last."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([gnn.SAGEConv(CHANNELS, h), gnn.SAGEConv(h, CLASSES)])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x, edge_index)
            if i < len(self.convs) - 1:
                x = F.dropout(x.relu_(), p=0.5, training=self.training)
        return x


class Adjacency(nn.Module):
    """gcn2_cora.py: a sparse matrix in place of edges, and the first features in every layer."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.lins = nn.ModuleList([nn.Linear(CHANNELS, h), nn.Linear(h, CLASSES)])
        self.convs = nn.ModuleList(
            gnn.GCN2Conv(h, 0.1, 0.5, layer + 1, shared_weights=False, normalize=False)
            for layer in range(3)
        )

    def forward(self, x: Tensor, adj_t: Tensor) -> Tensor:
        x = first = self.lins[0](F.dropout(x, 0.6, training=self.training)).relu()
        for conv in self.convs:
            x = conv(F.dropout(x, 0.6, training=self.training), first, adj_t).relu()
        return self.lins[1](x).log_softmax(dim=-1)


class Embedded(nn.Module):
    """pna.py: embeddings of nodes and edges, norms, a pool and an MLP of falling widths."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.nodes, self.edges = nn.Embedding(21, h), nn.Embedding(4, h // 2)
        degrees = torch.bincount(torch.bincount(graph().edge_index[1], minlength=NODES))
        self.convs = nn.ModuleList(
            gnn.PNAConv(
                h, h, ["mean", "min", "max", "std"], ["identity", "amplification"], degrees,
                edge_dim=h // 2, towers=2, divide_input=False,
            )
            for _ in range(2)
        )  # fmt: skip
        self.norms = nn.ModuleList(gnn.BatchNorm(h) for _ in range(2))
        self.mlp = nn.Sequential(
            nn.Linear(h, h // 2), nn.ReLU(), nn.Linear(h // 2, h // 4), nn.ReLU(),
            nn.Linear(h // 4, 1),
        )  # fmt: skip

    def forward(self, z: Tensor, edge_index: Tensor, kind: Tensor, batch: Tensor) -> Tensor:
        x, edges = self.nodes(z.squeeze()), self.edges(kind)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x, edge_index, edges)))
        return self.mlp(gnn.global_add_pool(x, batch))


class NoFeatures(nn.Module):
    """rgcn.py: the first layer has a row for each node in the place of features."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1 = gnn.RGCNConv(NODES, h, 3, num_bases=2)
        self.conv2 = gnn.RGCNConv(h, CLASSES, 3, num_bases=2)

    def forward(self, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        x = F.relu(self.conv1(None, edge_index, edge_type))
        return F.log_softmax(self.conv2(x, edge_index, edge_type), dim=1)


class Positions(nn.Module):
    """graph_gps.py: encodings beside embeddings, local and global layers in one."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.nodes, self.edges = nn.Embedding(28, h - 4), nn.Embedding(4, h)
        self.encoding, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(3)
        self.convs = nn.ModuleList(gnn.GPSConv(h, gnn.GINEConv(_mlp(h, h)), 4) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(h, h // 2), nn.ReLU(), nn.Linear(h // 2, 1))

    def forward(self, z: Tensor, pos: Tensor, edge_index: Tensor, *rest: Tensor) -> Tensor:
        kind, batch = rest
        x = torch.cat([self.nodes(z), self.encoding(self.norm(pos))], dim=1)
        for conv in self.convs:
            x = conv(x, edge_index, batch, edge_attr=self.edges(kind))
        return self.mlp(gnn.global_add_pool(x, batch))


class Attended(nn.Module):
    """triangles_sag_pool.py: a Data in, three outputs."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1 = gnn.GINConv(_mlp(CHANNELS, h))
        self.pool1 = gnn.SAGPooling(h, min_score=0.001, GNN=gnn.GCNConv)
        self.conv2 = gnn.GINConv(_mlp(h, h))
        self.lin = nn.Linear(h, 1)

    def forward(self, data: Data) -> tuple[Tensor, Tensor, float]:
        x, edge_index, batch = data.x, data.edge_index, data.batch
        x = F.relu(self.conv1(x, edge_index))
        x, edge_index, _, batch, _, score = self.pool1(x, edge_index, None, batch)
        ratio = x.size(0) / data.x.size(0)
        x = F.relu(self.conv2(x, edge_index))
        return self.lin(gnn.global_max_pool(x, batch)).view(-1), score, ratio


class Passes(nn.Module):
    """qm9_nn_conv.py: one layer called again and again, its states in a GRU, then Set2Set."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.lin0, self.gru = nn.Linear(CHANNELS, h), nn.GRU(h, h)
        weights = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, h * h))
        self.conv = gnn.NNConv(h, h, weights, aggr="mean")
        self.set2set = gnn.aggr.Set2Set(h, processing_steps=3)
        self.lin1, self.lin2 = nn.Linear(2 * h, h), nn.Linear(h, 1)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        out = F.relu(self.lin0(x))
        state = out.unsqueeze(0)
        for _ in range(3):
            message = F.relu(self.conv(out, edge_index, edge_attr))
            out, state = self.gru(message.unsqueeze(0), state)
            out = out.squeeze(0)
        return self.lin2(F.relu(self.lin1(self.set2set(out, batch)))).view(-1)


class Writes(nn.Module):
    """mnist_nn_conv.py: writes to the Data that it is given."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = gnn.GraphConv(CHANNELS, h), gnn.GraphConv(h, 2 * h)
        self.fc1, self.fc2 = nn.Linear(2 * h, h), nn.Linear(h, CLASSES)

    def forward(self, data: Data) -> Tensor:
        data.x = F.elu(self.conv1(data.x, data.edge_index))
        data.x = F.elu(self.conv2(data.x, data.edge_index))
        x = F.elu(self.fc1(gnn.global_mean_pool(data.x, data.batch)))
        return F.log_softmax(self.fc2(F.dropout(x, training=self.training)), dim=1)


class Hops(nn.Module):
    """sign.py: a list of features, one for each number of hops."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.lins = nn.ModuleList(nn.Linear(CHANNELS, h) for _ in range(3))
        self.lin = nn.Linear(3 * h, CLASSES)

    def forward(self, xs: list[Tensor]) -> Tensor:
        found = [
            F.dropout(lin(x).relu(), p=0.5, training=self.training)
            for x, lin in zip(xs, self.lins, strict=True)
        ]
        return self.lin(torch.cat(found, dim=-1)).log_softmax(dim=-1)


class WithALoss(nn.Module):
    """super_gat.py: the output, and a loss of the attention."""

    def __init__(self, h: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"dropout": 0.6, "attention_type": "MX", "is_undirected": True}
        self.conv1 = gnn.SuperGATConv(CHANNELS, h // 2, heads=4, edge_sample_ratio=0.8, **options)
        self.conv2 = gnn.SuperGATConv(2 * h, CLASSES, heads=4, concat=False, **options)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        x = F.elu(self.conv1(x, edge_index))
        loss = self.conv1.get_attention_loss()
        x = self.conv2(x, edge_index)
        return F.log_softmax(x, dim=-1), loss + self.conv2.get_attention_loss()


class Cuts(nn.Module):
    """proteins_mincut_pool.py: soft clusters of a dense matrix, with two losses."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.pool1 = gnn.GCNConv(CHANNELS, h), nn.Linear(h, 6)
        self.conv2, self.conv3 = gnn.DenseGraphConv(h, h), gnn.DenseGraphConv(h, h)
        self.pool2 = nn.Linear(h, 3)
        self.lin1, self.lin2 = nn.Linear(h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.conv1(x, edge_index))
        x, mask = to_dense_batch(x, batch)
        adj = to_dense_adj(edge_index, batch)
        x, adj, cut1, orthogonal1 = gnn.dense_mincut_pool(x, adj, self.pool1(x), mask)
        x = F.relu(self.conv2(x, adj))
        x, adj, cut2, orthogonal2 = gnn.dense_mincut_pool(x, adj, self.pool2(x))
        x = F.relu(self.lin1(self.conv3(x, adj).mean(dim=1)))
        return F.log_softmax(self.lin2(x), dim=-1), cut1 + cut2, orthogonal1 + orthogonal2


class SideBySide(nn.Module):
    """graph_saint.py: the outputs of all layers side by side, edges with weights or without."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = gnn.GraphConv(CHANNELS, h), gnn.GraphConv(h, h)
        self.conv3, self.lin = gnn.GraphConv(h, h), nn.Linear(3 * h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        found = []
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x, edge_index, edge_weight))
            x = F.dropout(x, p=0.2, training=self.training)
            found.append(x)
        return self.lin(torch.cat(found, dim=-1)).log_softmax(dim=-1)


class Sorted(nn.Module):
    """seal_link_pred.py: channels of all layers in a row, nodes sorted by the last, Conv1d."""

    def __init__(self, h: int, k: int = 6) -> None:
        super().__init__()
        self.convs = nn.ModuleList(gnn.GCNConv(i, o) for i, o in ((CHANNELS, h), (h, h), (h, 1)))
        total = 2 * h + 1
        self.pool = gnn.aggr.SortAggregation(k)
        self.conv1, self.conv2 = nn.Conv1d(1, 8, total, total), nn.Conv1d(8, h, 2, 1)
        self.max = nn.MaxPool1d(2, 2)
        self.mlp = gnn.MLP([h * (k // 2 - 1), h, 1], dropout=0.5, norm=None)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        xs = [x]
        for conv in self.convs:
            xs.append(conv(xs[-1], edge_index).tanh())
        x = self.pool(torch.cat(xs[1:], dim=-1), batch).unsqueeze(1)  # [graphs, 1, k * total]
        x = self.max(self.conv1(x).relu())
        return self.mlp(self.conv2(x).relu().flatten(1))


class Closed(nn.Module):
    """tagcn.py: a forward without arguments, on a graph that is known."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = gnn.TAGConv(CHANNELS, h), gnn.TAGConv(h, CLASSES)

    def forward(self) -> Tensor:
        data = graph()
        x = data.x.to(next(self.parameters()))
        x = F.relu(self.conv1(x, data.edge_index))
        return F.log_softmax(self.conv2(F.dropout(x, training=self.training), data.edge_index), 1)


class Attention(nn.Module):
    """The net of to_hetero with attention: no loops of one's own, linear layers beside."""

    def __init__(self, h: int, out: int) -> None:
        super().__init__()
        self.conv1 = gnn.GATv2Conv((-1, -1), h, add_self_loops=False)
        self.lin1 = gnn.Linear(-1, h)
        self.conv2 = gnn.GATv2Conv((-1, -1), out, add_self_loops=False)
        self.lin2 = gnn.Linear(-1, out)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = (self.conv1(x, edge_index) + self.lin1(x)).relu()
        return self.conv2(x, edge_index) + self.lin2(x)


class Pairs(nn.Module):
    """hetero_link_pred.py: an encoder made heterogeneous, a decoder of pairs of two types."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.encoder = gnn.to_hetero(Attention(h, h), (["paper", "author"], KINDS), aggr="sum")
        self.lin1, self.lin2 = nn.Linear(2 * h, h), nn.Linear(h, 1)

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Tensor:
        z = self.encoder(x_dict, edge_index_dict)
        row, col = edge_index_dict["author", "writes", "paper"]
        z = torch.cat([z["author"][row], z["paper"][col]], dim=-1)
        return self.lin2(self.lin1(z).relu()).view(-1)


class Bipartite(nn.Module):
    """bipartite_sage.py: writes to the dict that it is given, embeddings for features."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.authors = nn.Embedding(NODES, h)
        self.papers, self.both = gnn.SAGEConv((-1, -1), h), gnn.SAGEConv((-1, -1), h)
        self.lin, self.decoder = nn.Linear(h, h), nn.Sequential(nn.Linear(2 * h, h), nn.ReLU())
        self.out = nn.Linear(h, 1)

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Tensor:
        x_dict["author"] = self.authors(torch.arange(NODES))
        papers = self.papers(x_dict["paper"], edge_index_dict["paper", "cites", "paper"]).relu()
        pair = (papers, x_dict["author"])
        authors = self.both(pair, edge_index_dict["paper", "by", "author"]).relu()
        x_dict["author"] = self.lin(authors)
        row, col = edge_index_dict["author", "writes", "paper"]
        z = torch.cat([x_dict["author"][row], papers[col]], dim=-1)
        return self.out(self.decoder(z)).view(-1)


class Roots(nn.Module):
    """upfd.py: features of the first node of each graph beside a readout."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.conv1, self.lin0 = gnn.SAGEConv(CHANNELS, h), nn.Linear(CHANNELS, h)
        self.lin1, self.lin2 = nn.Linear(2 * h, h), nn.Linear(h, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = gnn.global_max_pool(self.conv1(x, edge_index).relu(), batch)
        root = (batch[1:] - batch[:-1]).nonzero(as_tuple=False).view(-1)
        root = torch.cat([root.new_zeros(1), root + 1])
        news = self.lin0(x[root]).relu()
        return self.lin2(self.lin1(torch.cat([news, h], dim=-1)).relu()).log_softmax(dim=-1)


class Block(nn.Module):
    """point_transformer_classification.py: attention between two linear layers, networks inside."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.into, self.lin_in = nn.Linear(CHANNELS, h), nn.Linear(h, h)
        self.lin_out = nn.Linear(h, h)
        position = gnn.MLP([3, 8, h], norm=None, plain_last=False)
        attention = gnn.MLP([h, 8, h], norm=None, plain_last=False)
        self.conv = gnn.PointTransformerConv(h, h, pos_nn=position, attn_nn=attention)
        self.out = gnn.MLP([h, h, CLASSES], norm=None)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.into(x).relu()
        x = self.lin_out(self.conv(self.lin_in(x).relu(), pos, edge_index)).relu()
        return self.out(gnn.global_mean_pool(x, batch)).log_softmax(dim=-1)


class Timed(nn.Module):
    """tgn.py without its memory: encodings of times on edges, attention, a predictor of links."""

    def __init__(self, h: int) -> None:
        super().__init__()
        self.time, self.into = nn.Linear(1, h), nn.Linear(CHANNELS, h)
        self.conv = gnn.TransformerConv(h, h // 2, heads=2, dropout=0.1, edge_dim=h + 3)
        self.src, self.dst, self.out = nn.Linear(h, h), nn.Linear(h, h), nn.Linear(h, 1)

    def forward(self, x: Tensor, edge_index: Tensor, times: Tensor, message: Tensor) -> Tensor:
        encoded = self.time(times.view(-1, 1)).cos()
        edges = torch.cat([encoded, message], dim=-1)
        z = self.conv(self.into(x), edge_index, edges)
        row, col = edge_index
        return self.out((self.src(z[row]) + self.dst(z[col])).relu())


def _mlp(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))


def _given(*names: str) -> Callable[[], Any]:
    return lambda: tuple(getattr(graph(), name) for name in names)


def _data() -> Any:
    g = graph()
    return Data(x=g.x, edge_index=g.edge_index, batch=g.batch)


def _adjacency() -> Any:
    g = graph()
    weights = torch.full((g.edge_index.size(1),), 0.3)
    shape = (NODES, NODES)
    return g.x, torch.sparse_coo_tensor(g.edge_index.flip(0), weights, shape).to_sparse_csr()


def _hops() -> Any:
    return ([graph().x, graph().x.flip(0), graph().x.roll(1, 0)],)


def _hetero(net: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    def build(h: int) -> nn.Module:
        model = net(h)
        with torch.no_grad():
            model(*hetero_dicts())
        return model

    return build


def _by_type(h: int) -> nn.Module:
    return gnn.to_hetero(Attention(h, CLASSES), (["paper", "author"], KINDS), aggr="sum")


_EXAMPLES: dict[str, tuple[Callable[[int], nn.Module], Callable[[], Any]]] = {
    "gat.py": (Heads, _given("x", "edge_index")),
    "reddit.py": (Sampled, _given("x", "edge_index")),
    "gcn2_cora.py, a sparse matrix": (Adjacency, _adjacency),
    "pna.py": (Embedded, _given("z", "edge_index", "edge_type", "batch")),
    "rgcn.py, no features": (NoFeatures, _given("edge_index", "edge_type")),
    "graph_gps.py": (Positions, _given("z", "pos", "edge_index", "edge_type", "batch")),
    "triangles_sag_pool.py, Data in": (Attended, _data),
    "qm9_nn_conv.py": (Passes, _given("x", "edge_index", "edge_attr", "batch")),
    "mnist_nn_conv.py, writes to its Data": (Writes, _data),
    "sign.py, a list in": (Hops, _hops),
    "super_gat.py, a loss out": (WithALoss, _given("x", "edge_index")),
    "proteins_mincut_pool.py": (Cuts, _given("x", "edge_index", "batch")),
    "graph_saint.py": (SideBySide, _given("x", "edge_index", "edge_weight")),
    "seal_link_pred.py": (Sorted, _given("x", "edge_index", "batch")),
    "tagcn.py, no arguments": (Closed, tuple),
    "to_hetero_mag.py, attention": (_hetero(_by_type), hetero_dicts),
    "hetero_link_pred.py": (_hetero(Pairs), hetero_dicts),
    "bipartite_sage.py, writes to its dict": (_hetero(Bipartite), hetero_dicts),
    "upfd.py": (Roots, _given("x", "edge_index", "batch")),
    "point_transformer_classification.py": (Block, _given("x", "pos", "edge_index", "batch")),
    "tgn.py, without its memory": (
        Timed,
        _given("x", "edge_index", "edge_weight", "edge_attr"),
    ),
}
EXAMPLES = [Model(name, "PyG's examples", *entry) for name, entry in _EXAMPLES.items()]
