from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch.autograd import gradcheck

from pyg_stkd.graph import Graph
from pyg_stkd.nn.sequence.cheb_conv import ChebConv
from pyg_stkd.nn.sequence.gcn_conv import GCNConv
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.nn.sequence.spectral_conv import edges_for_pyg

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1, 0], [1, 2, 0, 0, 1, 2, 0]])
WEIGHT = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.double)
SEQUENCE = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def cheb(propagation: Any) -> ChebConv:
    return ChebConv(2, 3, 3, propagation=propagation)


def gcn(propagation: Any) -> GCNConv:
    return GCNConv(2, 3, propagation=propagation)


def step_by_step(conv: torch.nn.Module, x: Tensor, *graph: Tensor | None) -> Tensor:
    return torch.stack([torch.stack([conv(x[b, t], *graph) for t in range(3)]) for b in range(2)])


@pytest.mark.parametrize("K", [1, 2, 3, 5])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_equals_chebconv_of_pyg(K: int, weight: Tensor | None, propagation: str) -> None:
    theirs = pyg.ChebConv(2, 3, K).double()
    ours = ChebConv(2, 3, K, propagation=propagation).double()
    torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    x = SEQUENCE.clone().requires_grad_()
    out, expected = ours(x, EDGES, weight), step_by_step(theirs, x, EDGES, weight)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    a = torch.autograd.grad(out, [x, *ours.parameters()], seed)
    torch.testing.assert_close(a, torch.autograd.grad(expected, [x, *theirs.parameters()], seed))


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_gradient_of_edge_weights(propagation: str) -> None:
    conv = ChebConv(2, 1, 3, propagation=propagation).double()
    weight = WEIGHT.clone().requires_grad_()
    assert gradcheck(lambda w: conv(SEQUENCE, EDGES, w), weight)


def test_residual_is_one_more_matrix() -> None:
    conv = ChebConv(2, 2, 3).double()
    out = conv(SEQUENCE, EDGES, residual=torch.eye(2, dtype=torch.double))
    torch.testing.assert_close(out, conv(SEQUENCE, EDGES) + SEQUENCE)


def test_prepared_operator_and_graph() -> None:
    conv = ChebConv(2, 3).double()
    expected = conv(SEQUENCE, EDGES)
    operator = cheb_operator(EDGES, num_nodes=5, dtype=torch.double)
    torch.testing.assert_close(conv(SEQUENCE, operator), expected)
    torch.testing.assert_close(conv(SEQUENCE, Graph(EDGES, 5)), expected)
    with pytest.raises(ValueError, match=r"the 5 nodes of 'x' \[\*, N, C\] \(got 4\)"):
        conv(SEQUENCE, cheb_operator(EDGES, num_nodes=4))


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
def test_half_precision_and_autocast(propagation: str) -> None:
    conv = ChebConv(2, 3, propagation=propagation)
    x = SEQUENCE.float().requires_grad_()
    expected = conv(x, EDGES)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = conv(x, EDGES)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), expected, rtol=0.05, atol=0.05)
    mixed.sum().backward()
    assert conv.lins[0].weight.grad.dtype == torch.float32
    half = conv.bfloat16()(x.bfloat16(), EDGES)
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("conv", [ChebConv(34, 8), GCNConv(34, 8)])
def test_features_with_any_axes_before_the_nodes(conv: Any) -> None:
    x = torch.randn(2, 3, 4, 6, 34)
    out = conv(x, EDGES)
    assert out.shape == (2, 3, 4, 6, 8)
    torch.testing.assert_close(out[1, 2, 3], conv(x[1, 2, 3], EDGES))
    torch.testing.assert_close(out[1], conv(x[1], EDGES))
    torch.testing.assert_close(out[1, 2], conv(x[1, 2], EDGES))
    assert conv(x[:0], EDGES).shape == (0, 3, 4, 6, 8)
    for shape in ((34,), (6, 33), (1, 34, 6, 5)):
        match = rf"'x' must have shape \[\*, N, 34\] \(got {re.escape(str(list(shape)))}\)"
        with pytest.raises(ValueError, match=match):
            conv(torch.randn(shape), EDGES)
    with pytest.raises(TypeError, match=r"floating point numbers \(got torch.int64\)"):
        conv(torch.ones(1, 1, 6, 34, dtype=torch.long), EDGES)


