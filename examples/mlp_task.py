"""What examples/mlp.py trains on: a graph, what of it is seen, encodings, models, latencies."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.io import read_planetoid_data
from torch_geometric.nn import GCN
from torch_geometric.transforms import (
    AddLaplacianEigenvectorPE,
    AddRandomWalkPE,
    NormalizeFeatures,
)
from torch_geometric.utils import k_hop_subgraph, scatter, stochastic_blockmodel_graph

from pyg_stkd.timing import interleave

WIDTH, HIDDEN = 128, 64  # of teacher and student
UNSEEN = 200  # nodes of the test and of the validation set each, hidden in the inductive setting


def load(dataset: str, root: Path | None) -> Data:
    """Return a graph with masks; Planetoid's files are those of PyG's class, in its layout."""
    if dataset == "synthetic":
        return NormalizeFeatures()(synthetic())
    if root is None:
        raise SystemExit(f"--dataset {dataset} needs --root, the folder of PyG's Planetoid")
    name = {"cora": "Cora", "citeseer": "CiteSeer"}[dataset]
    raw = root / name / "raw"
    if not (raw / f"ind.{dataset}.x").exists():
        raise SystemExit(f"--root must hold {name}/raw/ind.{dataset}.x and others (got {root})")
    # The reader behind Planetoid(root, name), which would write beside the files.
    return NormalizeFeatures()(read_planetoid_data(str(raw), dataset))


def synthetic(num_nodes: int = 2100, classes: int = 7, words: int = 600) -> Data:
    """Return a graph like one of citations: linked within classes, a bag of words each node."""
    generator = torch.Generator().manual_seed(0)
    size = num_nodes // classes
    probability = torch.full((classes, classes), 0.5 / num_nodes)
    probability.fill_diagonal_(3.0 * classes / num_nodes)  # three links in the class, three others
    with torch.random.fork_rng():
        torch.manual_seed(0)
        edge_index = stochastic_blockmodel_graph([size] * classes, probability)
    y = torch.arange(classes).repeat_interleave(size)
    topic = torch.rand(classes, words, generator=generator).pow(12)  # few words are of a topic
    mixed = 0.25 * topic / topic.sum(1, keepdim=True) + 0.75 / words
    chosen = torch.multinomial(mixed[y], 18, generator=generator)  # [N, 18]
    x = torch.zeros(num_nodes, words).scatter_(1, chosen, 1.0)
    order = torch.randperm(num_nodes, generator=generator)
    data = Data(x=x, edge_index=edge_index, y=y)
    first = torch.cat([order[y[order] == c][:20] for c in range(classes)])
    rest = order[~torch.isin(order, first)]
    for name, nodes in (("train", first), ("val", rest[:500]), ("test", rest[500:1500])):
        data[f"{name}_mask"] = torch.zeros(num_nodes, dtype=torch.bool)
        data[f"{name}_mask"][nodes] = True
    return data


@dataclass
class Task:
    """What a seed sees of the graph, with features as sparse rows, and accuracies on it."""

    whole: Data
    seen: Tensor  # mask of the nodes of the graph that is trained on
    edge_index: Tensor  # edges among them, numbered as in the whole graph
    val: Tensor
    test: Tensor

    @staticmethod
    def of(data: Data, setting: str, seed: int) -> Task:
        """Return the task of a seed: in the inductive setting it chooses which nodes are unseen."""
        seen = torch.ones(data.num_nodes, dtype=torch.bool)
        val, test = (data[mask].nonzero().view(-1) for mask in ("val_mask", "test_mask"))
        if setting == "inductive":
            generator = torch.Generator().manual_seed(seed)
            val, test = (
                nodes[torch.randperm(nodes.numel(), generator=generator)[:UNSEEN]]
                for nodes in (val, test)
            )
            seen[val] = seen[test] = False
        source, target = data.edge_index
        return Task(data, seen, data.edge_index[:, seen[source] & seen[target]], val, test)

    def encodings(self, kind: str, size: int) -> Tensor:
        """Return encodings of the seen graph; an unseen node has the mean of its neighbours'."""
        data = Data(edge_index=self.edge_index, num_nodes=self.whole.num_nodes)
        if kind == "laplacian":
            add = AddLaplacianEigenvectorPE(size, attr_name="code", is_undirected=True)
            code = add(data).code * data.num_nodes**0.5
        else:
            code = AddRandomWalkPE(size, attr_name="code")(data).code
        source, target = self.whole.edge_index
        arrives = self.seen[source] & ~self.seen[target]
        mean = scatter(code[source[arrives]], target[arrives], 0, data.num_nodes, reduce="mean")
        return torch.where(self.seen[:, None], code, mean)

    def accuracy(self, out: Tensor, nodes: Tensor) -> float:
        """Return the share of nodes whose class is right."""
        return (out[nodes].argmax(dim=-1) == self.whole.y[nodes]).float().mean().item()


