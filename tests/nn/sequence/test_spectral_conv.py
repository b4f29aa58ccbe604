from __future__ import annotations

import pytest
import torch
import torch_geometric.nn
from torch import nn
from torch.nn.utils import prune

from pyg_stkd.graph import Graph
from pyg_stkd.nn import ChebConv, GCNConv
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.nn.sequence.spectral_conv import edges_for_pyg, weights_of

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
X = torch.randn(2, 3, 4, 6)


def test_weights_of_plain_and_of_masked_maps() -> None:
    maps = [nn.Linear(6, 5, bias=False), torch_geometric.nn.Linear(6, 5, bias=False)]
    assert weights_of(maps) == [maps[0].weight, maps[1].weight]
    prune.l1_unstructured(maps[0], "weight", amount=7)
    found = weights_of(maps)
    assert found is not None
    assert int((found[0] == 0).sum()) == 7


def hooked() -> nn.Module:
    lin = nn.Linear(6, 5, bias=False)
    lin.register_forward_hook(lambda *_: None)
    return lin


class Mine(nn.Linear):
    pass


@pytest.mark.parametrize(
    "lin", [nn.Linear(6, 5), hooked(), Mine(6, 5, bias=False), nn.Identity()], ids=str
)
def test_maps_that_must_be_called(lin: nn.Module) -> None:
    lin.bias = getattr(lin, "bias", None)
    assert weights_of([lin]) is None


def test_maps_that_are_called_give_the_same() -> None:
    conv = ChebConv(6, 5, 3)
    expected = conv(X, EDGES)
    called: list[int] = []
    for lin in conv.lins:
        lin.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(conv(X, EDGES), expected)
    assert len(called) == 3


def test_an_operator_in_place_of_edges() -> None:
    conv = ChebConv(6, 5, 3)
    operator = cheb_operator(EDGES, num_nodes=4)
    torch.testing.assert_close(conv(X, operator), conv(X, EDGES))
    assert conv.operator_for(X, operator) is operator
    assert conv.operator_for(X.double(), operator).tensors[0].dtype == torch.float64
    with pytest.raises(ValueError, match=r"must have the 3 nodes of 'x' .*got 4"):
        conv(X[:, :, :3], operator)
    with pytest.raises(TypeError, match="must hold edges where PyG's message passing runs"):
        edges_for_pyg(X, operator, None)


@pytest.mark.parametrize("make", [lambda: ChebConv(6, 5, 3), lambda: GCNConv(6, 5)])
def test_message_passing_and_one_matrix_agree(make: object) -> None:
    conv = make()  # type: ignore[operator]
    weight = torch.rand(5)
    expected = conv(X, EDGES, weight)
    assert conv.is_own()
    conv.register_propagate_forward_hook(lambda *_: None)
    assert not conv.is_own()
    torch.testing.assert_close(conv(X, EDGES, weight), expected)
    graph = Graph(EDGES)
    torch.testing.assert_close(conv(X, graph, graph.sort_edges(weight)), expected)


def test_states_of_one_tensor_still_load() -> None:
    old = torch.randn(3, 6, 5)
    conv = ChebConv(6, 5, 3)
    conv.load_state_dict({"weight": old, "bias": torch.zeros(5)})
    operator = cheb_operator(EDGES, num_nodes=4).to_dense()
    terms = [X, operator @ X, 2 * operator @ (operator @ X) - X]
    expected = sum(term @ w for term, w in zip(terms, old, strict=True))
    torch.testing.assert_close(conv(X, EDGES), expected, rtol=1e-4, atol=1e-5)
