from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from pyg_stkd.functional.structures.response import response


def naive_error(a: float, b: float, error: str, huber_delta: float) -> float:
    d = abs(a - b)
    if error == "mse":
        return d * d
    if error == "mae" or huber_delta == 0:
        return d
    return d * d / 2 if d <= huber_delta else huber_delta * (d - huber_delta / 2)


def naive(
    s: Tensor,
    t: Tensor,
    y: Tensor,
    alpha: float = 0.5,
    gate: str | None = "outlier",
    error: str = "mse",
    delta: float | None = None,
    margin: float = 0.0,
    huber_delta: float = 1.0,
) -> float:
    """The definition, a label at a time."""
    triples = zip(s.flatten().tolist(), t.flatten().tolist(), y.flatten().tolist(), strict=True)
    seen = [(a, b, c) for a, b, c in triples if not math.isnan(c)]
    if delta is None:
        delta = 2 * math.sqrt(sum((b - c) ** 2 for _, b, c in seen) / len(seen))
    total = 0.0
    for a, b, c in seen:
        to_y, to_t = (naive_error(a, z, error, huber_delta) for z in (c, b))
        if gate == "bounded":
            worse = to_y > naive_error(b, c, error, huber_delta) + margin
            total += to_y + alpha * worse * to_t
            continue
        w = alpha
        if gate == "outlier":
            w = alpha + (1 - alpha) * (1 - math.exp(-((abs(b - c) / delta) ** 2)))
        total += (1 - w) * to_y + w * to_t
    return total / len(seen)


@pytest.fixture
def triple() -> tuple[Tensor, Tensor, Tensor]:
    s, t, y = (torch.randn(2, 3, 4).double() for _ in range(3))
    y[0, 1] = math.nan
    y[1, 2, 3] += 8  # a suspect label
    return s, t, y


@pytest.mark.parametrize("gate", [None, "outlier", "bounded"])
@pytest.mark.parametrize("error", ["mse", "mae", "huber"])
@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.2, "delta": 0.7, "margin": 0.3, "huber_delta": 0.4}], ids=len
)
def test_value_and_gradient(
    gate: str | None,
    error: str,
    options: dict[str, float],
    triple: tuple[Tensor, Tensor, Tensor],
) -> None:
    s, t, y = triple
    loss = response(s, t, y, gate=gate, error=error, **options)  # type: ignore[arg-type]
    expected = naive(s, t, y, gate=gate, error=error, **options)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    s.requires_grad_()
    assert gradcheck(lambda s: response(s, t, y, gate=gate, error=error, **options), s)


def test_missing_labels_have_gradient_zero(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    s, t, y = triple
    s.requires_grad_()
    response(s, t, y).backward()
    assert s.grad is not None
    assert s.grad.isfinite().all()
    assert torch.equal(s.grad == 0, y.isnan())


def test_mask_says_what_counts(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    s, t, y = triple
    mask = ~y.isnan()
    zeros = y.nan_to_num(0.0)
    torch.testing.assert_close(response(s, t, zeros, mask=mask), response(s, t, y))


def test_no_label_at_all() -> None:
    s = torch.ones(2, 3, requires_grad=True)
    loss = response(s, torch.zeros(2, 3), torch.full((2, 3), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(s.grad, torch.zeros(2, 3))


def test_teacher_gets_no_gradient(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    s, t, y = triple
    t.requires_grad_()
    assert not response(s, t, y).requires_grad


@pytest.mark.parametrize("far", [1e8, 1e12])
@pytest.mark.parametrize("given", [{}, {"gate": None, "alpha": 1.0}, {"delta": 1.0}])
def test_a_label_that_does_not_count_takes_no_digits_of_the_teacher(
    given: dict[str, Any], far: float
) -> None:
    """Their difference was one of both from the label: 0 of labels of 1e8 in single precision."""
    torch.manual_seed(0)
    s, y = torch.randn(100, 3), torch.randn(100, 3)
    t = s + 0.1 * torch.randn(100, 3)
    y[0, 0] = far
    grads = []
    for mask in (None, torch.ones_like(y, dtype=torch.bool)):  # in few passes, and by definition
        x = s.clone().requires_grad_()
        loss = response(x, t, y, mask=mask, **given)
        grads.append(torch.autograd.grad(loss * s.numel(), x)[0])
    torch.testing.assert_close(grads[0][0, 0], 2 * (s - t)[0, 0])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_outlier_gate_by_hand() -> None:
    # Teacher errors 0 and 4: RMSE sqrt(8), delta 2 sqrt(8); w = 0.5 and 1 - 0.5 exp(-1/2).
    s, t, y = torch.zeros(2), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 5.0])
    w = 1 - 0.5 * math.exp(-0.5)
    expected = (1 + (1 - w) * 25 + w) / 2
    assert response(s, t, y).item() == pytest.approx(expected, rel=1e-6)


def test_a_perfect_teacher_is_trusted_by_alpha() -> None:
    s, y = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])
    assert response(s, y, y, alpha=0.3).item() == pytest.approx(2.5)


@given(st.floats(0, 1), st.floats(0, 1))
def test_outlier_gate_lies_between_label_and_teacher(alpha: float, share: float) -> None:
    t, y = torch.randn(5).double(), torch.randn(5).double()
    follows_label, follows_teacher = response(y, t, y, alpha), response(t, t, y, alpha)
    error = (t - y).square().mean()
    assert follows_label >= alpha * error - 1e-12  # w is at least alpha
    assert follows_teacher <= (1 - alpha) * error + 1e-12
    torch.testing.assert_close(response(y, t, y, share, None), share * error)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 1.5}, r"'alpha' must be at least 0 and at most 1 \(got 1.5\)"),
        ({"alpha": -1, "gate": "bounded"}, r"'alpha' must be finite and at least 0 \(got -1\)"),
        ({"gate": "soft"}, r"'gate' must be one of 'outlier', 'bounded', None \(got 'soft'\)"),
        ({"error": "l1"}, r"'error' must be one of 'mse', 'mae', 'huber' \(got 'l1'\)"),
        ({"delta": 0.0}, r"'delta' must be finite and above 0 \(got 0.0\)"),
        ({"huber_delta": -1.0}, r"'huber_delta' must be finite and above 0 \(got -1.0\)"),
        ({"margin": -0.1}, r"'margin' must be finite and at least 0 \(got -0.1\)"),
    ],
)
def test_options(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        response(torch.ones(2), torch.ones(2), torch.ones(2), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["alpha", "delta", "margin", "huber_delta"])
def test_options_are_numbers(name: str) -> None:
    with pytest.raises(TypeError, match=rf"'{name}' must be a number \(got '1'\)"):
        response(torch.ones(2), torch.ones(2), torch.ones(2), **{name: "1"})


def test_shapes_and_mask() -> None:
    ones = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"must have one shape \(got \[2, 3\], \[3, 2\]"):
        response(ones, ones.t(), ones)
    with pytest.raises(TypeError, match=r"'mask' must be boolean \(got torch.float32\)"):
        response(ones, ones, ones, mask=ones)


