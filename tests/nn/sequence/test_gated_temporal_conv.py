from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.nn.sequence.gated_temporal_conv import GatedTemporalConv

GATES = ["glu", "gtu", "pgt", "relu", "sigmoid", "linear"]


def naive(conv: GatedTemporalConv, x: Tensor) -> Tensor:
    """Convolves step by step and tap by tap, and gates as the docstring says."""
    k, width = conv.kernel_size, conv.out_channels
    if conv.padding == "same":
        zeros = x.new_zeros(x.size(0), k - 1, x.size(2), x.size(3))
        x = torch.cat([zeros, x], dim=1)
    weight, bias = conv.conv.weight, conv.conv.bias
    steps = []
    for t in range(k - 1, x.size(1)):
        y = sum(x[:, t - k + 1 + i] @ weight[:, :, i, 0].t() for i in range(k))
        y = y if bias is None else y + bias
        p, q, r = y[..., :width], y[..., width : 2 * width], y[..., 2 * width :]
        if conv.residual:
            given = x[:, t]
            if conv.align is not None:
                given = conv.align(given)
            p = p + torch.cat([given, given.new_zeros(*p.shape[:-1], width)], dim=-1)[..., :width]
        gates = {
            "glu": lambda p=p, q=q: p * q.sigmoid(),
            "gtu": lambda p=p, q=q: p.tanh() * q.sigmoid(),
            "pgt": lambda p=p, q=q, r=r: (p * q.sigmoid() + r).relu(),
            "relu": p.relu,
            "sigmoid": p.sigmoid,
            "linear": lambda p=p: p,
        }
        steps.append(gates[conv.gate]())
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("width", "new"), [(3, 3), (2, 5), (9, 2)])
def test_equals_a_loop_over_time(gate: str, padding: str, width: int, new: int) -> None:
    conv = GatedTemporalConv(width, new, 3, gate=gate, padding=padding).double()
    x = torch.randn(2, 5, 4, width, dtype=torch.double, requires_grad=True)
    out, expected = conv(x), naive(conv, x)
    assert out.shape == (2, 5 if padding == "same" else 3, 4, new)
    torch.testing.assert_close(out, expected)
    seed = torch.randn_like(out)
    inputs = [x, *conv.parameters()]
    for a, b in zip(
        torch.autograd.grad(out, inputs, seed),
        torch.autograd.grad(expected, inputs, seed),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(0, 3), st.integers(1, 4), st.integers(1, 6)
)
def test_any_size(batch: int, kernel: int, more: int, nodes: int, width: int) -> None:
    conv = GatedTemporalConv(width, 2, kernel).double()
    x = torch.randn(batch, kernel + more, nodes, width, dtype=torch.double)
    torch.testing.assert_close(conv(x), naive(conv, x))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("width", [2, 9])  # by windows, and by taps
