from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.structures.divergences.step_divergence import step_divergence
from pyg_stkd.kernels import RBF

KERNELS = [RBF(sigma=0.7), RBF(sigma="median")]


def naive(h: Tensor, teacher: Tensor, kernel: RBF, direction: str) -> Tensor:
    """The definition, step by step; the width is a constant."""
    steps = h.size(1)
    square = (h[:, :, None] - h[:, None]).square().sum(-1)  # [B, T, T, N]
    sigma = kernel.sigma
    if isinstance(sigma, str):
        every = square.detach()[:, ~torch.eye(steps, dtype=torch.bool)].flatten().sort().values
        sigma = every[(every.numel() - 1) // 2].sqrt()
    score, total = torch.exp(-square / (2 * sigma**2)), torch.zeros(())
    for step in range(steps):
        others = [other for other in range(steps) if other != step]
        ours = score[:, step, others].log_softmax(1)  # [B, T - 1, N]
        theirs = teacher[:, :, step].mT
        gap = ours - theirs
        term = ours.exp() * gap if direction == "student" else -theirs.exp() * gap
        total = total + term.sum()
    return total


def inputs(steps: int) -> tuple[Tensor, Tensor]:
    h = torch.randn(2, steps, 3, 5, dtype=torch.float64, requires_grad=True)
    return h, torch.randn(2, 3, steps, steps - 1, dtype=torch.float64).log_softmax(-1)


@pytest.mark.parametrize("direction", ["student", "teacher"])
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("steps", [2, 3, 7])
def test_value_and_gradient_are_the_definition(steps, kernel, direction) -> None:
    h, teacher = inputs(steps)
    found = step_divergence(h, teacher, kernel, direction)
    expected = naive(h, teacher, kernel, direction)
    torch.testing.assert_close(found, expected)
    (ours,) = torch.autograd.grad(3 * found, h)
    (theirs,) = torch.autograd.grad(3 * expected, h)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("direction", ["student", "teacher"])
def test_derivatives_of_any_order(direction) -> None:
    h, teacher = inputs(4)

    def loss(h: Tensor) -> Tensor:
        return step_divergence(h, teacher, RBF(sigma=0.7), direction)

    assert torch.autograd.gradcheck(loss, h)
    assert torch.autograd.gradgradcheck(loss, h)


def test_axes_in_another_order_and_no_gradient() -> None:
    h, teacher = inputs(4)
    expected = naive(h, teacher, RBF(), "student")
    turned = h.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    found = step_divergence(
        turned, teacher.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), RBF()
    )
    torch.testing.assert_close(found, expected)
    (ours,), (theirs,) = torch.autograd.grad(found, turned), torch.autograd.grad(expected, h)
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(step_divergence(h, teacher, RBF()), expected.detach())
