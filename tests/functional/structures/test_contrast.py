from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from pyg_stkd.functional import contrast


def naive(s: Tensor, t: Tensor, temperature: float) -> float:
    """The definition, a node at a time."""
    total = 0.0
    for i in range(len(s)):
        logits = [float(s[i] @ b / (s[i].norm() * b.norm())) / temperature for b in t]
        total -= logits[i] - math.log(sum(map(math.exp, logits)))
    return total / len(s)


@given(st.integers(1, 12), st.integers(1, 5), st.floats(0.05, 3.0), st.integers(0, 99))
def test_equals_the_definition(n: int, width: int, temperature: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    s, t = torch.randn(2, n, width, generator=random).double()
    value = contrast(s, t, temperature).item()
    assert value == pytest.approx(naive(s, t, temperature), rel=1e-9, abs=1e-9)


def test_gradient_of_both_sides() -> None:
    s, t = (torch.randn(5, 3).double().requires_grad_() for _ in range(2))
    assert gradcheck(lambda s, t: contrast(s, t, 0.5), (s, t))


def float64(s: Tensor, t: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    z = s.detach().double().requires_grad_()
    logits = F.normalize(z, dim=1) @ F.normalize(t.double(), dim=1).t() / temperature
    loss = F.cross_entropy(logits, torch.arange(len(s)))
    return loss.detach().float(), torch.autograd.grad(loss, z)[0].float()


@pytest.mark.parametrize("temperature", [0.005, 0.03, 0.04, 0.075, 2.0])
def test_single_precision_at_any_temperature(temperature: float) -> None:
    """Also where exponentials would not be in range: two opposite nodes, and equal ones."""
    s, t = torch.randn(2, 40, 3)
    t[0], t[1] = -s[0], s[1]
    t[2:4] = s[2]
    loss = contrast(s.requires_grad_(), t, temperature)
    expected, slope = float64(s, t, temperature)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(loss, s)[0], slope, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e37])
@pytest.mark.parametrize("temperature", [0.03, 0.075])
def test_compiled_it_is_the_same_at_any_scale(
    scale: float, temperature: float, compiled_calls: Any
) -> None:
    s, t = torch.randn(2, 20, 4)
    s[3], t[5] = 0, 0
    s *= scale
    loss = contrast(s.requires_grad_(), t, temperature)
    expected = [loss.detach(), *torch.autograd.grad(loss, s)]
    seen, found = compiled_calls(lambda s, t: contrast(s, t, temperature), s, t)
    assert not seen
    found[1], expected[1] = found[1] * scale, expected[1] * scale
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_is_least_where_each_node_meets_itself() -> None:
    z = torch.randn(20, 8)
    assert contrast(z, 3 * z) < contrast(z, z.roll(1, 0))
    assert contrast(torch.ones(4, 2), torch.ones(4, 2)).item() == pytest.approx(math.log(4))
    assert contrast(torch.ones(0, 2), torch.ones(0, 2)).item() == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e-3, 1e10, 1e20, 1e37])
def test_no_scale_changes_it(scale: float) -> None:
    s, t = torch.randn(2, 9, 4, generator=torch.manual_seed(0))
    x, y = (s * scale).requires_grad_(), s.double().requires_grad_()
    ours, theirs = contrast(x, t / scale), contrast(y, t.double())
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
    (grad,), (expected,) = torch.autograd.grad(ours, x), torch.autograd.grad(theirs, y)
    torch.testing.assert_close(grad * scale, expected.float(), rtol=1e-4, atol=1e-5)


def test_draws_the_same_rows_of_both() -> None:
    z = torch.eye(30)
    value = contrast(z, z, temperature=1.0, max_samples=5).item()
    assert value == pytest.approx(math.log(1 + 4 * math.exp(-1)))


def test_refuses_what_does_not_fit() -> None:
    z = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"the same width \(got shapes \[3, 2\] and \[3, 4\]\)"):
        contrast(z, torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"'z_student' must be finite"):
        contrast(z * math.nan, z)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="'temperature' must be finite and above 0"):
            contrast(z, z, temperature)


def test_contrast_takes_whole_temperatures_of_any_size() -> None:
    z = torch.rand(4, 3)
    torch.testing.assert_close(contrast(z, z, 10**30), contrast(z, z, 1e30))
