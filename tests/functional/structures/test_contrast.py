from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

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
