from __future__ import annotations

import pytest
import torch

from pyg_stkd.nn.sequence.norm import NodeBatchNorm, NodeLayerNorm


@pytest.mark.parametrize("num_nodes", [None, 4])
def test_layer_norm_of_each_step(num_nodes: int | None) -> None:
    norm = NodeLayerNorm(3, num_nodes).double()
    for p in norm.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(2, 5, 4, 3, dtype=torch.double)
    mean = x.mean((2, 3), keepdim=True)
    spread = (x - mean).square().mean((2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(norm(x), (x - mean) / spread * norm.weight + norm.bias)
    assert norm.weight.shape == ((3,) if num_nodes is None else (4, 3))


def test_batch_norm_of_each_node() -> None:
    norm, peer = NodeBatchNorm(4).double(), torch.nn.BatchNorm2d(4).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.double)
    for _ in range(2):
        torch.testing.assert_close(norm(x), peer(x.transpose(1, 2)).transpose(1, 2))
    norm.eval(), peer.eval()
    torch.testing.assert_close(norm(x), peer(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("norm", [NodeLayerNorm(3, 4), NodeBatchNorm(4)])
def test_other_graph(norm: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\[B, T, N, C\] must have N=4 nodes.*\(got 5\)"):
        norm(torch.zeros(2, 6, 5, 3))
