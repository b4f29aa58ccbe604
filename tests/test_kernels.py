from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd import kernels
from pyg_stkd.functional import lsp, temporal_correlation

VALUE = torch.tensor([0.25, 1.0, 2.5, 4.0, 9.0], dtype=torch.double)
TABLE = {
    # kernel: measure, similarity of the measured value
    kernels.Linear(): ("inner", lambda v: v),
    kernels.Polynomial(): ("inner", lambda v: v**2),
    kernels.Polynomial(degree=3, c=-1.5): ("inner", lambda v: (v - 1.5) ** 3),
    kernels.Polynomial(2, cosine=True): ("cosine", lambda v: v**2),
    kernels.RBF(): ("squared_distance", lambda v: math.exp(-v / 2)),
    kernels.RBF(sigma=3): ("squared_distance", lambda v: math.exp(-v / 18)),
    kernels.RBF(sigma="median"): ("squared_distance", lambda v: math.exp(-v / (2 * 2.5))),
    kernels.SquaredEuclidean(): ("squared_distance", lambda v: v),
    kernels.Euclidean(): ("squared_distance", math.sqrt),
    kernels.Cosine(): ("cosine", lambda v: v),
    kernels.Laplacian(): ("manhattan", lambda v: math.exp(-v / 100)),
    kernels.Laplacian(scale=0.5): ("manhattan", lambda v: math.exp(-v / 0.5)),
}


@pytest.mark.parametrize("kernel", TABLE, ids=repr)
def test_value_and_slope(kernel: kernels.Kernel, device: torch.device) -> None:
    measure, formula = TABLE[kernel]
    value = VALUE.to(device).requires_grad_()
    assert kernel.measure == measure
    expected = torch.tensor([formula(v) for v in VALUE.tolist()], dtype=torch.double)
    torch.testing.assert_close(kernel(value).cpu(), expected, rtol=1e-14, atol=0)
    if kernel.__dict__.get("sigma") != "median":  # its width is a constant to autograd
        assert gradcheck(kernel, value)
        assert gradgradcheck(kernel, value)


def test_median_is_taken_of_each_call_and_constant() -> None:
    kernel = kernels.RBF(sigma="median")
    assert kernel(VALUE).equal(kernel(VALUE * 64))  # free of the scale
    value = VALUE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(kernel(value).sum(), value)
    torch.testing.assert_close(slope, -0.2 * (-VALUE / 5).exp())


@pytest.mark.parametrize("steps", [3, 13])
def test_equal_nodes_and_steps_are_not_pulled_at_a_median(steps: int) -> None:
    """At the least width that there is, the rounding of a gradient was 1e30."""
    torch.manual_seed(0)
    z = torch.randn(1, 33).expand(600, 33).clone().requires_grad_()
    edge_index = torch.randint(0, 600, (2, 6000))
    h = z[:6].expand(2, steps, 6, 33)
    teacher, theirs = torch.randn(600, 4), torch.randn(2, steps, 6, 4)
    kernel = kernels.RBF(sigma="median")
    for loss in (lsp(z, teacher, edge_index, kernel), temporal_correlation(h, theirs, kernel)):
        (grad,) = torch.autograd.grad(loss, z)
        assert loss > 1e-3
        assert grad.abs().max() == 0


def test_median_of_loops() -> None:
    kernel = kernels.RBF(sigma="median")
    assert kernel(torch.zeros(3)).tolist() == [1, 1, 1]
    assert kernel(torch.empty(0)).tolist() == []
    # Every other edge a loop: the median is 0, the mean takes its place.
    value = torch.tensor([0.0, 0.0, 0.0, 4.0], requires_grad=True)
    out = kernel(value)
    torch.testing.assert_close(out[3].item(), math.exp(-2))
    out.sum().backward()
    assert value.grad.isfinite().all()


def test_euclidean_is_flat_at_zero() -> None:
    value = torch.tensor([0.0, -0.0, 4.0], requires_grad=True)
    kernels.Euclidean()(value).sum().backward()
    assert value.grad.tolist() == [0, 0, 0.25]


def test_repr() -> None:
    assert repr(kernels.Linear()) == "Linear()"
    assert repr(kernels.RBF(sigma=2.0)) == "RBF(sigma=2.0)"
    assert repr(kernels.Polynomial(3, 1)) == "Polynomial(degree=3, c=1.0, cosine=False)"


