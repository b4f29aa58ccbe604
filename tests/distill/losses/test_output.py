from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from pyg_stkd.distill import Capture, Distiller, HintLoss, LogitLoss, OutputLoss


def naive_logit(s, t, centred):
    total, count = 0.0, 0
    for s_row, t_row in zip(s.tolist(), t.tolist(), strict=True):
        gaps = [a - b for a, b in zip(s_row, t_row, strict=True)]
        mean = sum(gaps) / len(gaps) if centred else 0.0
        total += sum((gap - mean) ** 2 for gap in gaps)
        count += len(gaps)
    return total / count


def naive_error(s, t, kind, delta):
    def error(d):
        if kind == "mse":
            return d * d
        if kind == "mae":
            return abs(d)
        return d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)

    pairs = list(zip(s.flatten().tolist(), t.flatten().tolist(), strict=True))
    return sum(error(a - b) for a, b in pairs) / len(pairs)


def both(n, c):
    return torch.randn(2, n, c, dtype=torch.float64) * 3


@given(n=st.integers(1, 6), c=st.integers(2, 5), multi_label=st.booleans())
def test_logit_value(n, c, multi_label):
    s, t = both(n, c)
    loss = LogitLoss(multi_label=multi_label)(Capture(s), Capture(t)).item()
    assert loss == pytest.approx(naive_logit(s, t, not multi_label), rel=1e-12)


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    kind=st.sampled_from(["mse", "mae", "huber"]),
    delta=st.floats(0.1, 5.0),
)
def test_output_value(shape, kind, delta):
    s, t = torch.randn(2, *shape, dtype=torch.float64) * 3
    loss = OutputLoss(kind, huber_delta=delta)(Capture(s), Capture(t)).item()
    assert loss == pytest.approx(naive_error(s, t, kind, delta), rel=1e-12)


@pytest.mark.parametrize(
    "loss",
    [LogitLoss(), LogitLoss(multi_label=True), *map(OutputLoss, ("mse", "mae", "huber"))],
    ids=["centred", "plain", "mse", "mae", "huber"],
)
def test_gradient(loss):
    s, t = both(4, 3)
    assert gradcheck(lambda s: loss(Capture(s), Capture(t)), s.requires_grad_())


def test_a_softmax_does_not_see_a_constant_of_each_row_but_sigmoids_do():
    s, t = both(4, 3)
    shifted = Capture(s + torch.randn(4, 1, dtype=torch.float64))
    centred, plain = LogitLoss(), LogitLoss(multi_label=True)
    torch.testing.assert_close(centred(shifted, Capture(t)), centred(Capture(s), Capture(t)))
    assert plain(shifted, Capture(t)) > centred(shifted, Capture(t))


def test_plain_logits_are_outputs_are_hints_without_projection():
    s, t = map(Capture, both(4, 3))
    plain = LogitLoss(multi_label=True)(s, t)
    assert plain == OutputLoss()(s, t)
    torch.testing.assert_close(plain, HintLoss("", "", projection=False)(s, t))


def test_gradient_does_not_vanish_where_both_are_sure():
    s = torch.tensor([[50.0, -50.0]], requires_grad=True)
    LogitLoss()(Capture(s), Capture(torch.tensor([[30.0, -30.0]]))).backward()
    torch.testing.assert_close(s.grad, torch.tensor([[20.0, -20.0]]))


@pytest.mark.parametrize("loss", [LogitLoss(), LogitLoss(multi_label=True), OutputLoss("huber")])
def test_only_the_chosen_nodes_count(loss):
    s, t = both(5, 3)
    nodes = torch.tensor([True, False, True, False, False])
    whole = loss(Capture(s[nodes]), Capture(t[nodes]))
    assert torch.equal(loss(Capture(s, nodes=nodes), Capture(t, nodes=nodes)), whole)


def test_nodes_of_forecasts_are_on_the_axis_that_is_said():
    s, t = torch.randn(2, 2, 5, 4)  # [B, T, N]
    nodes = torch.tensor([3, 0])
    loss = OutputLoss("mae", node_dim=-1)(Capture(s, nodes=nodes), Capture(t, nodes=nodes))
    torch.testing.assert_close(loss, (s - t)[..., nodes].abs().mean())
    with pytest.raises(ValueError, match=r"'node_dim' must be an axis .*\[2, 5, 4\] \(got 3\)"):
        OutputLoss(node_dim=3)(Capture(s, nodes=nodes), Capture(t, nodes=nodes))


@pytest.mark.parametrize("loss", [LogitLoss(), LogitLoss(multi_label=True), OutputLoss("mae")])
def test_no_rows(loss):
    s, t = torch.randn(0, 3, requires_grad=True), torch.randn(0, 3)
    value = loss(Capture(s), Capture(t))
    assert value.item() == 0
    assert torch.autograd.grad(value, s)[0].shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_single(dtype):
    s, t = (x.to(dtype) for x in torch.randn(2, 4, 3) * 300)  # squares beyond float16's range
    for loss in (LogitLoss(), OutputLoss()):
        value = loss(Capture(s), Capture(t))
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(Capture(s.float()), Capture(t.float())))


def test_within_a_distiller():
    torch.manual_seed(0)
    teacher, student = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    distiller = Distiller(teacher, student, [LogitLoss(weight=2.0), OutputLoss("huber")])
    x = torch.randn(5, 4)
    out, losses = copy.deepcopy(distiller)(x)
    assert list(losses) == ["logit", "output"]
    expected = 2 * naive_logit(out.double(), teacher(x).double(), centred=True)
    assert losses["logit"].item() == pytest.approx(expected, rel=1e-5)


def test_bad_input():
    with pytest.raises(ValueError, match=r"'kind' must be one of 'mse', .*\(got 'l1'\)"):
        OutputLoss("l1")
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="'huber_delta' must be finite and above 0"):
            OutputLoss("huber", huber_delta=value)
    with pytest.raises(TypeError, match=r"'huber_delta' must be a number \(got '1'\)"):
        OutputLoss("huber", huber_delta="1")
    for value in (True, 1.0, "N"):
        with pytest.raises(TypeError, match="'node_dim' must be an integer"):
            OutputLoss(node_dim=value)
    with pytest.raises(TypeError, match=r"'multi_label' must be a bool \(got 1\)"):
        LogitLoss(multi_label=1)
    with pytest.raises(ValueError, match=r"'weight' must be finite and at least 0 \(got -1\)"):
        LogitLoss(-1)
    s, t = Capture(torch.ones(3, 2)), Capture(torch.ones(3, 4), owner="teacher")
    for loss in (LogitLoss(), OutputLoss()):
        with pytest.raises(ValueError, match=r"same shape \(got \[3, 2\] and \[3, 4\]\)"):
            loss(s, t)
    for shape in ((3, 1), (3,)):
        one = Capture(torch.ones(shape))
        with pytest.raises(ValueError, match=r"two classes or more.*multi_label=True"):
            LogitLoss()(one, one)
        assert LogitLoss(multi_label=True)(one, one) == 0


def test_repr():
    assert repr(LogitLoss(2.0, multi_label=True)) == (
        "LogitLoss('', '', weight=2.0, name='logit', multi_label=True)"
    )
    assert repr(OutputLoss("mae")) == "OutputLoss('', '', weight=1.0, name='output', kind='mae')"