@pytest.mark.parametrize("bad", [None, 1, [0.5], {}])
@pytest.mark.parametrize("name", ["student", "teacher", "target", "mask"])
def test_response_refuses_what_is_no_tensor(name: str, bad: object) -> None:
    given: dict[str, object] = dict.fromkeys(("student", "teacher", "target"), torch.ones(1, 2, 3))
    if name == "mask" and bad is None:
        return
    with pytest.raises(TypeError, match=f"'{name}' must be a "):
        response(**{**given, name: bad})  # type: ignore[arg-type]


def test_response_takes_whole_numbers_of_any_size() -> None:
    ones = torch.ones(1, 2, 3)
    near, far = (response(ones, ones, ones + 1, delta=delta) for delta in (10**30, 1e30))
    assert near == far


def test_labels_may_be_integers_but_not_complex() -> None:
    s, t, y = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([[1, 2], [3, 4], [5, 6]])
    assert response(s, t, y) == response(s, t, y.float())
    with pytest.raises(
        TypeError, match=r"'target' must be of real numbers \(got torch.complex64\)"
    ):
        response(s, t, y.to(torch.complex64))


def test_options_may_be_integers_of_any_size() -> None:
    s, t, y = torch.randn(3, 3, 2)
    given = response(s, t, y, delta=10**30, huber_delta=10**30, error="huber")
    assert given == response(s, t, y, delta=1e30, huber_delta=1e30, error="huber")


@pytest.mark.parametrize("error", ["mse", "mae", "huber"])
@pytest.mark.parametrize("gate", ["outlier", "bounded", None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_made_wide_before_anything_is_squared(
    dtype: torch.dtype, gate: Any, error: Any
) -> None:
    """Errors beyond 256 have no square in float16, sums none beyond 65504, labels no digits."""
    generator = torch.manual_seed(0)
    y = 1000 * torch.rand(40, 5, generator=generator)
    s, t = ((y + 400 * torch.randn(40, 5, generator=generator)).to(dtype) for _ in range(2))
    ours = response(s.requires_grad_(), t, y, gate=gate, error=error)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(naive(s, t, y, gate=gate, error=error), rel=1e-4)
    (grad,) = torch.autograd.grad(ours, s)
    x = s.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(
        response(x, t.double(), y.double(), gate=gate, error=error), x
    )
    torch.testing.assert_close(grad.double(), expected, rtol=1e-2, atol=1e-6)


def test_labels_of_double_precision_keep_their_digits() -> None:
    y = 1e7 + torch.rand(50, dtype=torch.float64)
    s, t = y.float() + 1, y.float() - 1
    ours = response(s, t, y, gate=None)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(naive(s, t, y, gate=None), rel=1e-6)


@pytest.mark.parametrize("gate", [None, "outlier"])
@pytest.mark.parametrize("delta", [None, 0.7])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_without_missing_labels_it_is_the_same_loss(gate, delta, alpha) -> None:
    s, t, y = (100 + torch.randn(3, 4, 5, dtype=torch.float64) for _ in range(3))
    s.requires_grad_()
    found = response(s, t, y, alpha, gate, delta=delta)
    # A mask says that all are there, and is looked at.
    expected = response(s, t, y, alpha, gate, delta=delta, mask=torch.ones_like(y, dtype=bool))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (ours,), (theirs,) = torch.autograd.grad(found, s), torch.autograd.grad(expected, s)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    assert torch.autograd.gradgradcheck(lambda s: response(s, t, y, alpha, gate, delta=delta), s)


def test_labels_that_are_learned_get_their_gradient() -> None:
    s, t, y = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda y: response(s, t, y, 0.3, "outlier"), y)
