from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd.nn import ASTGCN, STGCN, STConv
from pyg_stkd.nn.sequence import thin
from pyg_stkd.nn.sequence.cheb_conv import ChebConv
from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv
from pyg_stkd.nn.sequence.gcn_conv import GCNConv
from pyg_stkd.nn.sequence.norm import NodeBatchNorm, NodeLayerNorm
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator
from pyg_stkd.nn.sequence.thin import (
    conv_rows,
    filter_rows,
    from_rows,
    norm_rows,
    pays,
    to_rows,
)

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 4, 2]])


def layouts(x: Tensor) -> list[Tensor]:
    """The same sequence in three orders of memory."""
    return [x, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), x.mT.contiguous().mT]


@pytest.mark.parametrize("num_batch", [1, 3])
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
        out = from_rows(conv_rows(to_rows(one), weight, b, residual), num_batch)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("num_batch", [1, 3])
@pytest.mark.parametrize(
    ("first", "num_terms"), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 1), (1, 3), (2, 1)]
)
@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize("many", [1, 1000])
def test_filters_all_orders_at_once(
    num_batch: int,
    first: int,
    num_terms: int,
    propagation: Any,
    many: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thin, "_MANY_ROWS", many)
    weight = torch.rand(5).double()
    operator = cheb_operator(EDGES, weight, 5, dtype=torch.float64, propagation=propagation)
    matrix = operator.to_dense()
    basis = [torch.eye(5, dtype=torch.float64), matrix]
    for _ in range(5):
        basis.append(2 * matrix @ basis[-1] - basis[-2])
    x = torch.randn(num_batch, 2, 5, 3, dtype=torch.float64)
    weight = torch.randn(num_terms, 4, 3, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    expected = bias + sum(basis[first + k] @ x @ w.t() for k, w in enumerate(weight))
    for one in layouts(x):
        for b in (bias, None):
            rows = filter_rows(operator, to_rows(one), num_batch, [*weight], b, first)
            out = from_rows(rows, num_batch) + (bias if b is None else 0)
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


@pytest.mark.parametrize("num_batch", [1, 3])
@pytest.mark.parametrize("num_nodes", [None, 5])
def test_norms_of_rows(num_nodes: int | None, num_batch: int) -> None:
    norm = NodeLayerNorm(3, num_nodes).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(num_batch, 4, 5, 3, dtype=torch.float64)
    out = from_rows(norm_rows(norm, to_rows(x), num_batch), num_batch)
    torch.testing.assert_close(out, norm(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_batch", [0, 1, 3])
@pytest.mark.parametrize("num_nodes", [None, 5])
def test_models_agree_with_and_without_gradients(num_nodes: int | None, num_batch: int) -> None:
    widths = [(6, 3, 5), (3, 4, 7)]
    model = STGCN(2, widths, 3, head_channels=8, num_nodes=num_nodes).double().eval()
    x = torch.randn(num_batch, 12, 5, 2, dtype=torch.float64)
    expected = model(x, EDGES)
    assert expected.requires_grad
    with torch.no_grad():
        out = model(x, EDGES)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert out.is_contiguous()
    assert expected.is_contiguous()


BLOCKS: dict[str, dict[str, Any]] = {
    "gcn": {"conv": "gcn"},
    "K=1": {"K": 1},
    "no residual": {"residual": False, "norm": None},
    "widens": {"temporal_channels": 2},
    "pgt": {"gate": ("pgt", "relu")},
    "gtu": {"gate": ("gtu", "sigmoid")},
    "same": {"padding": "same"},
    "batch norm": {"norm": "batch", "num_nodes": 5},
    "no bias": {"bias": False},
}


@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("most", [4, 256])
def test_blocks_agree_with_and_without_gradients(
    options: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thin, "_MOST_NODES", most)
    block = STConv(2, 3, 6, propagation="sparse", **options).double().eval()
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64)
    expected = block(x, EDGES)
    with torch.no_grad():
        torch.testing.assert_close(block(x, EDGES), expected, rtol=0, atol=1e-12)


def test_changed_weights_and_hooks_are_seen() -> None:
    model = STGCN(2, [(6, 3, 5)], 3, num_steps=6, head_channels=8).double().eval()
    x = torch.randn(2, 6, 5, 2, dtype=torch.float64)
    with torch.no_grad():
        model(x, EDGES)
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
        out = model(x, EDGES)
        seen: list[str] = []
        for name, module in model.named_modules():
            handle = module.register_forward_hook(lambda *_, name=name: seen.append(name))
            torch.testing.assert_close(model(x, EDGES), out, rtol=0, atol=1e-12)
            handle.remove()
        model.dropout.p = model.blocks[0].dropout.p = 0.5
        model.dropout.train()
        assert not torch.equal(model(x, EDGES), model(x, EDGES))
    torch.testing.assert_close(model.eval()(x, EDGES), out, rtol=0, atol=1e-12)
    never = ("blocks", "blocks.0.conv.lins", "blocks.0.conv.aggr_module")
    assert seen == [name for name, _ in model.named_modules() if name not in never]


LAYERS: dict[str, tuple[torch.nn.Module, bool]] = {
    "GatedTemporalConv": (GatedTemporalConv(2, 6), False),
    "GatedTemporalConv, narrower": (GatedTemporalConv(2, 1, gate="gtu"), False),
    "STConv": (STConv(2, 3, 4), True),
    "ChebConv": (ChebConv(2, 4), True),
    "GCNConv": (GCNConv(2, 4), True),
    "NodeLayerNorm": (NodeLayerNorm(2), False),
    "NodeBatchNorm": (NodeBatchNorm(5), False),
    "STGCN": (STGCN.student(2, 3), True),
    "STGCN, wide": (STGCN.teacher(2, 3), True),
    "ASTGCN": (ASTGCN(2, 4, 3, 5), True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_can_be_viewed_in_eval_mode(name: str) -> None:
    layer, takes_edges = LAYERS[name]
    x = torch.randn(2, 12, 5, 2)
    args: tuple[Any, ...] = (x, EDGES) if takes_edges else (x,)
    for one in layouts(x):
        with torch.no_grad():
            out = layer.eval()(one, *args[1:])
        assert out.view(-1).shape == (out.numel(),)


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
    monkeypatch.setattr(thin, "_MOST_NODES", 4)
    conv = ChebConv(2, 2, propagation="sparse")
    operator = cheb_operator(EDGES, None, 5, propagation="sparse")
    with torch.no_grad():
        conv(torch.randn(1, 2, 5, 2), operator)
    assert not operator._polynomials
