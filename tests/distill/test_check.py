from __future__ import annotations

import math

import torch
from torch import nn
from torch_geometric.nn import GAT, GCN

from pyg_stkd.distill import Distiller, HintLoss, OutputLoss, SoftTargetLoss, until_epoch

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


def build(*losses):
    teacher = GAT(3, 8, 2, 5, heads=2, norm="batch_norm")
    student = GCN(3, 4, 2, 5, norm="batch_norm", dropout=0.5)
    return Distiller(teacher, student, losses)


def test_report_lists_shapes_and_values():
    distiller = build(HintLoss("convs.0", "convs.0", weight=2.0), SoftTargetLoss())
    report = distiller.check(X, EDGES)
    shapes = {(tap.owner, tap.layer): tap.shapes for tap in report.taps}
    assert shapes == {
        ("teacher", "convs.0"): ((4, 8),),
        ("teacher", ""): ((4, 5),),
        ("student", "convs.0"): ((4, 4),),
        ("student", ""): ((4, 5),),
    }
    distiller.eval()
    with torch.no_grad():
        _, losses = distiller(X, EDGES)
    hint, soft = report.losses
    assert (hint.name, hint.factor, soft.factor) == ("hint", 2.0, 1.0)
    assert math.isclose(hint.value * 2, losses["hint"].item(), rel_tol=1e-6)
    assert math.isclose(soft.value, losses["soft_target"].item(), rel_tol=1e-6)
    assert report.ok
    lines = str(report).splitlines()
    assert lines[1] == "teacher convs.0   [4, 8]  float32  yes     hint"
    assert lines[4] == "student (output)  [4, 5]  float32  yes     soft_target"


def test_nothing_else_changes():
    distiller = build(HintLoss("convs.0", "convs.0"))
    distiller.student.norms[0].eval()  # modes may be mixed
    modes = [module.training for module in distiller.modules()]
    state = {k: v.clone() for k, v in distiller.student.state_dict().items()}
    random = torch.get_rng_state()
    distiller.check(X, EDGES)
    assert [module.training for module in distiller.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in distiller.student.state_dict().items())
    assert not any(parameter.grad is not None for parameter in distiller.parameters())
    weight = distiller.losses["hint"].projection.weight
    assert weight.shape == (8, 4)
    assert weight.requires_grad


def test_silent_losses_are_checked_too():
    distiller = build(SoftTargetLoss(schedule=until_epoch(3)))
    distiller.set_epoch(5)
    report = distiller.check(X, EDGES)
    assert report.losses[0].factor == 0.0
    assert report.losses[0].value > 0


def test_non_finite_values_are_reported():
    distiller = build(HintLoss("convs.0", "convs.0", projection=nn.LazyLinear(8)))
    report = distiller.check(X * math.nan, EDGES)
    assert not report.ok
    assert [tap.finite for tap in report.taps] == [False, False]
    assert not report.losses[0].finite
    assert str(report).splitlines()[-1] == "hint  nan    1       NO"


def test_known_teacher_is_checked_without_running():
    distiller = build(SoftTargetLoss())
    known = distiller.capture_teacher(X, EDGES)
    distiller.teacher.forward = None
    assert distiller.check(X, EDGES, teacher=known).ok


def test_parts_and_what_is_not_compared_are_listed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(2, 3)

        def forward(self, x):
            h = self.lin(x)
            return {"a": h, "b": h[:2], "aux": h.sum(), "index": torch.tensor([0])}

    losses = [
        OutputLoss(),
        OutputLoss(name="one", select="b"),
        OutputLoss(weights={"a": 1.0}, name="w"),
    ]
    report = Distiller(Net(), Net(), losses).check(torch.ones(4, 2))
    assert [tap.part for tap in report.taps] == ["a", "b", "aux", "index"] * 2
    users = {tap.part: tap.losses for tap in report.taps if tap.owner == "student"}
    assert users == {"a": ("output", "w"), "b": ("output", "one"), "aux": (), "index": ()}
    text = str(report)
    assert "student (output) part 'b'" in text
    assert text.count("not compared") == 4
    assert report.ok
