from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyg_stkd.distill import DistillationLoss, Distiller, HintLoss, LSPLoss
from pyg_stkd.distill.comparison import as_captures


class Recurrent(nn.Module):
    """Calls its layer T times."""

    def __init__(self, T, skip=False):
        super().__init__()
        self.cell = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.T = T

    def forward(self, x):
        for _ in range(self.T):
            x = self.cell(x).tanh()
        return x


def calls(model, x):
    out = []
    for _ in range(model.T):
        out.append(model.cell(x))
        x = out[-1].tanh()
    return out


def mse(s, t):
    return ((s - t) ** 2).mean()


def hint(**kwargs):
    return HintLoss("cell", "cell", projection=False, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "pairs"),
    [
        ({}, [(2, 2)]),
        ({"call": "last"}, [(2, 2)]),
        ({"call": 0}, [(0, 0)]),
        ({"call": -2}, [(1, 1)]),
        ({"call": 1, "teacher_call": "last"}, [(1, 2)]),
        ({"call": "all"}, [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_which_call(kwargs, pairs):
    teacher, student, x = Recurrent(3), Recurrent(3), torch.randn(4, 2)
    _, losses = Distiller(teacher, student, [hint(**kwargs)])(x)
    s, t = calls(student, x), calls(teacher, x)
    expected = sum(mse(s[i], t[j]) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(losses["hint"], expected)


def test_captures_count_their_calls():
    distiller = Distiller(Recurrent(3), Recurrent(2), [hint()])
    known = distiller.capture_teacher(torch.randn(4, 2))
    assert [capture.call for capture in known["cell"]] == [0, 1, 2]


def test_calls_that_never_came():
    x = torch.ones(1, 2)
    lost = HintLoss("cell", "unused", projection=False)
    match = r"student layer 'unused', which loss 'hint' needs, was called 0 times"
    with pytest.raises(RuntimeError, match=match):
        Distiller(Recurrent(1), Recurrent(1), [lost])(x)
    with pytest.raises(IndexError, match=r"'hint'.*the 2 calls of the teacher.*\(got 2\)"):
        Distiller(Recurrent(2), Recurrent(3), [hint(call=2)])(x)
    with pytest.raises(ValueError, match=r"'hint'.*got 3 calls by the student and 2 by the tea"):
        Distiller(Recurrent(2), Recurrent(3), [hint(call="all")])(x)


def test_nodes_out_of_range_name_the_loss():
    distiller = Distiller(nn.Identity(), nn.Identity(), {"my": HintLoss("", "", projection=False)})
    match = (
        r"Loss 'my', student output, teacher output: 'nodes' must be below the 4 rows.*\(got 4\)"
    )
    with pytest.raises(IndexError, match=match):
        distiller(torch.ones(4, 2), nodes=[4])


def test_errors_in_losses_name_the_loss_and_the_layers():
    wide = nn.Sequential(nn.Linear(2, 3))
    distiller = Distiller(wide, nn.Sequential(nn.Linear(2, 2)), {"my": LSPLoss("0", "0")})
    match = r"Loss 'my', student layer '0', teacher layer '0': No graph was found"
    with pytest.raises(ValueError, match=match):
        distiller(torch.ones(4, 2))
    edges = torch.tensor([[0, 1], [1, 0]])
    named = {"my": LSPLoss("0", "0", graph=edges)}
    distiller = Distiller(nn.Sequential(nn.Identity()), nn.Sequential(nn.Identity()), named)
    match = r"Loss 'my', student layer '0', teacher layer '0': 'z_student' must be finite"
    with pytest.raises(ValueError, match=match):
        distiller(torch.full((2, 1), math.nan), teacher_args=(torch.ones(2, 1),))


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (lambda z: z, r"shape \[4, 2\] of torch.float32"),
        (lambda z: 1.0, "float"),
        (lambda z: (z > 0).sum(), r"shape \[\] of torch.int64"),
    ],
)
def test_losses_must_return_a_scalar(value, got):
    class Odd(DistillationLoss):
        def forward(self, student, teacher, target=None):
            return value(student.features)

    with pytest.raises(TypeError, match=rf"'odd' must return a floating.*\(got {got}\)"):
        Distiller(nn.Linear(2, 2), nn.Linear(2, 2), [Odd()])(torch.ones(4, 2))


def test_plain_tensors_stand_for_a_teacher():
    teacher, student, x = Recurrent(1), Recurrent(1), torch.randn(4, 2)
    distiller = Distiller(teacher, student, [hint()])
    t = torch.randn(4, 2, requires_grad=True)
    _, losses = distiller(x, teacher={"cell": t})
    torch.testing.assert_close(losses["hint"], mse(student.cell(x), t))
    losses["hint"].backward()
    assert t.grad is None
    with pytest.raises(ValueError, match=r"no capture of the teacher layer 'cell'.*\(got \[''\]\)"):
        distiller(x, teacher={"": t})
    with pytest.raises(TypeError, match=r"'teacher' must be the result.*\(got Tensor\)"):
        as_captures(t)
    with pytest.raises(TypeError, match=r"'teacher' must hold tensors \(got list for layer 'a'\)"):
        as_captures({"a": []})
