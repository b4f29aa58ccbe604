from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from pyg_stkd.nn.sequence.gated_conv import PARTS, GatedConv, convolve, windows
from pyg_stkd.nn.sequence.gates import apply_gate

pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


# Of the input: windows of the second are too wide to be copied.
CHANNELS = pytest.mark.parametrize("channels", [2, 9])


def draw(gate: str, num_taps: int, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    width = PARTS[gate] * 4
    shapes = (2, 5, 3, channels), (width, channels, num_taps, 1), (width,)
    x, weight, bias = (torch.randn(s, dtype=torch.double, requires_grad=True) for s in shapes)
    return x, weight, bias


@CHANNELS
@pytest.mark.parametrize("num_taps", [1, 3, 5])
@pytest.mark.parametrize("gate", PARTS)
def test_values_and_derivatives_of_first_and_second_order(
    gate: str, num_taps: int, channels: int
) -> None:
    inputs = draw(gate, num_taps, channels)
    x, weight, bias = inputs
    window = torch.stack([x[:, k : k + 6 - num_taps] for k in range(num_taps)])
    maps = torch.einsum("kbtnc,ock->btno", window, weight[..., 0]) + bias
    expected = apply_gate(maps, gate)
    out = GatedConv.apply(*inputs, gate)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(apply_gate(convolve(*inputs), gate), expected)
    assert torch.autograd.gradcheck(lambda *i: GatedConv.apply(*i, gate), inputs)
    assert torch.autograd.gradgradcheck(lambda *i: GatedConv.apply(*i, gate), inputs)


@CHANNELS
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
@pytest.mark.parametrize("gate", PARTS)
def test_gradients_of_some_inputs(gate: str, wanted: tuple[int, ...], channels: int) -> None:
    torch._dynamo.reset()
    drawn = draw(gate, 3, channels)
    inputs = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(drawn)]
    asked = [inputs[i] for i in wanted]
    weight = torch.randn(2, 3, 3, 4, dtype=torch.double)
    run = torch.compile(
        lambda *i: GatedConv.apply(*i, gate), backend="aot_eager", fullgraph=True, dynamic=True
    )
    expected = torch.autograd.grad(apply_gate(convolve(*inputs), gate), asked, weight)
    for out in (GatedConv.apply(*inputs, gate), run(*inputs)):
        torch.testing.assert_close(torch.autograd.grad(out, asked, weight), expected)


@pytest.mark.parametrize(("channels", "copied"), [(5, True), (6, False)])
def test_narrow_windows_are_copied(channels: int, copied: bool) -> None:
    x, weight, bias = draw("linear", 3, channels)
    wide, flat = windows(x, weight)
    if not copied:
        assert wide is x
        assert flat is weight
        return
    assert (wide.shape, flat.shape) == ((2, 3, 3, 3 * channels), (4, 3 * channels, 1, 1))
    torch.testing.assert_close(convolve(wide, flat, bias), convolve(x, weight, bias))


@pytest.mark.parametrize("gate", PARTS)
def test_a_compiler_sees_one_operator(gate: str) -> None:
    """Nor does it trace the buffers that the gradients of a gate's parts share."""
    calls: list[set[str]] = []

    def note(graph: torch.fx.GraphModule, _: object) -> Any:
        calls.append({str(node.target) for node in graph.graph.nodes if "call" in node.op})
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=note, bw_compiler=note)
    inputs = draw(gate, 3)
    torch.compile(lambda *i: GatedConv.apply(*i, gate), backend=backend)(*inputs).sum().backward()
    torch._dynamo.reset()
    forward, backward = calls
    assert "pyg_stkd.gated_conv.default" in forward
    assert "pyg_stkd.gated_conv_backward.default" in backward
    products = {"aten.bmm.default", "aten.baddbmm.default", "aten.mul.Tensor"}
    assert not products & (forward | backward)
