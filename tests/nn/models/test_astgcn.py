from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.graph import Graph
from pyg_stkd.nn.models.astgcn import ASTGCN
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator

EDGES = torch.tensor([[0, 1, 2, 3, 3, 1], [1, 2, 0, 0, 1, 2]])


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def naive(stack: torch.nn.Module, x: Tensor, laplacian: Tensor) -> Tensor:
    """Follows the paper in the published layout [B, N, C, T], one time step after the other."""
    x = x.permute(0, 2, 3, 1)
    for block in stack.blocks:
        at, sp = block.temporal_attention, block.spatial_attention
        left = torch.matmul(torch.matmul(x.permute(0, 3, 2, 1), at.w1), at.w2)  # [B, T, N]
        product = torch.matmul(left, torch.matmul(at.w3, x))
        e = F.softmax(torch.matmul(at.scale, torch.sigmoid(product + at.bias)), dim=1)
        b, n, c, t = x.shape
        attended = torch.matmul(x.reshape(b, -1, t), e).reshape(b, n, c, t)
        left = torch.matmul(torch.matmul(attended, sp.w1), sp.w2)  # [B, N, T]
        product = torch.matmul(left, torch.matmul(sp.w3, attended).transpose(1, 2))
        s = F.softmax(torch.matmul(sp.scale, torch.sigmoid(product + sp.bias)), dim=1)
        terms = [torch.eye(n, dtype=x.dtype), laplacian.t()]
        terms.append(2 * laplacian.t() @ terms[1] - terms[0])
        steps = []
        for i in range(t):
            parts = [
                (terms[k] * s).permute(0, 2, 1).matmul(x[..., i]).matmul(block.conv.weight[k])
                for k in range(3)
            ]
            steps.append(F.relu(sum(parts)))
        h = torch.stack(steps, dim=-1).permute(0, 2, 1, 3)  # [B, C, N, T]
        weight = block.time_conv.weight.transpose(2, 3)
        stride = block.time_conv.stride[::-1]
        h = F.conv2d(h, weight, block.time_conv.bias, stride=stride, padding=(0, 1))
        r = F.conv2d(
            x.permute(0, 2, 1, 3), block.residual.weight, block.residual.bias, stride=stride
        )
        x = block.norm(F.relu(h + r).permute(0, 3, 2, 1)).permute(0, 2, 3, 1)
    return stack.final(x.permute(0, 3, 1, 2))[..., -1]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_a_loop_over_time(stride: int, weighted: bool) -> None:
    model = ASTGCN(2, 4, 3, 5, num_steps=6, time_stride=stride).double()
    weight = torch.rand(6, dtype=torch.double) if weighted else None
    x = torch.randn(2, 6, 5, 2, dtype=torch.double)
    laplacian = cheb_operator(EDGES, weight, 5, dtype=torch.double).to_dense()
    out, expected = model(x, EDGES, weight), naive(model.parts["recent"], x, laplacian)
    torch.testing.assert_close(out, expected)
    a = torch.autograd.grad(out.square().sum(), list(model.parameters()))
    b = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    torch.testing.assert_close(a, b)


def test_three_components_are_weighed() -> None:
    model = ASTGCN(1, 4, 3, 5, num_steps=6, daily_steps=4, weekly_steps=2).double()
    inputs = [torch.randn(2, t, 5, 1, dtype=torch.double) for t in (6, 4, 2)]
    torch.nn.init.normal_(model.fusion)
    laplacian = cheb_operator(EDGES, num_nodes=5, dtype=torch.double).to_dense()
    expected = sum(
        w * naive(part, x, laplacian)
        for w, part, x in zip(model.fusion, model.parts.values(), inputs, strict=True)
    )
    out = model(inputs[0], EDGES, daily=inputs[1], weekly=inputs[2])
    torch.testing.assert_close(out, expected)
    two = ASTGCN(1, 4, 3, 5, num_steps=6, weekly_steps=2).double()
    assert two(inputs[0], EDGES, weekly=inputs[2]).shape == (2, 3, 5)
    assert list(two.parts) == ["recent", "weekly"]


def test_presets_and_their_parameters() -> None:
    assert count(ASTGCN.published(170)) == 179_456
    assert count(ASTGCN.published(307)) == 450_031


@pytest.mark.parametrize("nodes", [1, 5])
def test_no_edges_and_one_node(nodes: int) -> None:
    model = ASTGCN(1, 4, 3, nodes)
    out = model(torch.randn(2, 12, nodes, 1), EDGES[:, :0])
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None for p in model.parameters())


def test_edges_of_any_kind() -> None:
    model, x = ASTGCN(1, 4, 3, 5), torch.randn(2, 12, 5, 1)
    expected = model(x, EDGES)
    torch.testing.assert_close(model(x, Graph(EDGES, 5)), expected)
    for propagation in ("dense", "sparse"):
        operator = cheb_operator(EDGES, None, 5, propagation=propagation)
        torch.testing.assert_close(model(x, operator), expected)


def test_bfloat16_copies_and_weights() -> None:
    model, x = ASTGCN(1, 4, 3, 5), torch.randn(2, 12, 5, 1)
    out = model(x, EDGES)
    out.sum().backward()
    other = ASTGCN(1, 4, 3, 5)
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        torch.testing.assert_close(twin(x, EDGES), out, rtol=0, atol=0)
    half = other.bfloat16()(x.bfloat16(), EDGES)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, rtol=0.1, atol=0.1)
    model.reset_parameters()
    assert not torch.equal(model(x, EDGES), out)
    assert repr(model) == "ASTGCN(1, 4, 3, num_nodes=5, steps={'recent': 12})"


@pytest.mark.full
def test_compiles_whole() -> None:
    model, x = ASTGCN(1, 4, 3, 5), torch.randn(2, 12, 5, 1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, EDGES), model(x, EDGES))


def test_errors() -> None:
    x = torch.zeros(2, 12, 5, 1)
    with pytest.raises(ValueError, match=r"'daily' must be given \(got NoneType\)"):
        ASTGCN(1, 4, 3, 5, daily_steps=4)(x, EDGES)
    with pytest.raises(ValueError, match="'weekly' must be None, the model has no such part"):
        ASTGCN(1, 4, 3, 5)(x, EDGES, weekly=x)
    with pytest.raises(ValueError, match=r"N=5 nodes \(got 4\)"):
        ASTGCN(1, 4, 3, 5)(x[:, :, :4], EDGES)
    with pytest.raises(ValueError, match=r"T=12 time steps and N=5 nodes \(got T=11 and N=5\)"):
        ASTGCN(1, 4, 3, 5)(x[:, 1:], EDGES)
    with pytest.raises(ValueError, match="the channels seem to be on axis 1"):
        ASTGCN(3, 4, 3, 5)(torch.zeros(2, 3, 12, 5), EDGES)
    with pytest.raises(ValueError, match=r"positive multiple of time_stride=2 \(got 5\)"):
        ASTGCN(1, 4, 3, 5, num_steps=5, time_stride=2)
    with pytest.raises(ValueError, match=r"'num_steps' must be at least 1 \(got 0\)"):
        ASTGCN(1, 4, 3, 5, num_steps=0)
    with pytest.raises(ValueError, match=r"'num_blocks' must be at least 1 \(got 0\)"):
        ASTGCN(1, 4, 3, 5, num_blocks=0)