def test_own_kernel() -> None:
    class Own(kernels.Kernel):
        measure = "inner"

        def __call__(self, value: Tensor) -> Tensor:
            return value.sin()

    assert Own()(VALUE).equal(VALUE.sin())
    with pytest.raises(NotImplementedError):
        kernels.Kernel()(VALUE)


WIDTH = r"must be at least 1e-\d+ and at most 1e\+\d+ \(got "
BAD_NUMBERS = {
    "RBF": (lambda x: kernels.RBF(sigma=x), "sigma", [0, -1.0, math.inf, math.nan], WIDTH),
    "Laplacian": (kernels.Laplacian, "scale", [0, -1.0, math.inf, math.nan], WIDTH),
    "Polynomial": (kernels.Polynomial, "degree", [0, -2], r"must be at least 1 \(got "),
    "offset": (
        lambda x: kernels.Polynomial(c=x), "c", [math.nan, math.inf, -math.inf],
        r"must be at least -1e\+30 and at most 1e\+30 \(got ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kernel", BAD_NUMBERS)
def test_numbers_out_of_range(kernel: str) -> None:
    make, name, values, text = BAD_NUMBERS[kernel]
    for value in values:
        with pytest.raises(ValueError, match=f"^'{name}' {text}{value}"):
            make(value)


@pytest.mark.parametrize("kernel", BAD_NUMBERS)
@pytest.mark.parametrize("value", [None, [1.0], True])
def test_what_is_no_number(kernel: str, value: object) -> None:
    make, name, *_ = BAD_NUMBERS[kernel]
    with pytest.raises(TypeError, match=rf"^'{name}' must be (a number|an integer) \(got "):
        make(value)


def test_what_is_no_degree_and_no_width() -> None:
    with pytest.raises(TypeError, match=r"'degree' must be an integer \(got 1.5\)"):
        kernels.Polynomial(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'degree' must be at most 1000 \(got 1001\)"):
        kernels.Polynomial(1001)
    with pytest.raises(ValueError, match=r"'sigma' must be 'median' \(got 'mean'\)"):
        kernels.RBF("mean")  # type: ignore[arg-type]


def test_numbers_of_numpy() -> None:
    made = (
        kernels.Laplacian(np.float32(2)),
        kernels.RBF(np.float32(2)),
        kernels.Polynomial(np.int64(3), np.float32(0.5)),
    )
    expected = kernels.Laplacian(2.0), kernels.RBF(2.0), kernels.Polynomial(3, 0.5)
    for one, other in zip(made, expected, strict=True):
        assert one(VALUE).equal(other(VALUE))


@pytest.mark.parametrize("make", [kernels.RBF, kernels.Laplacian])
@pytest.mark.parametrize("width", [1e-200, 1e-31, 1e31, 10**400])
def test_widths_that_float32_has_no_square_of(make: type[kernels.RBF], width: float) -> None:
    with pytest.raises(ValueError, match=r"' must be at least 1e-\d+ and at most 1e\+\d+ \(got 1"):
        make(width)


@pytest.mark.parametrize(
    "kernel", [kernels.RBF(1e-18), kernels.RBF(1e18), kernels.Laplacian(1e-30)]
)
def test_extreme_widths_give_numbers(kernel: kernels.Kernel) -> None:
    value = kernel(torch.tensor([0.0, 1e-38, 1.0, 3e38]))
    assert value[0] == 1
    assert value.isfinite().all()


@pytest.mark.parametrize("size", [1, 2, 4097, 1 << 14, 40_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["even", "sorted", "steps", "one", "tails", "few"])
def test_median_of_many_is_that_of_all(size: int, dtype: torch.dtype, kind: str) -> None:
    value = torch.rand(size, dtype=dtype)
    value = {
        "even": value,
        "sorted": value.sort().values,
        "steps": value.mul(3).floor() + 1,
        "one": torch.ones_like(value),
        "tails": torch.where(value > 0.5, value * 1e9, value * 1e-9),
        "few": torch.where(torch.arange(size) % 97 == 0, value, value + 5),
    }[kind]
    out = kernels.RBF(sigma="median")(value)
    torch.testing.assert_close(out, torch.exp(value * -0.5 / value.median()))