class FeatureMLP(nn.Module):
    """A student on the features of nodes, and perhaps their encodings; it sees no edges."""

    def __init__(
        self, in_channels: int, hidden: int, out_channels: int, dropout: float, encodings: int = 0
    ) -> None:
        super().__init__()
        self.features = nn.Linear(in_channels, hidden)
        self.encodings = nn.Linear(encodings, hidden, bias=False) if encodings else None
        self.hidden = nn.ReLU()
        self.out = nn.Linear(hidden, out_channels)
        self.dropout = dropout

    def places(self, code: Tensor) -> Tensor:
        """Return what encodings add to the hidden layer, which may be kept in their stead.

        It is linear: a new node has the mean of its neighbours', as of their encodings.
        """
        return self.encodings(code)

    def forward(self, x: Tensor, code: Tensor | None = None, place: Tensor | None = None) -> Tensor:
        h = self.features(drop(x, self.dropout, self.training))
        if self.encodings is not None:
            h = h + (self.places(code) if place is None else place)
        h = F.dropout(self.hidden(h), self.dropout, self.training)
        return self.out(h)


def drop(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of sparse rows."""
    if not training or x.layout != torch.sparse_csr:
        return F.dropout(x, p, training)
    values = F.dropout(x.values(), p, training)
    return torch.sparse_csr_tensor(
        x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False
    )


def teacher_of(data: Data, dropout: float) -> GCN:
    """Return an untrained teacher."""
    return GCN(data.x.size(1), WIDTH, 2, int(data.y.max()) + 1, dropout=dropout)


@torch.no_grad()
def latencies(data: Data, encodings: int) -> dict[str, tuple[float, float]]:
    """Return the milliseconds, one thread's CPU time, to classify 1 and 1,000 nodes.

    Of a teacher, an MLP on features and one that has encodings too, in turn: what they were trained
    with does not matter. The teacher has the faster of two ways, the whole graph and the nodes'
    neighbourhood cut out of it. Features are sparse rows, whose fetching is not counted for any
    model, nor is that of places.
    """
    teacher = teacher_of(data, 0.0).eval()
    sizes = data.x.size(1), HIDDEN, int(data.y.max()) + 1, 0.0
    plain, coded = FeatureMLP(*sizes).eval(), FeatureMLP(*sizes, encodings).eval()
    places = coded.places(torch.randn(data.num_nodes, encodings))
    sparse = data.x.to_sparse_csr()
    found: dict[str, list[float]] = {"teacher": [], "MLP": [], "encodings": []}
    for count in (1, 1000):
        nodes = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))[:count]
        hood = k_hop_subgraph(nodes, 2, data.edge_index, num_nodes=data.num_nodes)[0]
        near = data.x[hood].to_sparse_csr()
        x = data.x[nodes] if count == 1 else data.x[nodes].to_sparse_csr()
        place = places[nodes]

        def cut(nodes: Tensor = nodes, near: Tensor = near) -> Tensor:
            _, edges, at, _ = k_hop_subgraph(
                nodes, 2, data.edge_index, relabel_nodes=True, num_nodes=data.num_nodes
            )
            return teacher(near, edges)[at]

        ways: dict[str, Callable[[], Any]] = {
            "cut": cut,
            "teacher": lambda: teacher(sparse, data.edge_index),
            "MLP": lambda x=x: plain(x),
            "encodings": lambda x=x, place=place: coded(x, place=place),
        }
        times = _milliseconds(ways)
        times["teacher"] = min(times["teacher"], times.pop("cut"))
        for name, value in times.items():
            found[name].append(value)
    return {name: (one, many) for name, (one, many) in found.items()}


def _milliseconds(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Time calls, each again and again for a hundredth of a second, in turn."""
    once = {k: statistics.median(v["cpu"]) for k, v in interleave(ways, 3).items()}
    repeats = {name: max(3, int(0.01 / max(seconds, 1e-5))) for name, seconds in once.items()}
    loops = {
        name: lambda call=call, name=name: [call() for _ in range(repeats[name])]
        for name, call in ways.items()
    }
    return {
        name: 1e3 * statistics.median(times["cpu"]) / repeats[name]
        for name, times in interleave(loops, 9).items()
    }
