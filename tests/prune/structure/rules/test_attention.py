"""Tests of pyg_stkd/prune/structure/rules/attention.py: channels of all heads, or whole heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor

from pyg_stkd.nn import GATConv
from pyg_stkd.prune import Pruner, Random

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 2, 3, 4, 5, 0, 2, 0, 1, 4]])
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
ATTRS = torch.randn(10, 2, generator=GENERATOR, dtype=torch.float64)
KINDS = [GATConv, pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv]
# The layers whose rows are those of the heads: of sources, of targets.
NAMES = {
    GATConv: ("lin", "lin"),
    pyg.GATConv: ("lin", "lin"),
    pyg.GATv2Conv: ("lin_l", "lin_r"),
    pyg.TransformerConv: ("lin_key", "lin_query"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_each_head_belongs_to_a_channel(said: Any, kind: Any) -> None:
    found = said(kind(3, 2, heads=3), 3)
    channels = found.out[:2]
    assert found.out == channels * 3  # row h * F + c belongs to channel c
    assert found.free(found.out) == [True] * 6
    for name in NAMES[kind]:
        assert found.owned[f"{name}.weight"] == {0: found.out, 1: found.x}
    assert found.of_root["out_channels"] == channels
    assert found.of_root["in_channels"] == found.x
    assert found.free(found.of_root["heads"]) == [False] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_all_rows_of_a_head_belong_to_it(said: Any, kind: Any) -> None:
    found = said(kind(3, 2, heads=3), 3, heads=True)
    a, b, c = found.of_root["heads"]
    assert found.out == (a, a, b, b, c, c)
    assert found.free(found.of_root["heads"]) == [True] * 3
    assert found.ports.is_head(found.out)
    assert not found.ports.is_head(found.of_root["out_channels"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [False, True])
def test_means_of_heads_keep_their_number(said: Any, kind: Any, heads: bool) -> None:
    found = said(kind(3, 2, heads=3, concat=False), 3, heads=heads)
    assert len(found.out) == 2
    assert found.out == found.of_root["out_channels"]
    assert found.free(found.of_root["heads"]) == [False] * 3
    if kind is not pyg.TransformerConv:
        assert found.owned["bias"][0] == found.out


@pytest.mark.parametrize("kind", [GATConv, pyg.GATConv])
def test_scores_are_of_heads_and_channels(said: Any, kind: Any) -> None:
    found = said(kind(3, 2, heads=3, edge_dim=4), 3)
    place = {1: found.of_root["heads"], 2: found.of_root["out_channels"]}
    assert [found.owned[name] for name in ("att_src", "att_dst", "att_edge")] == [place] * 3
    edges = found.owned["lin_edge.weight"]
    assert edges[0] == found.out
    assert found.free(edges[1]) == [False] * 4  # features of edges are none of the model's


def test_scores_of_the_second_kind_are_one_vector(said: Any) -> None:
    found = said(pyg.GATv2Conv(3, 2, heads=3, edge_dim=4), 3)
    assert found.owned["att"] == {1: found.of_root["heads"], 2: found.of_root["out_channels"]}
    assert found.owned["lin_edge.weight"][0] == found.out
    shared = said(pyg.GATv2Conv(3, 2, heads=3, share_weights=True), 3)
    assert shared.owned["lin_l.weight"] == {0: shared.out, 1: shared.x}
    assert "lin_r.weight" not in shared.owned  # which is the same layer


@pytest.mark.parametrize("kind", [GATConv, pyg.GATConv, pyg.GATv2Conv])
@pytest.mark.parametrize("concat", [False, True])
def test_what_is_added_at_the_end_has_the_channels_of_the_output(
    said: Any, kind: Any, concat: bool
) -> None:
    found = said(kind(3, 2, heads=3, residual=True, concat=concat), 3)
    assert found.owned["res.weight"] == {0: found.out, 1: found.x}
    assert found.owned["bias"] == {0: found.out}


@pytest.mark.parametrize("kind", [pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv])
def test_sources_and_targets_have_layers_of_their_own(said: Any, kind: Any) -> None:
    src, dst = ("lin_src", "lin_dst") if kind is pyg.GATConv else NAMES[kind]
    found = said(kind((3, 5), 2, heads=3), 3, 5)
    assert found.owned[f"{src}.weight"] == {0: found.out, 1: found.x[0]}
    assert found.owned[f"{dst}.weight"] == {0: found.out, 1: found.x[1]}
    assert found.of_root["in_channels"] == list(found.x)
    with pytest.raises(ValueError, match=r"it takes 5 channels \(got 3\)"):
        said(kind((3, 5), 2), 3, 3)
    unknown = said(kind((3, 5), 2), 3, None)
    assert unknown.free(unknown.owned[f"{dst}.weight"][1]) == [False] * 5


def test_queries_keys_values_and_what_is_skipped(said: Any) -> None:
    found = said(pyg.TransformerConv(3, 2, heads=3, beta=True, edge_dim=4), 3)
    for name in ("lin_query", "lin_key", "lin_value", "lin_skip"):
        assert found.owned[f"{name}.weight"] == {0: found.out, 1: found.x}
        assert found.owned[f"{name}.bias"] == {0: found.out}
    assert found.owned["lin_edge.weight"][0] == found.out
    # The gate reads the output, what is skipped, and their difference; it is one number.
    assert found.owned["lin_beta.weight"][1] == found.out * 3
    assert found.free(found.owned["lin_beta.weight"][0]) == [False]
    bare = said(pyg.TransformerConv(3, 2, heads=3, root_weight=False, bias=False), 3)
    assert {name.partition(".")[0] for name in bare.owned} == {"lin_query", "lin_key", "lin_value"}
    means = said(pyg.TransformerConv(3, 2, heads=3, concat=False), 3)
    assert means.owned["lin_skip.weight"][0] == means.out
    assert means.owned["lin_query.weight"][0] == means.out * 3


def chain(*layers: Any) -> pyg.Sequential:
    return pyg.Sequential("x, e", [(layer, "x, e -> x") for layer in layers])


@pytest.mark.parametrize("bias", [False, True])
def test_queries_grow_as_the_root_of_the_width_shrinks(bias: bool) -> None:
    conv = pyg.TransformerConv(3, 4, heads=2, bias=bias)
    model = chain(conv, pyg.GCNConv(8, 2)).double()
    pruner = Pruner(model, Random(0), keep=1.0)
    pruner.mask({"module_0": torch.tensor([1, 0, 0, 1])})
    small: Any = pruner.compact().module_0
    rows, scale = [0, 3, 4, 7], math.sqrt(2 / 4)
    original = {name: p.detach() for name, p in conv.named_parameters()}
    for name in ("lin_query", "lin_key", "lin_value"):
        factor = scale if name == "lin_query" else 1.0
        for key in ("weight", "bias") if bias else ("weight",):
            whole = original[f"{name}.{key}_orig"][rows]
            torch.testing.assert_close(getattr(getattr(small, name), key), factor * whole)
    assert (small.heads, small.out_channels) == (2, 2)
    torch.testing.assert_close(pruner.compact()(X, EDGES), model(X, EDGES))
    pruner.shrink()  # in place, and once
    assert torch.equal(model.module_0.lin_query.weight, small.lin_query.weight)


def test_heads_are_dropped_without_another_scale() -> None:
    conv = pyg.TransformerConv(3, 4, heads=2)
    model = chain(conv, pyg.GCNConv(8, 2)).double()
    pruner = Pruner(model, Random(0), "head", keep=1.0)
    pruner.mask({"module_0": torch.tensor([0, 1])})
    small: Any = pruner.compact().module_0
    assert torch.equal(small.lin_query.weight, conv.lin_query.weight_orig[4:])
    assert (small.heads, small.out_channels) == (1, 4)
    torch.testing.assert_close(pruner.compact()(X, EDGES), model(X, EDGES))


@pytest.mark.parametrize("kind", KINDS)
def test_small_layers_use_features_of_edges(declared: Any, kind: Any) -> None:
    def run(layers: Any, x: Tensor) -> Tensor:
        return layers[1](layers[0](x, EDGES, ATTRS), EDGES)

    model = declared([kind(3, 4, heads=2, edge_dim=2), pyg.GCNConv(8, 2)], run).double()
    pruner = Pruner(model, Random(0), keep=1.0)
    pruner.mask({"layers.0": torch.tensor([1, 0, 1, 0])})
    small: Any = pruner.compact()
    assert small.layers[0].out_channels == 2
    assert small.layers[0].lin_edge.weight.shape == (4, 2)
    for _ in range(2):  # the second time, the products of the first have no graph any more
        out = model(X)
        torch.testing.assert_close(small(X), out)
        out.sum().backward()


@pytest.mark.parametrize("granularity", ["channel", "head"])
def test_masked_equals_compacted(check_rule: Any, granularity: Any) -> None:
    def build() -> Any:
        return chain(
            pyg.TransformerConv(3, 4, heads=3, beta=True),
            pyg.GATv2Conv(12, 3, heads=2, residual=True),
            GATConv(6, 3, heads=2, concat=granularity == "head"),
            pyg.GCNConv(6 if granularity == "head" else 3, 2),
        )

    pruner = check_rule(build, lambda m: m(X, EDGES), 0, 0.5, granularity=granularity)
    assert len(pruner.widths) == 3


@pytest.mark.parametrize(
    ("heads", "groups", "units"), [(1, 1, 24), (2, 1, 12), (4, 2, 6), (2, 4, 6), (4, 4, 6)]
)
def test_layers_that_see_all_layers_before_lose_channels_of_each_head_and_group(
    said: Any, heads: int, groups: int, units: int
) -> None:
    found = said(pyg.DNAConv(24, heads, groups), 24)
    assert found.out == found.out[:units] * (24 // units)
    assert len(set(found.out)) == units
    part = 24 // groups
    assert found.same(found.x[:part] * groups, found.x)
    for name in ("lin_q", "lin_k", "lin_v"):
        weight = found.owned[f"multi_head.{name}.weight"]
        assert weight == {1: found.x[:part], 2: found.out[:part]}
        assert found.owned[f"multi_head.{name}.bias"] == {0: found.out}
    assert all(found.free(found.out))


class Jumping(torch.nn.Module):
    """The net of PyG's example: each layer is given the outputs of all before it."""

    def __init__(self, heads: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(3, 24), torch.nn.Linear(24, 2)
        layers = (pyg.DNAConv(24, heads, groups, 0.2, bias=bias) for _ in range(2))
        self.convs = torch.nn.ModuleList(layers)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found = self.first(x).relu().view(x.size(0), 1, -1)
        for conv in self.convs:
            found = torch.cat([found, conv(found, edge_index).relu().unsqueeze(1)], dim=1)
        return self.last(found[:, -1])


@pytest.mark.parametrize(("heads", "groups", "bias"), [(1, 1, True), (4, 2, False), (2, 4, True)])
def test_nets_of_layers_that_see_all_before_shrink_and_keep_their_scale(
    heads: int, groups: int, bias: bool
) -> None:
    torch.manual_seed(0)
    model = Jumping(heads, groups, bias).double()
    pruner = Pruner(model, Random(0), keep=0.5, example=(X, EDGES))
    assert set(pruner.widths) == {"first+convs.0+convs.1"}
    assert all(row.is_natural for row in pruner.explain())
    pruner.step()
    small = pruner.compact()
    attention = small.convs[0].multi_head
    assert attention.in_channels == attention.lin_q.out_channels == small.first.out_features < 24
    torch.testing.assert_close(small.eval()(X, EDGES), model.eval()(X, EDGES))
