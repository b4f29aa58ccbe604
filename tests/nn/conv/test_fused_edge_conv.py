from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.graph import Graph
from pyg_stkd.nn.conv.edge_network import read_edge_network
from pyg_stkd.nn.conv.fused_edge_conv import fused_edge_conv

GRAPH = Graph(torch.randint(12, (2, 50)), 14)  # two nodes are isolated


def naive(network: nn.Module, x: Tensor) -> Tensor:
    source, target = GRAPH.edge_index
    message = network(torch.cat([x[target], x[source] - x[target]], dim=1))
    index = target.view(-1, 1).expand_as(message)
    return message.new_zeros(14, message.size(1)).scatter_reduce(
        0, index, message, "amax", include_self=False
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        [],
        [nn.ReLU()],
        [nn.BatchNorm1d(5), nn.LeakyReLU(0.2)],
        [nn.BatchNorm1d(5, affine=False)],
        [nn.BatchNorm1d(5, track_running_stats=False), nn.Tanh()],
        [nn.BatchNorm1d(5, momentum=None)],
    ],
    ids=str,
)
def test_equals_messages_one_by_one(parts: list[nn.Module], training: bool) -> None:
    network = nn.Sequential(nn.Linear(6, 5), *copy.deepcopy(parts)).double().train(training)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d) and module.affine:
            module.weight.data = torch.randn(5, dtype=torch.float64)  # some fall
    other = copy.deepcopy(network)
    x = torch.randn(14, 3, dtype=torch.float64, requires_grad=True)
    block = read_edge_network(network)
    assert block is not None
    given, expected = fused_edge_conv(block, (x, x), GRAPH), naive(other, x)
    assert given is not None
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(network.state_dict(), other.state_dict())
    weight = torch.randn_like(given)
    grads = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (given, expected)]
    torch.testing.assert_close(*grads)


def test_none_where_the_variance_has_no_digits_left() -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    block = read_edge_network(network)
    assert block is not None
    x = torch.randn(14, 3)
    assert fused_edge_conv(block, (x + 1e3, x + 1e3), GRAPH) is not None  # moved to the origin
    network[0].weight.data[:, :3] = 0  # differences alone
    assert fused_edge_conv(block, (x, x), GRAPH) is not None
    loops = Graph(torch.arange(14).expand(2, -1), 14)  # and there are none
    assert fused_edge_conv(block, (x * 1e4, x * 1e4), loops) is None
