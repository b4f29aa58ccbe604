from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.functional.structures.similarities.step_distance import few_steps, step_distances


def naive(h: Tensor) -> Tensor:
    """The definition, a pair of steps at a time."""
    steps = h.size(1)
    rows = [
        torch.stack([(h[:, t] - h[:, u]).square().sum(-1) for u in range(steps) if u != t], dim=-1)
        for t in range(steps)
    ]
    return torch.stack(rows, dim=-2)  # [B, N, T, T - 1]


@pytest.mark.parametrize("steps", [2, 3, 4, 7])
def test_values_and_gradients_are_the_definition(steps: int) -> None:
    h = torch.randn(2, steps, 5, 3, dtype=torch.double, requires_grad=True)
    ours, expected = step_distances(h), naive(h)
    torch.testing.assert_close(ours, expected)
    weight = torch.rand_like(expected)
    gradients = [torch.autograd.grad((x * weight).sum(), h)[0] for x in (ours, expected)]
    torch.testing.assert_close(*gradients)


def test_derivatives_of_any_order() -> None:
    h = torch.randn(1, 4, 2, 2, dtype=torch.double, requires_grad=True)
    assert gradcheck(step_distances, h)
    assert gradgradcheck(step_distances, h)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    h = torch.randn(shape, requires_grad=True)
    out = step_distances(h)
    torch.testing.assert_close(out, naive(h))
    assert torch.autograd.grad(out.sum(), h)[0].shape == shape


def test_nothing_cancels_far_from_the_origin_and_strides_are_free() -> None:
    h = (torch.randn(2, 3, 4, 5) + 1e4).transpose(0, 1)
    expected = naive(h.double())
    torch.testing.assert_close(step_distances(h).double(), expected, rtol=1e-5, atol=0)
    with torch.autocast("cpu"):
        assert step_distances(h).equal(step_distances(h.contiguous()))


def test_many_steps_are_left_to_products() -> None:
    assert few_steps(torch.ones(1, 4, 1, 1))
    assert not few_steps(torch.ones(1, 99, 1, 1))


def test_no_array_of_all_pairs_and_channels(
    allocations: Callable[[Callable[[], object]], list[int]],
) -> None:
    h = torch.randn(2, 8, 16, 64, requires_grad=True)
    assert max(allocations(lambda: step_distances(h).sum().backward())) <= h.numel() * 4
