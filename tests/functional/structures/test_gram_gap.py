from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_stkd.functional.structures.gram_gap import gram_gap
from pyg_stkd.kernels import Cosine, Kernel, Linear

COMPILE = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
KERNELS = pytest.mark.parametrize("kernel", [Cosine(), Linear()], ids=repr)


def naive(s: Tensor, t: Tensor, kernel: Kernel) -> list[Tensor]:
    """The definition in float64, and its gradient, which is 0 where a node is."""
    z = s.detach().double().requires_grad_()
    a, b = z, t.double()
    if isinstance(kernel, Cosine):
        norms = [x.norm(dim=1, keepdim=True) for x in (a, b)]
        a, b = (x / n.masked_fill(n == 0, torch.inf) for x, n in zip((a, b), norms, strict=True))
    loss = F.mse_loss(a @ a.t(), b @ b.t())
    return [loss.detach(), *torch.autograd.grad(loss, z)]


def usual(num_nodes: int) -> tuple[Tensor, Tensor]:
    return torch.randn(num_nodes, 6), torch.randn(num_nodes, 9)


def zeros(num_nodes: int) -> tuple[Tensor, Tensor]:
    s, t = usual(num_nodes)
    s[::5], t[::3] = 0, 0
    return s, t


def parallel(num_nodes: int) -> tuple[Tensor, Tensor]:
    s, t = usual(num_nodes)
    return torch.ones(num_nodes, 1) + 1e-4 * s, t


def close(num_nodes: int) -> tuple[Tensor, Tensor]:
    s, _ = usual(num_nodes)
    return s + 1e-5 * torch.randn_like(s), s


def small(num_nodes: int) -> tuple[Tensor, Tensor]:
    s, t = usual(num_nodes)
    return s * 1e-25, t * 1e25


INPUTS = pytest.mark.parametrize(
    "inputs", [usual, zeros, parallel, close, small], ids=lambda make: make.__name__
)


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        scale = float(theirs.abs().amax())
        assert ours.dtype == torch.float32
        atol = 2e-5 * scale
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-4, atol=atol)


@KERNELS
@INPUTS
@pytest.mark.parametrize("num_nodes", [6, 150])
def test_equals_the_definition_in_float64(inputs: Any, kernel: Kernel, num_nodes: int) -> None:
    s, t = inputs(num_nodes)
    if inputs is small and isinstance(kernel, Linear):
        t = t * 1e-25  # or the loss is out of range
    loss = gram_gap(s.requires_grad_(), t, kernel)
    assert_same([loss.detach(), *torch.autograd.grad(loss, s)], naive(s, t, kernel))


@COMPILE
@KERNELS
@INPUTS
@pytest.mark.parametrize("num_nodes", [32, 33])
def test_compiled_it_looks_where_nodes_are_many(
    inputs: Any, kernel: Kernel, num_nodes: int, compiled_calls: Any
) -> None:
    """Few nodes are computed in float64 by what a compiler fuses alone."""
    s, t = inputs(num_nodes)
    if inputs is small and isinstance(kernel, Linear):
        t = t * 1e-25
    seen, found = compiled_calls(lambda s, t: gram_gap(s, t, kernel), s.requires_grad_(), t)
    assert seen == ({"gram_gap_again"} if num_nodes > 32 else set())
    assert_same(found, naive(s, t, kernel))


@COMPILE
def test_compiled_for_any_number_of_nodes() -> None:
    torch._dynamo.reset()
    step = torch.compile(gram_gap, backend="aot_eager", fullgraph=True, dynamic=True)
    for num_nodes in (40, 57, 90):
        s, t = usual(num_nodes)
        loss = step(s.requires_grad_(), t, Cosine())
        assert_same([loss.detach(), *torch.autograd.grad(loss, s)], naive(s, t, Cosine()))
    torch._dynamo.reset()


@KERNELS
def test_equal_features_are_not_apart(kernel: Kernel) -> None:
    z = torch.randn(70, 12, requires_grad=True)
    loss = gram_gap(z, z.detach().clone(), kernel)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, z)[0].abs().amax() == 0


@KERNELS
def test_second_derivatives(kernel: Kernel) -> None:
    s, t = usual(5)
    direction = torch.randn_like(s)

    def second(s: Tensor, t: Tensor, loss: Any) -> Tensor:
        (slope,) = torch.autograd.grad(loss(s, t), s, create_graph=True)
        return torch.autograd.grad((slope * direction.to(s.dtype)).sum(), s)[0]

    def definition(s: Tensor, t: Tensor) -> Tensor:
        if isinstance(kernel, Cosine):
            s, t = F.normalize(s, dim=1), F.normalize(t, dim=1)
        return F.mse_loss(s @ s.t(), t @ t.t())

    ours = second(s.requires_grad_(), t, lambda s, t: gram_gap(s, t, kernel))
    theirs = second(s.detach().double().requires_grad_(), t.double(), definition)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_nothing_is_derived_that_nobody_wants() -> None:
    s, t = usual(40)
    loss = gram_gap(s, t.requires_grad_(), Cosine())
    assert not loss.requires_grad
    torch.testing.assert_close(loss.double(), naive(s, t.detach(), Cosine())[0])
    with torch.no_grad():
        assert gram_gap(s.requires_grad_(), t, Cosine()).equal(loss)


def test_autocast_does_not_round_products() -> None:
    s, t = usual(40)
    expected = gram_gap(s, t, Cosine())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gram_gap(s, t, Cosine()).equal(expected)


@KERNELS
def test_what_is_not_finite_shows(kernel: Kernel) -> None:
    s, t = usual(40)
    s[3, 2] = math.nan
    assert gram_gap(s, t, kernel).isnan()
