"""PyG's layers in a net of one's own: masked equals compacted, and what is kept is what is said."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.registry import find_rule

N, C = 10, 12
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 6, generator=GENERATOR, dtype=torch.float64)
POINTS = torch.randn(N, 3, generator=GENERATOR, dtype=torch.float64)
GRAPHS = torch.arange(N) // 5
EDGES = torch.randint(0, 5, (2, 40), generator=GENERATOR) + 5 * (torch.arange(40) % 2)
ATTRS = torch.randn(40, 3, generator=GENERATOR, dtype=torch.float64)
KINDS = torch.randint(0, 3, (40,), generator=GENERATOR)
ADJ = (torch.rand(2, 5, 5, generator=GENERATOR) < 0.5).double()
DEGREES = torch.bincount(torch.bincount(EDGES[1], minlength=N))
META = (["a", "b"], [("a", "to", "a"), ("a", "to", "b"), ("b", "to", "a")])


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def on_edges(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x, EDGES)
    return out


def with_attrs(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x, EDGES, ATTRS.to(x))
    return out


def with_kinds(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x, EDGES, KINDS)
    return out


def on_points(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x, POINTS.to(x), EDGES)
    return out


def dense(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x.view(2, 5, -1), ADJ.to(x)).flatten(0, 1)
    return out


def pooled(layer: Any, x: Tensor) -> Tensor:
    x, _, _, batch, *_ = layer(x, EDGES, batch=GRAPHS)
    return pyg.global_add_pool(x, batch)[GRAPHS]


def typed(layer: Any, x: Tensor) -> Tensor:
    out = layer({"a": x, "b": x.flip(0)}, dict.fromkeys(META[1], EDGES))
    return out["a"] + out["b"].flip(0)


def plain(layer: Any, x: Tensor) -> Tensor:
    out: Tensor = layer(x)
    return out


class Encoder(nn.Module):
    """A model of one type of nodes, for to_hetero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.SAGEConv((C, C), C)
        self.lin = pyg.Linear(C, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index).relu() + self.lin(x)

    forward.__annotations__.clear()  # which torch.fx of torch 2.6 does not write as strings


class Scales(nn.Module):
    """Raw parameters in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ParameterList(torch.randn(C) for _ in range(2))
        self.mixes = nn.ParameterDict({"mix": torch.randn(C, C)})

    def forward(self, x: Tensor) -> Tensor:
        for scale in self.scales:
            x = (x * scale).tanh()
        return x @ self.mixes["mix"]


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.glu = nn.Linear(C, 2 * C), nn.GLU(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.glu(self.lin(x))


class Mixed(nn.Module):
    """A function over channels between layers."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.before, self.function, self.after = nn.Linear(C, 8), function, nn.Linear(8, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


