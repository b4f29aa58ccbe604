from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd.nn import STGCN
from pyg_stkd.nn.conv import nodes_last
from pyg_stkd.nn.conv.cheb_conv import ChebConv, GCNConv
from pyg_stkd.nn.conv.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.conv.graph_operator import cheb_operator
from pyg_stkd.nn.conv.nodes_last import conv_nodes_last, filter_nodes_last, pays
from pyg_stkd.nn.norm import NodeLayerNorm

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 4, 2]])


def layouts(x: Tensor) -> list[Tensor]:
    """The same sequence in three orders of memory."""
    return [x, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), x.mT.contiguous().mT]


@pytest.mark.parametrize("num_batch", [0, 1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [0, 4])
def test_convolves_along_time(num_batch: int, bias: bool, residual: int) -> None:
    x = torch.randn(num_batch, 6, 5, 3, dtype=torch.float64)
    weight = torch.randn(8, 3, 2, 1, dtype=torch.float64)
    b = torch.randn(8, dtype=torch.float64) if bias else None
    expected = torch.zeros(num_batch, 5, 5, 8, dtype=torch.float64)
    for t in range(5):
        for k in range(2):
            expected[:, t] += x[:, t + k] @ weight[:, :, k, 0].t()
        if residual:
            expected[:, t, :, :3] += x[:, t + 1]
    expected += 0 if b is None else b
    before = weight.clone()
    for one in layouts(x):
        out = conv_nodes_last(one, weight, b, residual).permute(0, 2, 3, 1)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("num_batch", [0, 1, 3])
@pytest.mark.parametrize(("first", "num_terms"), [(0, 1), (0, 2), (0, 4), (1, 1), (2, 1)])
def test_filters_by_clenshaw(num_batch: int, first: int, num_terms: int) -> None:
    operator = cheb_operator(EDGES, torch.rand(5).double(), 5, dtype=torch.float64)
    matrix = operator.to_dense()
    basis = [torch.eye(5, dtype=torch.float64), matrix]
    for _ in range(4):
        basis.append(2 * matrix @ basis[-1] - basis[-2])
    x = torch.randn(num_batch, 2, 5, 3, dtype=torch.float64)
    weight = torch.randn(num_terms, 3, 4, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    expected = bias + sum(basis[first + k] @ x @ w for k, w in enumerate(weight))
    for one in layouts(x):
        out = filter_nodes_last(operator, one, weight, bias, first)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gate", ["glu", "gtu", "pgt", "relu", "sigmoid", "linear"])
@pytest.mark.parametrize("channels", [(2, 6), (4, 4), (6, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_layers_agree_with_and_without_gradients(
    gate: Any, channels: tuple[int, int], padding: Any
) -> None:
    conv = GatedTemporalConv(*channels, 3, gate, padding).double()
    for x in layouts(torch.randn(2, 6, 5, channels[0], dtype=torch.float64)):
        expected = conv(x)
        assert expected.requires_grad
        with torch.no_grad():
            torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("cls", [ChebConv, GCNConv])
def test_filters_agree_with_and_without_gradients(cls: Any) -> None:
    conv = cls(3, 4).double()
    for x in layouts(torch.randn(2, 6, 5, 3, dtype=torch.float64)):
        expected = conv(x, EDGES)
        with torch.inference_mode():
            out = conv(x, EDGES)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)
        torch.testing.assert_close(conv(x, EDGES), expected, rtol=0, atol=0)


@pytest.mark.parametrize("num_nodes", [None, 5])
def test_norms_take_any_order_of_memory(num_nodes: int | None) -> None:
    norm = NodeLayerNorm(3, num_nodes).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x, *others = layouts(torch.randn(2, 4, 5, 3, dtype=torch.float64))
    mean = x.mean((2, 3), keepdim=True)
    variance = x.var((2, 3), keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-12).sqrt() * norm.weight + norm.bias
    for one in (x, *others):
        torch.testing.assert_close(norm(one), expected, rtol=0, atol=1e-12)


def test_models_agree_with_and_without_gradients() -> None:
    model = STGCN(2, [(6, 3, 5), (3, 4, 7)], 3, head_channels=8, num_nodes=5).double().eval()
    x = torch.randn(2, 12, 5, 2, dtype=torch.float64)
    expected = model(x, EDGES)
    with torch.no_grad():
        torch.testing.assert_close(model(x, EDGES), expected, rtol=0, atol=1e-12)


def test_pays_for_thin_layers_without_gradients() -> None:
    x, weight = torch.zeros(1, 1, 1, 1), torch.zeros(1, requires_grad=True)
    assert pays(x, 4, 32)
    assert not pays(x, 4, 33)
    assert not pays(x, 4, 4, weight)
    assert not pays(x.clone().requires_grad_(), 4, 4)
    assert not pays(x.bfloat16(), 4, 4)
    with torch.no_grad():
        assert pays(x, 4, 4, weight)
        with torch.autocast("cpu"):
            assert not pays(x, 4, 4)


def test_large_sparse_graphs_are_not_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_last, "_MOST_NODES", 4)
    conv = ChebConv(2, 2, propagation="sparse")
    operator = cheb_operator(EDGES, None, 5, propagation="sparse")
    with torch.no_grad():
        conv(torch.randn(1, 2, 5, 2), operator)
    assert operator._matrix is None
