from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_stkd import kernels
from pyg_stkd.functional import contrast, gsp, lsp, similarity, temporal_correlation
from pyg_stkd.functional.structures.similarities.prepared import prepared, unit


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-8, 1e-3, 1.0, 1e8, 1e20, 1e37])
@pytest.mark.parametrize("normalize", ["layer", "l2"])
def test_no_scale_changes_what_is_normalised(scale: float, normalize: str) -> None:
    z = torch.randn(6, 5, generator=torch.manual_seed(0))
    kernel = kernels.Linear()
    given, expected = (prepared(x, kernel, normalize) for x in (z * scale, z))
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    if normalize == "layer":
        torch.testing.assert_close(given.mean(1), torch.zeros(6), atol=1e-6, rtol=0)
        torch.testing.assert_close(given.var(1, correction=0), torch.ones(6))


def test_the_gradient_falls_as_the_scale_grows() -> None:
    z = torch.randn(6, 5, dtype=torch.float64)
    weight = torch.randn(6, 5, dtype=torch.float64)
    for normalize in ("layer", "l2"):
        grads = []
        for scale in (1.0, 1e-6):
            x = (z * scale).requires_grad_()
            (prepared(x, kernels.Linear(), normalize) * weight).sum().backward()
            assert x.grad is not None
            grads.append(x.grad * scale)
        torch.testing.assert_close(*grads)


def test_equal_features_become_zero_and_get_no_gradient() -> None:
    z = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [3e6, 3e6, 3e6]], requires_grad=True)
    out = prepared(z, kernels.Linear(), "layer")
    assert out.tolist() == [[0.0] * 3] * 3
    (out * torch.randn(3, 3)).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[0.0] * 3] * 3


EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 2], [1, 2, 3, 4, 5, 0, 2, 0, 2]])
OF_DIRECTIONS = {
    "unit": lambda s, t: (unit(s) * t).sum(),
    "l2": lambda s, t: (prepared(s, kernels.Linear(), "l2") * t).sum(),
    "gsp": gsp,
    "gsp by features": lambda s, t: gsp(s.repeat(3, 1), t.repeat(3, 1)),
    "contrast": contrast,
    "lsp cosine": lambda s, t: lsp(s, t, EDGES, kernels.Cosine()),
    "lsp l2": lambda s, t: lsp(s, t, EDGES, normalize="l2"),
    "temporal": lambda s, t: temporal_correlation(
        s.view(1, 3, 2, 4), t.view(1, 3, 2, 4), kernels.Cosine()
    ),
}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("how", ["eager", "compiled", "transformed"])
@pytest.mark.parametrize("name", OF_DIRECTIONS)
def test_a_row_of_zeros_has_no_direction_to_turn_from(name: str, how: str) -> None:
    """Dead units and nodes without neighbours give such rows: their gradient was 1e36."""
    torch.manual_seed(0)
    s, t = torch.randn(6, 4), torch.randn(6, 4)
    s[2] = 0
    loss = OF_DIRECTIONS[name]
    if how == "transformed":
        grad = torch.func.grad(loss)(s, t)
    else:
        run = torch.compile(loss, backend="aot_eager") if how == "compiled" else loss
        (grad,) = torch.autograd.grad(run(s.requires_grad_(), t), s)
    assert grad[2].tolist() == [0.0] * 4
    assert 0 < grad.abs().max() < 10
    # The others' are those of the formula, in which a direction of 0 is 0.
    x = s.detach().double().requires_grad_()
    rest = torch.cat([x[:2], torch.zeros(1, 4, dtype=torch.float64), x[3:]])
    (expected,) = torch.autograd.grad(loss(rest, t.double()), x)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-6)


