"""Layers between two linear ones of a model without a rule: masked equals compacted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pyg_stkd.nn import DGCNN, STConv
from pyg_stkd.prune.following import follow
from pyg_stkd.prune.following.leaves import Leaf
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.ports import Ports

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(10, 6, generator=GENERATOR, dtype=torch.float64)
EDGES = torch.randint(0, 10, (2, 40), generator=GENERATOR)
TYPES = torch.arange(10) % 3
KINDS = torch.randint(0, 3, (40,), generator=GENERATOR)
GRAPHS = torch.arange(10) // 5


def sequence(x: Tensor) -> Tensor:
    return x.view(2, 5, -1)  # [B, T, C]


def states(layer: Any, x: Tensor) -> Tensor:
    out, _ = layer(sequence(x))
    return out.flatten(0, 1)


def last(layer: Any, x: Tensor) -> Tensor:
    hidden = layer(sequence(x))[1]
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return hidden[-1].repeat(5, 1)


def steps(cell: Any, x: Tensor) -> Tensor:
    state = None
    for step in sequence(x).unbind(1):
        state = cell(step, state)
    return (state[0] if isinstance(state, tuple) else state).repeat(5, 1)


def attended(layer: Any, x: Tensor) -> Tensor:
    h = sequence(x)
    return layer(h, h, h)[0].flatten(0, 1)


# The layer, of 12 to 12 channels, and how it is called.
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Tensor], Tensor]]] = {
    "gru": (lambda: nn.GRU(12, 12, batch_first=True), states),
    "gru, two layers, both ways": (
        lambda: nn.GRU(12, 6, 2, batch_first=True, bidirectional=True),
        states,
    ),
    "lstm": (lambda: nn.LSTM(12, 12, batch_first=True), states),
    "lstm, last state": (lambda: nn.LSTM(12, 12, batch_first=True), last),
    "gru cell": (lambda: nn.GRUCell(12, 12), steps),
    "lstm cell": (lambda: nn.LSTMCell(12, 12), steps),
    "attention": (lambda: nn.MultiheadAttention(12, 3, batch_first=True), attended),
    "bilinear": (lambda: nn.Bilinear(12, 12, 12), lambda layer, x: layer(x, x)),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(12, 12)), lambda f, x: f(x)),
    "weight norm of columns": (
        lambda: parametrizations.weight_norm(nn.Linear(12, 12), dim=1),
        lambda f, x: f(x),
    ),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(12, 12)), lambda f, x: f(x)),
    "typed linear": (lambda: pyg.HeteroLinear(12, 12, 3), lambda f, x: f(x, TYPES)),
    "embedding": (lambda: nn.Embedding(3, 12), lambda f, x: x + f(TYPES)),
    "soft groups": (lambda: pyg.DiffGroupNorm(12, 4), lambda f, x: f(x)),
    "pair norm": (lambda: pyg.PairNorm(), lambda f, x: f(x, GRAPHS)),
    "rms norm": (lambda: nn.RMSNorm(12), lambda f, x: f(x)),
    "typed layer norm": (lambda: pyg.HeteroLayerNorm(12, 3), lambda f, x: f(x, TYPES)),
    "typed batch norm": (lambda: pyg.HeteroBatchNorm(12, 3), lambda f, x: f(x, TYPES)),
    "gcn2": (
        lambda: pyg.GCN2Conv(12, 0.1, theta=0.5, layer=1, shared_weights=False),
        lambda f, x: f(f(x, x.tanh(), EDGES), x.tanh(), EDGES),
    ),
    "typed edges": (lambda: pyg.RGCNConv(12, 12, 3), lambda f, x: f(x, EDGES, KINDS)),
    "gated graph": (lambda: pyg.GatedGraphConv(12, 2), lambda f, x: f(x, EDGES)),
}
PARAMETRIZED = {"weight norm", "weight norm of columns", "spectral norm"}


class Net(nn.Module):
    """A model of one's own around a layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 2)
        self.layer = LAYERS[name][0]()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(LAYERS[self.name][1](self.layer, self.first(x).relu()).tanh())