def test_bad_arguments_and_repr() -> None:
    with pytest.raises(ValueError, match=r"'K' must be at least 1 \(got 0\)"):
        ChebConv(2, 3, 0)
    with pytest.raises(ValueError, match=r"'normalization' must be one of .*\(got 'both'\)"):
        ChebConv(2, 3, normalization="both")  # type: ignore[arg-type]
    assert repr(ChebConv(2, 3)) == "ChebConv(2, 3, K=3, normalization=sym)"
    assert repr(GCNConv(2, 3)) == "GCNConv(2, 3)"
    assert ChebConv(2, 3, bias=False).bias is None


def test_one_channel_of_strided_input() -> None:
    x = torch.randn(2, 5, 3, 1).transpose(1, 2).contiguous().transpose(1, 2)
    conv = ChebConv(1, 1, K=2)
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    torch.testing.assert_close(conv(x, edge_index), conv(x.contiguous(), edge_index))


# In place of PyG's --------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("lambda_max", [None, 1.7, torch.tensor(3.0)])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_every_laplacian_is_that_of_pyg(normalization: Any, lambda_max: Any, weight: Any) -> None:
    theirs = pyg.ChebConv(2, 3, 4, normalization).double()
    ours = ChebConv(2, 3, 4, normalization).double()
    ours.load_state_dict(theirs.state_dict())
    expected = theirs(SEQUENCE, EDGES, weight, lambda_max=lambda_max)
    torch.testing.assert_close(ours(SEQUENCE, EDGES, weight, lambda_max=lambda_max), expected)
    with torch.no_grad():
        torch.testing.assert_close(ours(SEQUENCE, EDGES, weight, lambda_max=lambda_max), expected)


def test_a_largest_eigenvalue_for_each_graph() -> None:
    theirs, ours = pyg.ChebConv(2, 3, 3).double(), ChebConv(2, 3, 3).double()
    ours.load_state_dict(theirs.state_dict())
    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 2]])
    more = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1.5, 2.5]).double()
    torch.testing.assert_close(
        ours(SEQUENCE[0, 0], edges, None, *more), theirs(SEQUENCE[0, 0], edges, None, *more)
    )


@pytest.mark.parametrize("kind", ["cheb", "gcn"])
def test_hooks_and_classes_of_others_are_called(kind: str) -> None:
    theirs: Any = {"cheb": pyg.ChebConv(2, 3, 3), "gcn": pyg.GCNConv(2, 3)}[kind].double()
    ours: Any = {"cheb": ChebConv(2, 3, 3), "gcn": GCNConv(2, 3)}[kind].double()
    ours.load_state_dict(theirs.state_dict())
    expected, seen = ours(SEQUENCE, EDGES, WEIGHT), []
    for conv in (ours, theirs):
        lin = conv.lins[1] if kind == "cheb" else conv.lin
        lin.register_forward_hook(lambda _, args, out: seen.append(args[0]) or 2 * out)
    a, b = ours(SEQUENCE, EDGES, WEIGHT), theirs(SEQUENCE, EDGES, WEIGHT)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(*seen)
    assert not torch.allclose(a, expected)

    seen.clear()
    for conv in (ours, theirs):
        conv.register_message_forward_hook(lambda _, args, out: seen.append(out) or 3 * out)
    torch.testing.assert_close(ours(SEQUENCE, EDGES, WEIGHT), theirs(SEQUENCE, EDGES, WEIGHT))
    assert seen
    graph = Graph(EDGES, 5)
    torch.testing.assert_close(
        ours(SEQUENCE, graph, graph.sort_edges(WEIGHT)), theirs(SEQUENCE, EDGES, WEIGHT)
    )
    with pytest.raises(TypeError, match="must hold edges where PyG's message passing runs"):
        edges_for_pyg(SEQUENCE, cheb_operator(EDGES, num_nodes=5), None)