@dataclass
class Case:
    """A layer, how it is called, and what of it is kept: a part of why, by names of explain()."""

    build: Callable[[], nn.Module]
    call: Callable[[Any, Tensor], Tensor] = on_edges
    width: int = C
    kept: Mapping[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64
    fixed: tuple[str, ...] = ()  # parameters without channels


GONE = "its result depends on channels that are gone"
CASES = {
    "GINEConv": Case(lambda: pyg.GINEConv(mlp(C, 8, C), edge_dim=3), with_attrs),
    "PNAConv": Case(
        lambda: pyg.PNAConv(C, C, ["mean", "max", "std"], ["identity", "linear"], DEGREES)
    ),
    "PNAConv, towers": Case(
        lambda: pyg.PNAConv(C, C, ["mean"], ["identity"], DEGREES, edge_dim=3, towers=2), with_attrs
    ),
    "TransformerConv": Case(
        lambda: pyg.TransformerConv(C, 4, 3, edge_dim=3, beta=True), with_attrs
    ),
    "RGCNConv, bases": Case(
        lambda: pyg.RGCNConv(C, C, 3, num_bases=2), with_kinds, fixed=("layer.comp",)
    ),
    "RGCNConv, blocks": Case(
        lambda: pyg.RGCNConv(C, C, 3, num_blocks=2),
        with_kinds,
        kept={"first": "dimension 0 of its result shrinks by other channels"},
    ),
    "FastRGCNConv": Case(lambda: pyg.FastRGCNConv(C, C, 3), with_kinds),
    "RGATConv": Case(
        lambda: pyg.RGATConv(C, 6, 3, heads=2),
        with_kinds,
        kept={"layer.q": "another shape than its channels", "layer": "must match the size"},
    ),
    "TAGConv": Case(lambda: pyg.TAGConv(C, C)),
    "SGConv": Case(lambda: pyg.SGConv(C, C, K=2)),
    "ARMAConv": Case(lambda: pyg.ARMAConv(C, C, num_stacks=2, num_layers=2)),
    "NNConv": Case(
        lambda: pyg.NNConv(C, C, mlp(3, 8, C * C)), with_attrs, kept={"first": "Expected size"}
    ),
    "GENConv": Case(lambda: pyg.GENConv(C, C, edge_dim=3, learn_t=True), with_attrs),
    "DeepGCNLayer": Case(lambda: pyg.DeepGCNLayer(pyg.GENConv(C, C), nn.LayerNorm(C), nn.ReLU())),
    "DeepGCNLayer, dense": Case(
        lambda: pyg.DeepGCNLayer(pyg.GENConv(C, C), pyg.LayerNorm(C), nn.ReLU(), block="dense"),
        width=2 * C,
    ),
    "SuperGATConv": Case(lambda: pyg.SuperGATConv(C, 6, heads=2)),
    "FiLMConv": Case(lambda: pyg.FiLMConv(C, C)),
    "MixHopConv": Case(lambda: pyg.MixHopConv(C, 6, powers=[0, 1])),
    "LEConv": Case(lambda: pyg.LEConv(C, C)),
    "ClusterGCNConv": Case(lambda: pyg.ClusterGCNConv(C, C)),
    "PointNetConv": Case(lambda: pyg.PointNetConv(mlp(C + 3, 8, C), mlp(C, C)), on_points),
    "PointTransformerConv": Case(
        lambda: pyg.PointTransformerConv(C, C, mlp(3, 8, C), mlp(C, 8, C)), on_points
    ),
    "GPSConv": Case(lambda: pyg.GPSConv(C, pyg.GINConv(mlp(C, 8, C)), heads=3)),
    "GPSConv, performer": Case(
        lambda: pyg.GPSConv(C, pyg.GCNConv(C, C), heads=2, attn_type="performer")
    ),
    "HeteroConv": Case(
        lambda: pyg.HeteroConv({kind: pyg.SAGEConv((C, C), C) for kind in META[1]}), typed
    ),
    "to_hetero": Case(lambda: pyg.to_hetero(Encoder(), META), typed),
    "HANConv": Case(lambda: pyg.HANConv(C, C, META, heads=2), typed),
    "HGTConv": Case(
        lambda: pyg.HGTConv(C, C, META, heads=2),
        typed,
        kept={  # it divides by the root of its width, and mixes features by a matrix a head
            "layer.kqv_lin.lins.a": "size of tensor",
            "layer.kqv_lin.lins.b": "size of tensor",
            "layer.k_rel": "",
            "layer.v_rel": "",
            "layer.p_rel.a__to__a": "another shape than its channels",
        },
    ),
    "ResGatedGraphConv": Case(lambda: pyg.ResGatedGraphConv(C, C)),
    "GatedGraphConv": Case(lambda: pyg.GatedGraphConv(C, 2)),
    "GeneralConv": Case(
        lambda: pyg.GeneralConv(C, C, 3, attention=True, heads=2, skip_linear=True), with_attrs
    ),
    "SAGPooling": Case(lambda: pyg.SAGPooling(C, ratio=0.6), pooled),
    "TopKPooling": Case(lambda: pyg.TopKPooling(C, ratio=0.6), pooled),
    "ASAPooling": Case(lambda: pyg.ASAPooling(C, ratio=0.6), pooled, dtype=torch.float32),
    "Set2Set": Case(
        lambda: pyg.Set2Set(C, 2), lambda layer, x: layer(x, GRAPHS)[GRAPHS], width=2 * C
    ),
    "DenseSAGEConv": Case(lambda: pyg.DenseSAGEConv(C, C), dense),
    "DenseGCNConv": Case(lambda: pyg.DenseGCNConv(C, C), dense),
    "DenseGraphConv": Case(lambda: pyg.DenseGraphConv(C, C), dense),
    "DenseGATConv": Case(lambda: pyg.DenseGATConv(C, 6, heads=2), dense),
    "GraphUNet": Case(lambda: pyg.GraphUNet(C, 8, C, depth=2, pool_ratios=0.8)),
    "LINKX": Case(lambda: pyg.LINKX(N, C, 8, C, num_layers=2)),
    "GroupNorm": Case(lambda: nn.GroupNorm(3, C), plain),
    "PairNorm": Case(pyg.PairNorm, plain),
    "Embedding": Case(lambda: nn.Embedding(3, C), lambda layer, x: x + layer(KINDS[:N])),
    "ParameterList": Case(Scales, plain),
    "Flatten": Case(lambda: Mixed(nn.Flatten()), plain),
    "GLU": Case(Gate, plain),
    "Softmax": Case(lambda: Mixed(nn.Softmax(dim=-1)), plain, kept={"layer.before": GONE}),
    "LogSoftmax": Case(lambda: Mixed(nn.LogSoftmax(dim=-1)), plain, kept={"layer.before": GONE}),
}


# The layers of PyG's examples, and torch's in them.
USED = [
    "RGCNConv",
    "FastRGCNConv",
    "TransformerConv",
    "GINEConv",
    "PNAConv",
    "NNConv",
    "TAGConv",
    "SGConv",
    "GCN2Conv",
    "GENConv",
    "SuperGATConv",
    "RGATConv",
    "HeteroConv",
    "HANConv",
    "HGTConv",
    "GPSConv",
    "ARMAConv",
    "FiLMConv",
    "MixHopConv",
    "DNAConv",
    "PointNetConv",
    "PointTransformerConv",
    "ClusterGCNConv",
    "LEConv",
    "GatedGraphConv",
    "DenseSAGEConv",
    "DenseGraphConv",
    "TopKPooling",
    "SAGPooling",
    "DeepGCNLayer",
    "GraphUNet",
    "LINKX",
    "PairNorm",
    "Embedding",
    "GRU",
    "LSTM",
    "GRUCell",
    "MultiheadAttention",
    "GroupNorm",
]


@pytest.mark.parametrize("name", USED)
def test_each_layer_of_the_examples_has_a_rule_or_is_followed(name: str) -> None:
    cases = {case.partition(",")[0] for case in CASES}
    assert name in cases or find_rule(getattr(pyg, name, getattr(nn, name, object))) is not None


class Net(nn.Module):
    """A net of one's own around a layer."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(6, C), case.build()
        self.last, self.call = nn.Linear(case.width, 2), case.call

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.call(self.layer, self.first(x).relu()).tanh())


def run(model: nn.Module) -> Tensor:
    out: Tensor = model(X.to(next(model.parameters()).dtype))
    return out


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("seed", "share"), [(0, 0.4), pytest.param(1, 0.05, marks=pytest.mark.full)]
)
def test_masked_equals_compacted(check_rule: Any, name: str, seed: int, share: float) -> None:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "These channels are kept")
        warnings.filterwarnings("ignore", "Sparse invariant checks")  # in ASAPooling
        pruner = check_rule(
            lambda: Net(case), run, seed, share, case.dtype, example=(X.to(case.dtype),)
        )
    rows = [row for row in pruner.explain() if not row.is_natural]
    assert {row.name for row in rows} == set(case.kept)
    assert all(case.kept[row.name] in row.why for row in rows), rows
    if not case.kept:  # then all that has channels is smaller
        left = {name: p.shape for name, p in pruner.compact().named_parameters()}
        same = {n for n, p in Net(case).named_parameters() if p.shape == left[n] and p.numel() > 1}
        assert same == {"last.bias", *case.fixed}


HEADS = {
    "TransformerConv": Case(lambda: pyg.TransformerConv(C, 4, heads=3)),
    "GATv2Conv": Case(lambda: pyg.GATv2Conv(C, 4, heads=3)),
}


@pytest.mark.parametrize("name", HEADS)
def test_whole_heads(check_rule: Any, name: str) -> None:
    pruner = check_rule(
        lambda: Net(HEADS[name]), run, 0, 0.7, granularity="head", example=(X,), strict=True
    )
    (left,) = pruner.widths.values()
    assert left == pruner.compact().layer.heads < 3


def test_heads_as_wide_as_the_inputs_are_no_units() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.attention(x, x, x)[0]
            return out

    with pytest.raises(ValueError, match="must have heads that can be pruned"):
        Pruner(Attention(), Random(0), granularity="head", example=(X.float(),))
