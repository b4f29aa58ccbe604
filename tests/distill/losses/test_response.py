from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from pyg_stkd.distill import Capture, LogitLoss, SoftTargetLoss


def naive_kl(s, t, T):
    total = 0.0
    for s_row, t_row in zip(s.tolist(), t.tolist(), strict=True):
        s_exp, t_exp = [math.exp(v / T) for v in s_row], [math.exp(v / T) for v in t_row]
        for a, b in zip(s_exp, t_exp, strict=True):
            p, q = b / sum(t_exp), a / sum(s_exp)
            total += p * math.log(p / q)
    return T**2 * total / len(s)


def naive_binary_kl(s, t, T):
    total = 0.0
    for a, b in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-b / T)), 1 / (1 + math.exp(-a / T))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return T**2 * total / s.numel()


@pytest.mark.parametrize("T", [1.0, 4.0])
@pytest.mark.parametrize(("multi_label", "naive"), [(False, naive_kl), (True, naive_binary_kl)])
def test_value(T, multi_label, naive):
    s, t = torch.randn(2, 5, 3, dtype=torch.float64) * 3
    loss = SoftTargetLoss(T, multi_label)
    assert loss(Capture(s), Capture(t)).item() == pytest.approx(naive(s, t, T), abs=1e-12)
    assert loss(Capture(s), Capture(s)).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("multi_label", [False, True])
def test_gradient(multi_label):
    s, t = torch.randn(2, 4, 3, dtype=torch.float64)
    loss = SoftTargetLoss(2.0, multi_label)
    assert gradcheck(lambda s: loss(Capture(s), Capture(t)), s.requires_grad_())


def test_gradient_does_not_shrink_with_temperature():
    # At high T the gradient tends to (s - t - mean(s - t)) / C (paper, Section 2.1).
    s, t = torch.randn(2, 1, 3, dtype=torch.float64)
    s.requires_grad_()
    SoftTargetLoss(1e4)(Capture(s), Capture(t)).backward()
    gap = (s - t).detach()
    torch.testing.assert_close(s.grad, (gap - gap.mean()) / 3, atol=1e-4, rtol=0)


@pytest.mark.parametrize("multi_label", [False, True])
def test_extreme_logits_stay_finite(multi_label):
    s = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = SoftTargetLoss(1.0, multi_label)(Capture(s), Capture(-s.detach()))
    loss.backward()
    assert loss.item() == pytest.approx(600.0 if not multi_label else 300.0)
    assert s.grad.isfinite().all()


def test_only_the_chosen_nodes_count():
    s, t = torch.randn(2, 5, 3)
    nodes = torch.tensor([True, False, True, False, False])
    loss = SoftTargetLoss()
    whole = loss(Capture(s[nodes]), Capture(t[nodes]))
    assert torch.equal(loss(Capture(s, nodes=nodes), Capture(t, nodes=nodes)), whole)


def test_leading_axes_are_more_rows():
    s, t = torch.randn(2, 2, 5, 3)
    flat = SoftTargetLoss()(Capture(s.view(10, 3)), Capture(t.view(10, 3)))
    torch.testing.assert_close(SoftTargetLoss()(Capture(s), Capture(t)), flat)


def test_bad_input():
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="'temperature' must be "):
            SoftTargetLoss(value)
    for bad in ("a", None, True):
        with pytest.raises(TypeError, match=rf"'temperature' must be a number \(got {bad!r}\)"):
            SoftTargetLoss(bad)
    with pytest.raises(TypeError, match=r"'multi_label' must be a bool \(got 0.5\)"):
        SoftTargetLoss(4.0, 0.5)
    s = Capture(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"same shape \(got \[3, 2\] and \[3, 4\]\)"):
        SoftTargetLoss()(s, Capture(torch.ones(3, 4), owner="teacher"))
    with pytest.raises(ValueError, match=r"two classes or more.*multi_label=True.*\[3, 1\]"):
        SoftTargetLoss()(Capture(torch.ones(3, 1)), Capture(torch.ones(3, 1)))


def test_repr():
    assert repr(SoftTargetLoss(2.0, True)) == (
        "SoftTargetLoss('', '', weight=1.0, name='soft_target', temperature=2.0, multi_label=True)"
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_no_rows(multi_label):
    s, t = torch.randn(0, 3, requires_grad=True), torch.randn(0, 3)
    value = SoftTargetLoss(multi_label=multi_label)(Capture(s), Capture(t))
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].shape == (0, 3)


@pytest.mark.parametrize(("multi_label", "share"), [(False, 1 / 2), (True, 1 / 8)])
def test_infinite_temperature_is_a_share_of_the_logit_loss(multi_label, share):
    s, t = torch.randn(2, 5, 3, dtype=torch.float64) * 3
    s.requires_grad_()
    limit = SoftTargetLoss(math.inf, multi_label)(Capture(s), Capture(t))
    logit = LogitLoss(multi_label=multi_label)(Capture(s), Capture(t))
    torch.testing.assert_close(limit, share * logit, rtol=1e-14, atol=0)
    # The distance to a finite temperature falls as 1 / T or faster, in value and gradient.
    for T in (1e2, 1e3, 1e4):
        near = SoftTargetLoss(T, multi_label)(Capture(s), Capture(t))
        gradients = [torch.autograd.grad(x, s, retain_graph=True)[0] for x in (near, limit)]
        assert abs(near - limit) < 10 / T * limit
        assert (gradients[0] - gradients[1]).norm() < 10 / T * gradients[1].norm()


def test_infinite_temperature_checks_the_same():
    with pytest.raises(ValueError, match="two classes or more"):
        SoftTargetLoss(math.inf)(Capture(torch.ones(3, 1)), Capture(torch.ones(3, 1)))
    with pytest.raises(ValueError, match="must have the same shape"):
        SoftTargetLoss(math.inf, True)(Capture(torch.ones(3, 1)), Capture(torch.ones(3, 2)))