def test_first_and_second_derivatives(gate: str, width: int) -> None:
    conv = GatedTemporalConv(width, 2, 2, gate=gate).double()
    x = torch.randn(1, 3, 2, width, dtype=torch.double, requires_grad=True)
    weights = [p.detach().requires_grad_() for p in conv.parameters()]
    names = [name for name, _ in conv.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(conv, dict(zip(names, weights, strict=True)), (x,))

    assert gradcheck(run, (x, *weights))
    assert gradgradcheck(run, (x, *weights))


@pytest.mark.parametrize("gate", ["glu", "pgt"])
def test_only_wanted_gradients(gate: str) -> None:
    conv = GatedTemporalConv(9, 3, gate=gate, residual=False).double()
    x = torch.randn(1, 4, 2, 9, dtype=torch.double)
    conv.conv.weight.requires_grad_(False)
    conv(x).square().sum().backward()
    assert conv.conv.weight.grad is None
    actual = conv.conv.bias.grad.clone()
    conv.zero_grad()
    naive(conv, x).square().sum().backward()
    torch.testing.assert_close(actual, conv.conv.bias.grad)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_looks_at_no_later_step(padding: str) -> None:
    conv = GatedTemporalConv(2, 3, padding=padding)
    x = torch.randn(1, 8, 3, 2)
    later = x.clone()
    later[:, 5:] += 1.0
    until = 5 if padding == "same" else 3
    torch.testing.assert_close(conv(x)[:, :until], conv(later)[:, :until], rtol=0, atol=0)
    assert not torch.equal(conv(x)[:, until], conv(later)[:, until])


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("width", "new"), [(4, 4), (2, 4), (4, 2)])
def test_half_precision_takes_the_other_path(gate: str, width: int, new: int) -> None:
    conv = GatedTemporalConv(width, new, gate=gate)
    x = torch.randn(2, 6, 3, width)
    half = copy.deepcopy(conv).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), conv(x), rtol=0.05, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(conv(x).float(), conv(x.float()).float(), rtol=0.05, atol=0.05)
        mixed = conv(x)
    torch.testing.assert_close(mixed.float(), naive(conv, x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("width", [3, 9])
def test_input_of_any_strides(width: int) -> None:
    conv = GatedTemporalConv(width, 4).double()
    x = torch.randn(2, width, 6, 5, dtype=torch.double).permute(0, 2, 3, 1).requires_grad_()
    torch.testing.assert_close(conv(x), conv(x.contiguous()))
    (a,) = torch.autograd.grad(conv(x).square().sum(), x)
    (b,) = torch.autograd.grad(naive(conv, x).square().sum(), x)
    torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("gate", ["glu", pytest.param("gtu", marks=pytest.mark.full), "pgt"])
def test_compiles_whole(gate: str) -> None:
    conv = GatedTemporalConv(3, 4, gate=gate)
    x = torch.randn(2, 5, 3, 3, requires_grad=True)
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), conv(x))
    (a,) = torch.autograd.grad(compiled(x).sum(), x)
    (b,) = torch.autograd.grad(conv(x).sum(), x)
    torch.testing.assert_close(a, b)


def test_copies_and_weights() -> None:
    conv = GatedTemporalConv(3, 2)
    x = torch.randn(1, 4, 2, 3)
    out = conv(x)
    out.sum().backward()
    other = GatedTemporalConv(3, 2)
    other.load_state_dict(conv.state_dict())
    for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), other):
        torch.testing.assert_close(twin(x), out, rtol=0, atol=0)
    conv.reset_parameters()
    assert not torch.equal(conv(x), out)
    assert sorted(conv.state_dict()) == ["align.bias", "align.weight", "conv.bias", "conv.weight"]
    assert repr(conv) == ("GatedTemporalConv(3, 2, kernel_size=3, gate='glu', padding='valid')")


def test_no_bias_and_empty_batch() -> None:
    conv = GatedTemporalConv(3, 2, bias=False)
    assert [name for name, _ in conv.named_parameters()] == ["conv.weight", "align.weight"]
    assert conv(torch.zeros(1, 4, 2, 3)).abs().max() == 0
    assert conv(torch.zeros(0, 4, 2, 3)).shape == (0, 2, 2, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3, 2), r"\[B, T, N, C\] \(batch, time, nodes, channels\) \(got \[4, 3, 2\]\)"),
        ((1, 2, 5, 6), r"with C=2 last \(got \[1, 2, 5, 6\]; the channels seem to be on axis 1\)"),
        ((1, 2, 5, 2), r"at least kernel_size=3 time steps \(got 2\)"),
    ],
)
def test_bad_shapes(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GatedTemporalConv(2, 3)(torch.zeros(shape))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"'gate' must be one of .* \(got 'swish'\)"):
        GatedTemporalConv(2, 3, gate="swish")
    with pytest.raises(
        ValueError, match=r"'padding' must be one of 'valid', 'same' \(got 'full'\)"
    ):
        GatedTemporalConv(2, 3, padding="full")
    with pytest.raises(ValueError, match=r"'kernel_size' must be at least 1 \(got 0\)"):
        GatedTemporalConv(2, 3, 0)
    with pytest.raises(ValueError, match="'residual' must not be set for the gate 'pgt'"):
        GatedTemporalConv(2, 3, gate="pgt", residual=True)
    with pytest.raises(TypeError, match=r"floating point numbers \(got torch.int64\)"):
        GatedTemporalConv(2, 3)(torch.zeros(1, 3, 2, 2, dtype=torch.long))