def test_second_derivatives_beside_a_row_of_zeros() -> None:
    z = torch.randn(3, 3, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        return unit(torch.cat([x, torch.zeros_like(x[:1])]))

    assert torch.autograd.gradgradcheck(run, z.requires_grad_())
    zero = torch.zeros(1, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(unit(zero).sum(), zero, create_graph=True)
    (again,) = torch.autograd.grad(grad.sum() + 0 * zero.sum(), zero)
    assert again.tolist() == [[0.0] * 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", ["layer", "l2"])
def test_second_derivatives_of_rows_without_a_direction(normalize: str, dtype: torch.dtype) -> None:
    """They were NaN: of 'l2' where a derivative of the first was above 4, of 'layer' always."""
    torch.manual_seed(0)
    z, v, w = (torch.randn(6, 33, dtype=dtype) for _ in range(3))
    z[1], z[4] = 0, 0 if normalize == "l2" else 0.7

    def second(z: Tensor, rows: list[int]) -> Tensor:
        x = z[rows].requires_grad_()
        loss = (prepared(x, kernels.Linear(), normalize) * w[rows]).square().sum()
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        (out,) = torch.autograd.grad((grad * v[rows] * 100).sum(), x)
        return out

    everyone = second(z, [0, 1, 2, 3, 4, 5])
    assert everyone[[1, 4]].tolist() == [[0.0] * 33] * 2
    torch.testing.assert_close(everyone[[0, 2, 3, 5]], second(z, [0, 2, 3, 5]))
    if normalize == "layer":  # whose transforms look at no numbers
        norm = torch.func.grad(
            lambda z: (
                torch.func.grad(lambda z: prepared(z, kernels.Linear(), "layer")[0, 0])(z)
                .square()
                .sum()
            )
        )
        assert norm(z).isfinite().all()
        assert norm(z[1:]).tolist() == [[0.0] * 33] * 5


@pytest.mark.parametrize("normalize", ["layer", "l2"])
def test_gradients_of_any_order(normalize: str) -> None:
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def run(z: torch.Tensor) -> torch.Tensor:
        return prepared(z, kernels.Cosine(), normalize)

    assert torch.autograd.gradcheck(run, z)
    assert torch.autograd.gradgradcheck(run, z)


def test_float64_only_where_two_rows_are_on_one_line() -> None:
    z = torch.randn(300, 6, generator=torch.manual_seed(0))
    kernel = kernels.Cosine()
    assert prepared(z, kernel).dtype == torch.float32
    z[40] = 0.0  # which is on no line
    assert prepared(z * 1e-30, kernel).dtype == torch.float32
    for scale in (1e-30, 1.0, 1e30):
        for factor in (2.0, -2.0):
            on_line = torch.cat([z[:100], z[10:11] * factor]) * scale
            given = prepared(on_line, kernel)
            assert given.dtype == torch.float64
            expected = torch.nn.functional.normalize(on_line.double(), dim=-1, eps=0)
            torch.testing.assert_close(given, expected.nan_to_num(0.0), rtol=1e-14, atol=0)
    assert prepared(on_line, kernels.Linear()).dtype == torch.float32


@pytest.mark.parametrize(
    "loss", [lsp, gsp, temporal_correlation, similarity], ids=lambda f: f.__name__
)
def test_kernels_of_ones_own_that_do_not_fit(loss: Any) -> None:
    def run(kernel: kernels.Kernel) -> None:
        z, edges = torch.randn(4, 3), torch.tensor([[0, 1, 2], [3, 3, 3]])
        if loss is similarity:
            loss(z, edges, kernel)
        elif loss is temporal_correlation:
            loss(z.view(1, 4, 1, 3), z.view(1, 4, 1, 3), kernel)
        else:
            loss(z, z, *([edges] if loss is lsp else []), kernel=kernel)

    class Own(kernels.Kernel):
        measure = "inner"

        def __init__(self, function: Any) -> None:
            self.function = function

        def __call__(self, value: Tensor) -> Any:
            return self.function(value)

    run(Own(torch.tanh))
    for function in (torch.sum, lambda value: value[..., None], lambda value: value[..., :1]):
        with pytest.raises(ValueError, match="'kernel' must return a similarity for each"):
            run(Own(function))
    with pytest.raises(TypeError, match=r"'kernel\(value\)' must be a Tensor"):
        run(Own(Tensor.tolist))
    with pytest.raises(ValueError, match=r"'kernel.measure' must be one of .* \(got None\)"):
        run(kernels.Kernel())