def test_an_overridden_step_runs() -> None:
    class Doubled(ChebConv):
        def message(self, x_j: Tensor, norm: Tensor) -> Tensor:
            return 2 * super().message(x_j, norm)

    class Theirs(pyg.ChebConv):
        def message(self, x_j: Tensor, norm: Tensor) -> Tensor:
            return 2 * super().message(x_j, norm)

    ours, theirs = Doubled(2, 3, 3).double(), Theirs(2, 3, 3).double()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(SEQUENCE, EDGES), theirs(SEQUENCE, EDGES))


def test_states_of_the_first_version_still_load() -> None:
    weight, bias = torch.randn(3, 2, 4), torch.randn(4)
    conv = ChebConv(2, 4, 3)
    conv.load_state_dict({"weight": weight, "bias": bias})
    x = SEQUENCE[0, 0].float()
    operator = cheb_operator(EDGES, num_nodes=5).to_dense()
    terms = [x, operator @ x, 2 * operator @ operator @ x - x]
    expected = sum(term @ w for term, w in zip(terms, weight, strict=True)) + bias
    torch.testing.assert_close(conv(x, EDGES), expected)
    inside = torch.nn.ModuleDict({"conv": copy.deepcopy(conv)})
    given = {"conv.weight": weight + 1, "conv.bias": bias}
    inside.load_state_dict(given)
    torch.testing.assert_close(inside["conv"].lins[2].weight, (weight[2] + 1).t())
    assert list(given) == ["conv.weight", "conv.bias"]  # what was given is not changed
    gcn = GCNConv(2, 4)
    gcn.load_state_dict({"weight": weight[:1], "bias": bias})
    torch.testing.assert_close(gcn.lin.weight, weight[0].t())
    with pytest.raises(RuntimeError, match="Missing key"):
        ChebConv(2, 4, 4).load_state_dict({"weight": weight, "bias": bias})


@pytest.mark.parametrize("conv", [ChebConv(-1, 3, 3), GCNConv(-1, 3)])
def test_lazy_channels(conv: Any) -> None:
    first = conv(SEQUENCE.float(), EDGES)
    torch.testing.assert_close(conv(SEQUENCE.float(), EDGES), first)
    maps = [lin.weight for lin in conv.maps()]
    assert [list(w.shape) for w in maps] == [[3, 2]] * len(maps)


def test_weights_of_many_nodes_get_their_gradients() -> None:
    num_nodes = 1100
    edges = torch.randint(num_nodes, (2, 3000))
    theirs, ours = pyg.ChebConv(2, 3, 3).double(), ChebConv(2, 3, 3).double()
    ours.load_state_dict(theirs.state_dict())
    x, weight = torch.randn(num_nodes, 2).double(), torch.rand(3000).double().requires_grad_()
    a, b = (
        torch.autograd.grad(conv(x, edges, weight).square().sum(), weight)[0]
        for conv in (ours, theirs)
    )
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("make", [cheb, gcn])
def test_graphs_without_nodes(make: Any, propagation: str) -> None:
    x = torch.randn(2, 4, 0, 2).requires_grad_()
    out = make(propagation)(x, EDGES[:, :0])
    assert out.shape == (2, 4, 0, 3)
    out.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("bad", [[1.0] * 7, np.ones(7)], ids=["list", "array"])
@pytest.mark.parametrize("make", [cheb, gcn])
def test_weights_that_are_no_tensor(make: Any, bad: Any) -> None:
    with pytest.raises(TypeError, match="'edge_weight' must be a Tensor"):
        make("sparse")(torch.randn(4, 2), EDGES, bad)
