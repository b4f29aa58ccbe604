from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from pyg_stkd.distill import Capture, DistillationLoss, until_epoch
from pyg_stkd.distill.losses.base import align, default_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LSPLoss", "lsp"),
        ("SoftTargetLoss", "soft_target"),
        ("STCDLoss", "stcd"),
        ("KLMeanLoss", "kl_mean"),
        ("Loss", "loss"),
        ("Mine", "mine"),
    ],
)
def test_default_names(name, expected):
    assert default_name(type(name, (), {})) == expected


def test_factor_is_weight_times_schedule():
    assert DistillationLoss(weight=3.0).factor(7) == 3.0
    loss = DistillationLoss(weight=3.0, schedule=lambda epoch: 0.5**epoch)
    assert [loss.factor(epoch) for epoch in range(3)] == [3.0, 1.5, 0.75]


def test_until_epoch():
    schedule = pickle.loads(pickle.dumps(until_epoch(2)))
    assert [schedule(epoch) for epoch in range(4)] == [1.0, 1.0, 0.0, 0.0]
    assert until_epoch(0)(0) == 0.0
    with pytest.raises(ValueError, match=r"'epochs' must be at least 0 \(got -1\)"):
        until_epoch(-1)
    for bad in ("a", None, 2.0, float("nan"), True):
        with pytest.raises(TypeError, match=rf"'epochs' must be an integer \(got {bad!r}\)"):
            until_epoch(bad)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"weight": -1.0}, ValueError, r"'weight' must be finite and at least 0 \(got -1.0\)"),
        ({"weight": float("nan")}, ValueError, r"'weight'.*\(got nan\)"),
        ({"weight": float("inf")}, ValueError, r"'weight'.*\(got inf\)"),
        ({"weight": "a"}, TypeError, r"'weight' must be a number \(got 'a'\)"),
        ({"weight": None}, TypeError, r"'weight' must be a number \(got None\)"),
        ({"weight": True}, TypeError, r"'weight' must be a number \(got True\)"),
        ({"teacher_layer": 1}, TypeError, r"'teacher_layer' must be the name.*\(got 1\)"),
        ({"student_layer": nn.ReLU()}, TypeError, r"'student_layer'.*\(got ReLU\(\)\)"),
        ({"schedule": 3}, TypeError, r"'schedule' must map an epoch.*\(got 3\)"),
        ({"call": "first"}, ValueError, r"'call' must be 'last', 'all'.*\(got 'first'\)"),
        ({"call": True}, ValueError, r"'call'.*\(got True\)"),
        ({"teacher_call": 1.5}, ValueError, r"'teacher_call'.*\(got 1.5\)"),
        ({"call": "all", "teacher_call": 0}, ValueError, r"both be 'all'.*\(got 'all' and 0\)"),
    ],
)
def test_bad_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        DistillationLoss(**kwargs)


def test_repr_names_the_layers():
    assert repr(DistillationLoss("a", "b", weight=2.0, name="x")) == (
        "DistillationLoss('a', 'b', weight=2.0, name='x')"
    )


def test_align_takes_the_students_precision_and_nodes():
    nodes = torch.tensor([1])
    s, t = Capture(torch.ones(2, 3), nodes=nodes), Capture(torch.ones(2, 4).double(), nodes=nodes)
    assert [x.shape for x in align(s, t)] == [(1, 3), (1, 4)]
    assert [x.shape for x in align(s, t, rows=False)] == [(2, 3), (2, 4)]
    assert [x.dtype for x in align(s, t)] == [torch.float32] * 2
    assert [x.dtype for x in align(t, s)] == [torch.float64] * 2


@pytest.mark.parametrize("shape", [(3, 4), (2,), (1, 2, 4)])
def test_align_refuses_other_nodes(shape):
    s = Capture(torch.ones(2, 3), layer="a")
    t = Capture(torch.ones(shape), layer="b", owner="teacher")
    match = r"student layer 'a' and the teacher layer 'b' must have the same nodes.*\[2, 3\] and"
    with pytest.raises(ValueError, match=match):
        align(s, t)


def test_align_refuses_other_devices():
    with pytest.raises(ValueError, match=r"on one device \(got cpu and meta\)"):
        align(Capture(torch.ones(2, 3)), Capture(torch.ones(2, 3, device="meta")))
