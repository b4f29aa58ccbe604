"""Tests of pyg_stkd/prune/skipping.py: norms over channels, on those that are left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch_geometric.nn
from torch import nn
from torch.nn import functional as F

from pyg_stkd.nn.sequence.norm import NodeBatchNorm, NodeLayerNorm
from pyg_stkd.prune.mask_hooks.skipping import channel_mask, skip_channels, stop_skipping

KEPT = torch.tensor([True, False, True, True])


def skipping(norm: nn.Module) -> Any:
    norm = norm.double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    skip_channels(norm, KEPT)
    return norm


def test_zeros_in_a_layer_norm_would_count() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    plain, norm = nn.LayerNorm(4).double(), nn.LayerNorm(4).double()
    skip_channels(norm, KEPT)
    expected = F.layer_norm(x[:, KEPT], (3,))
    torch.testing.assert_close(norm(x)[:, KEPT], expected)
    assert not torch.allclose(plain(x * KEPT)[:, KEPT], expected)


def test_layer_norm() -> None:
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    norm = skipping(nn.LayerNorm(4))
    out = norm(x)
    expected = F.layer_norm(x[..., KEPT], (3,), norm.weight[KEPT], norm.bias[KEPT])
    torch.testing.assert_close(out[..., KEPT], expected)
    assert torch.equal(out[..., ~KEPT], torch.zeros(2, 5, 1, dtype=torch.float64))
    out.sum().backward()
    assert norm.weight.grad[1] == 0
    torch.testing.assert_close(norm.bias.grad, 10.0 * KEPT.double())


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 2)])
def test_group_norm_of_one_group(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    norm = skipping(nn.GroupNorm(1, 4))
    out = norm(x)
    expected = F.group_norm(x[:, KEPT], 1, norm.weight[KEPT], norm.bias[KEPT])
    torch.testing.assert_close(out[:, KEPT], expected)
    assert torch.equal(out[:, ~KEPT], torch.zeros_like(x[:, :1]))


@pytest.mark.parametrize("num_nodes", [None, 3])
def test_node_layer_norm(num_nodes: int | None) -> None:
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    norm = skipping(NodeLayerNorm(4, num_nodes))
    few = NodeLayerNorm(3, num_nodes).double()
    few.weight.data, few.bias.data = norm.weight[..., KEPT], norm.bias[..., KEPT]
    torch.testing.assert_close(norm(x)[..., KEPT], few(x[..., KEPT]))


@pytest.mark.parametrize("mode", ["graph", "node"])
def test_layer_norm_of_pyg(mode: str) -> None:
    x, batch = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 1])
    norm = skipping(torch_geometric.nn.LayerNorm(4, mode=mode))
    few = torch_geometric.nn.LayerNorm(3, mode=mode).double()
    few.weight.data, few.bias.data = norm.weight[KEPT], norm.bias[KEPT]
    torch.testing.assert_close(norm(x)[:, KEPT], few(x[:, KEPT]))
    torch.testing.assert_close(norm(x, batch)[:, KEPT], few(x[:, KEPT], batch))


def test_batch_norm_of_nodes_updates_its_statistics_once() -> None:
    x = torch.randn(2, 5, 4, 4, dtype=torch.float64)  # as many nodes as channels
    norm, few = skipping(NodeBatchNorm(4)), NodeBatchNorm(4).double()
    few.weight.data, few.bias.data = norm.weight, norm.bias
    torch.testing.assert_close(norm(x)[..., KEPT], few(x[..., KEPT]))
    torch.testing.assert_close(norm.running_mean, few.running_mean)
    torch.testing.assert_close(norm.running_var, few.running_var)
    assert norm.num_batches_tracked == 1


def test_masks_add_up_and_go() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    norm = nn.LayerNorm(4).double()
    expected = norm(x)
    skip_channels(norm, KEPT)
    skip_channels(norm, torch.tensor([True, True, True, False]))
    assert norm.channel_mask.tolist() == [True, False, True, False]
    copied = copy.deepcopy(norm)
    stop_skipping(norm)
    assert torch.equal(norm(x), expected)
    torch.testing.assert_close(copied(x)[:, [0, 2]], F.layer_norm(x[:, [0, 2]], (2,)))


def test_a_buffer_of_that_name_may_be_the_users() -> None:
    norm = nn.LayerNorm(4)
    norm.register_buffer("channel_mask", torch.ones(4))
    model = nn.Sequential(nn.Linear(2, 4), norm, nn.Linear(4, 1))
    assert channel_mask(norm) is None
    stop_skipping(model)
    assert "channel_mask" in norm._buffers


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
def test_parts_of_a_nested_tensor_are_normalised_one_by_one() -> None:
    norm = skipping(nn.LayerNorm(4))
    parts = [torch.randn(size, 4, dtype=torch.float64) for size in (3, 1, 5)]
    with torch.no_grad():
        found = norm(torch.nested.nested_tensor(parts)).unbind()
    for part, of_part in zip(parts, found, strict=True):
        assert torch.equal(of_part, norm(part))
