"""Nets of one's own, unedited: masked equals compacted, and what must be kept is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GCN,
    BatchNorm,
    GATConv,
    GCNConv,
    GINConv,
    GINEConv,
    HeteroConv,
    SAGEConv,
    global_add_pool,
    global_max_pool,
    global_mean_pool,
)
from torch_geometric.nn import Sequential as Chain

from pyg_stkd.prune import Pruner, Random

N, E = 14, 40


def graph(channels: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(N, channels, generator=generator),
        torch.randint(N, (2, E), generator=generator),
    )


class Tutorial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(6, 16), GCNConv(16, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.relu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.5, training=self.training)
        return F.log_softmax(self.conv2(x, edge_index), dim=-1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lin1 = GATConv(6, 8, heads=2), nn.Linear(6, 16)
        self.conv2, self.lin2 = GATConv(16, 3, heads=2, concat=False), nn.Linear(16, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.elu(self.conv1(x, edge_index) + self.lin1(x))
        return self.conv2(x, edge_index) + self.lin2(x)


class Graphs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for inputs in (6, 12):
            mlp = nn.Sequential(nn.Linear(inputs, 12), nn.ReLU(), nn.Linear(12, 12))
            self.convs.append(GINConv(mlp, train_eps=True))
        self.norms = nn.ModuleList([BatchNorm(12), BatchNorm(12)])
        self.out = nn.Linear(48, 3)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        found = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index)).relu()
            found += [global_mean_pool(x, batch), global_add_pool(x, batch)]
        return self.out(torch.cat(found, dim=-1))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.norm = nn.Linear(6, 12), nn.LayerNorm(12)
        self.conv, self.out = SAGEConv(12, 12), nn.Linear(12, 3)
        self.gain = nn.Parameter(torch.ones(12))
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.inputs(x)
        for _ in range(2):
            h = h + self.alpha * self.conv(self.norm(h), edge_index) * self.gain
        return self.out(h)


class Edges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.atoms, self.bonds = nn.Embedding(5, 12), nn.Linear(4, 12)
        mlp = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 12))
        self.conv, self.out = GINEConv(mlp), nn.Linear(12, 3)

    def forward(self, z: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        x = self.conv(self.atoms(z), edge_index, self.bonds(edge_attr))
        return self.out(global_max_pool(x, batch))


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.channels = 2, 6
        self.query, self.key, self.value = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(6, 12)
        self.mix = nn.Parameter(torch.randn(12, 10))
        self.out = nn.Linear(10, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        shape = (-1, self.heads, self.channels)
        q, k, v = self.query(x).view(shape), self.key(x).view(shape), self.value(x).view(shape)
        weight = torch.exp((q[target] * k[source]).sum(-1, keepdim=True).tanh())
        out = torch.zeros(x.size(0), self.heads, self.channels, dtype=x.dtype)
        out = out.index_add(0, target, weight * v[source])
        return self.out((out.flatten(1) @ self.mix).relu())


class Hetero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        kinds = [("a", "to", "b"), ("b", "to", "a"), ("a", "to", "a")]
        self.convs = nn.ModuleList(
            HeteroConv({kind: SAGEConv((n, n), 12) for kind in kinds}) for n in (6, 12)
        )
        self.out = nn.Linear(12, 3)

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: Any) -> Tensor:
        for conv in self.convs:
            x_dict = {key: x.relu() for key, x in conv(x_dict, edge_index_dict).items()}
        return self.out(x_dict["a"])


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = GCNConv(6, 24), nn.Linear(6, 12)
        self.jump, self.out = nn.Linear(24, 1), nn.Linear(12, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        a, b = self.conv(x, edge_index).chunk(2, dim=-1)
        h = torch.stack([F.glu(torch.cat([a, b], -1)), a * self.gate(x).sigmoid()], dim=0)
        return self.out(h.amax(dim=0))


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(6, 16), GCNConv(16, 8)

    def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)

    def decode(self, z: Tensor, pairs: Tensor) -> Tensor:
        return (z[pairs[0]] * z[pairs[1]]).sum(dim=-1)


BATCH = torch.arange(N) // 7


def example_of(model: nn.Module) -> Any:
    x, edge_index = graph()
    if isinstance(model, Graphs):
        return x, edge_index, BATCH
    if isinstance(model, Edges):
        return torch.arange(N) % 5, edge_index, torch.randn(E, 4), BATCH
    if isinstance(model, Hetero):
        kinds = [("a", "to", "b"), ("b", "to", "a"), ("a", "to", "a")]
        return {"a": x, "b": x.flip(0)}, dict.fromkeys(kinds, edge_index)
    return x, edge_index


@pytest.mark.parametrize(
    ("net", "groups"),
    [
        (Tutorial, {"conv1"}),
        (Attention, {"conv1+lin1"}),
        (Graphs, {"convs.0.nn.0", "convs.0.nn.2", "convs.1.nn.0", "convs.1.nn.2"}),
        (Scaled, {"inputs+conv"}),
        (Edges, {"bonds", "conv.nn.0", "conv.nn.3"}),
        (Heads, {"query+key+value", "mix"}),
        (Hetero, set()),
        (Gated, {"conv+gate"}),
    ],
)
def test_own_nets(net: type[nn.Module], groups: set[str], prune_followed: Any) -> None:
    torch.manual_seed(0)
    model = net()
    pruner = prune_followed(model, example_of(model))
    assert all(row.is_natural for row in pruner.explain())
    assert groups <= set(pruner.widths)


def test_models_without_a_forward(prune_followed: Any) -> None:
    x, edge_index = graph()

    def call(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
        return model.decode(model.encode(x, edge_index), edge_index)

    pruner = prune_followed(Coder(), (x, edge_index), call=call)
    assert set(pruner.widths) == {"conv1", "conv2"}


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("own", [False, True])
def test_norms_of_weights_go_with_their_weights(norm: str, own: bool, prune_followed: Any) -> None:
    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.0

    torch.manual_seed(0)
    x, _ = graph()
    wrap = getattr(nn.utils.parametrizations, norm)
    layers = [nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), wrap(nn.Linear(12, 12))]
    kind = Net if own else nn.Sequential
    pruner = prune_followed(kind(*layers, nn.Linear(12, 3)), (x,), share=0.8)
    assert set(pruner.widths) == {"0", "2", "4"}


def test_functions_in_a_sequential_are_followed(prune_followed: Any) -> None:
    x, edge_index = graph()
    model = Chain(
        "x, edge_index",
        [
            (GCNConv(6, 8), "x, edge_index -> x1"),
            (GCNConv(8, 8), "x1, edge_index -> x2"),
            (lambda a, b: torch.cat([a, b], dim=-1), "x1, x2 -> x"),
            nn.Linear(16, 3),
            nn.LogSoftmax(dim=-1),
        ],
    )
    assert set(prune_followed(model, (x, edge_index)).widths) == {"module_0", "module_1"}
    with pytest.raises(ValueError, match=r"function of several inputs.*or give 'example'"):
        Pruner(model.cpu(), Random(0))


def test_a_class_without_a_rule_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(ValueError, match=r"takes, such as example=\(x, edge_index\) .*Tutorial"):
        Pruner(Tutorial(), Random(0))
    with pytest.raises(ValueError, match=r"'example' must be inputs that the model runs on.*Error"):
        Pruner(Tutorial(), Random(0), example=(graph()[0],))


class Louder(GCNConv):
    def propagate(self, edge_index: Any, size: Any = None, **kwargs: Any) -> Tensor:
        return super().propagate(edge_index, size=size, **kwargs).softmax(dim=-1)


def test_steps_of_ones_own_are_no_longer_the_rules() -> None:
    class Net(Tutorial):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = Louder(6, 16)

    with pytest.raises(ValueError, match=r"(?s)must have channels.*softmax"):
        Pruner(Net(), Random(0), example=graph())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_looked_through(wrap: Any) -> None:
    model = Tutorial()
    pruner = Pruner(wrap(model), Random(0), keep=0.5, example=graph())
    assert pruner.model is model
    pruner.step()
    assert type(pruner.compact()) is Tutorial


def test_inputs_by_name_and_as_data(prune_followed: Any) -> None:
    x, edge_index = graph()

    class OnData(Tutorial):
        def forward(self, data: Data) -> Tensor:  # type: ignore[override]
            data.x = super().forward(data.x, data.edge_index)
            return data.x

    assert set(prune_followed(Tutorial(), {"x": x, "edge_index": edge_index}).widths) == {"conv1"}
    data = Data(x=x, edge_index=edge_index)
    assert set(prune_followed(OnData(), data).widths) == {"conv1"}
    assert data.x is x


def test_where_rules_keep_channels_following_frees_them(prune_followed: Any) -> None:
    model = GCN(6, 12, num_layers=3, out_channels=3, norm="pair_norm")
    assert set(prune_followed(model, graph()).widths) == {"convs.0", "convs.1"}
    held = nn.Sequential(nn.Linear(6, 8), nn.Flatten(), nn.Linear(8, 3))
    assert set(prune_followed(held, (graph()[0],)).widths) == {"0"}