def run(model: nn.Module) -> Tensor:
    out: Tensor = model(X.to(next(model.parameters()).dtype))
    return out


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("seed", "share", "dtype"),
    [
        (0, 0.4, torch.float64),
        pytest.param(1, 0.01, torch.float64, marks=pytest.mark.full),
        pytest.param(2, 0.4, torch.float32, marks=pytest.mark.full),
    ],
)
def test_masked_equals_compacted(
    check_rule: Any, name: str, seed: int, share: float, dtype: torch.dtype
) -> None:
    pruner = check_rule(
        lambda: Net(name), run, seed, share, dtype=dtype, example=(X.to(dtype),), strict=True
    )
    # Neither the layer nor what it takes and gives is kept.
    left = {name: parameter.shape for name, parameter in pruner.compact().named_parameters()}
    whole = {name: parameter.shape for name, parameter in Net(name).named_parameters()}
    unchanged = {key for key in whole if whole[key] == left[key]} - {"last.bias"}
    assert unchanged == set()


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in PARAMETRIZED])
def test_round_trips(check_round_trips: Any, name: str) -> None:
    check_round_trips(lambda: Net(name), run, example=(X,))


class Around(nn.Module):
    """A layer between two linear ones, in a class without a rule."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(6, 6), layer, nn.Linear(width, 2)

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        return self.last(self.layer(self.first(x), *args))


CHANNELS_OF = {"channels": (8, 8), "mlp_channels": (8,), "k": 3}
ENDINGS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], bool]] = {
    "linear": (lambda: nn.Linear(6, 8), (), True),
    "gcn": (lambda: pyg.GCNConv(6, 8), (EDGES,), True),
    "cheb": (lambda: pyg.ChebConv(6, 8, 2), (EDGES,), True),
    "sage": (lambda: pyg.SAGEConv(6, 8), (EDGES,), True),
    "graph": (lambda: pyg.GraphConv(6, 8), (EDGES,), True),
    "gat": (lambda: pyg.GATConv(6, 8), (EDGES,), True),
    "gat v2": (lambda: pyg.GATv2Conv(6, 8), (EDGES,), True),
    "transformer": (lambda: pyg.TransformerConv(6, 8), (EDGES,), True),
    "rgcn": (lambda: pyg.RGCNConv(6, 8, 3), (EDGES, KINDS), True),
    "batch norm": (lambda: nn.BatchNorm1d(6), (), True),
    "layer norm": (lambda: nn.LayerNorm(6), (), True),
    "dgcnn": (lambda: DGCNN(6, 8, **CHANNELS_OF), (GRAPHS,), True),
    "dgcnn, one layer at its end": (
        lambda: DGCNN(6, 8, **{**CHANNELS_OF, "mlp_channels": ()}),
        (GRAPHS,),
        True,
    ),
    "stgcn block": (lambda: STConv(6, 8, 8, 2), (EDGES,), True),
    "stgcn block without a norm": (lambda: STConv(6, 8, 8, 2, norm=None), (EDGES,), False),
    "stgcn block, norm of nodes": (
        lambda: STConv(6, 8, 8, 2, norm="batch", num_nodes=10),
        (EDGES,),
        False,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_where_masked_channels_are_zero_is_known_or_found_without_hooks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, args, known = ENDINGS[name]
    torch.manual_seed(0)
    layer, found = build(), []
    x = torch.randn(2, 4, 10, 6) if isinstance(layer, STConv) else X.float()
    of_rows, is_zero = Leaf._ends_in_rows, Leaf._is_zero

    def tried(leaf: Leaf, *args: Any) -> bool:
        inner = [m for m in leaf.module.modules() if m is not leaf.module]
        hooks = [hook for m in inner for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
        found.append((leaf.module, of_rows(leaf), is_zero(leaf, *args), hooks))
        return found[-1][2]

    monkeypatch.setattr(Leaf, "_ends_in_rows", lambda leaf: False)
    monkeypatch.setattr(Leaf, "_is_zero", tried)
    width = 6 if "norm" in name and "stgcn" not in name else 8
    run = Around(layer, width).eval()
    ports = Ports(run, follow=lambda ports, _: follow(ports, run, Example((x, *args))))
    assert ports.reasons
    of_layer = [each for each in found if each[0] is layer]
    assert len(of_layer) == 1
    _, is_known, zero, hooks = of_layer[0]
    assert not hooks
    assert is_known == known
    assert zero or not known
