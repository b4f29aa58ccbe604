from __future__ import annotations

import pytest
import torch
from torch import nn

from pyg_stkd.distill import (
    DistillationLoss,
    Distiller,
    HintLoss,
    LSPLoss,
    SoftTargetLoss,
    STCDLoss,
    Teachers,
)


def models():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Sequential(nn.Linear(2, 3), nn.ReLU())


def test_names():
    same = [HintLoss("0", "0"), HintLoss("1", "1")]
    with pytest.raises(ValueError, match=r"\(got 'hint' twice\): give one of them name="):
        Distiller(*models(), same)
    named = [HintLoss("0", "0"), HintLoss("1", "1", name="hint2")]
    assert list(Distiller(*models(), named).losses) == ["hint", "hint2"]
    assert list(Distiller(*models(), {"x": same[0], "y": same[1]}).losses) == ["x", "y"]
    for name in ("", "a.b", 3):
        with pytest.raises(ValueError, match=rf"word without dots \(got {name!r}\)"):
            Distiller(*models(), {name: SoftTargetLoss()})
    for name in ("train", "type", "half", "keys", "pop", "forward", "training", "_modules"):
        with pytest.raises(ValueError, match=rf"no attribute of a module \(got '{name}'\)"):
            Distiller(*models(), [SoftTargetLoss(name=name)])
    loss = SoftTargetLoss()
    with pytest.raises(ValueError, match=r"each loss once \(got 'b' twice\)"):
        Distiller(*models(), {"a": loss, "b": loss})


def test_types():
    teacher, student = models()
    with pytest.raises(TypeError, match=r"'teacher' must be a Module \(got 'gat'\)"):
        Distiller("gat", student, [])
    with pytest.raises(TypeError, match=r"'student' must be a Module \(got <class .*Linear'>\)"):
        Distiller(teacher, nn.Linear, [])
    with pytest.raises(TypeError, match=r"'losses' must be a list or a dict.*SoftTargetLoss"):
        Distiller(teacher, student, SoftTargetLoss())
    for bad in (None, 3):
        with pytest.raises(TypeError, match=rf"'losses' must be a list or a dict.*\(got {bad}\)"):
            Distiller(teacher, student, bad)
    with pytest.raises(TypeError, match=r"objects of DistillationLoss \(got MSELoss\)"):
        Distiller(teacher, student, {"mse": nn.MSELoss()})


def test_unknown_layers_list_the_valid_ones():
    match = r"'student_layer' of loss 'hint' must name a module.*names: '0', '1' \(got 'conv'\)"
    with pytest.raises(ValueError, match=match):
        Distiller(*models(), [HintLoss("0", "conv")])
    with pytest.raises(ValueError, match=r"'teacher_layer' of loss 'lsp' must name"):
        Distiller(*models(), [LSPLoss("0.weight", "0")])


def test_refused_models_are_left_as_they_were():
    teacher, student = models()
    with pytest.raises(ValueError, match="must name a module"):
        Distiller(teacher, student, [HintLoss("0", "0"), LSPLoss("0", "9")])
    with pytest.raises(ValueError, match="'name' of a loss"):
        Distiller(teacher, student, {"train": SoftTargetLoss()})
    assert teacher.training
    assert teacher[0].weight.requires_grad
    assert not any(m._forward_hooks for m in [*teacher.modules(), *student.modules()])


def test_lists_of_losses_in_a_list():
    both = STCDLoss("0", "0")
    distiller = Distiller(*models(), [both, HintLoss("0", "0")])
    assert list(distiller.losses) == [*(loss.name for loss in both), "hint"]
    with pytest.raises(TypeError, match=r"must hold objects of DistillationLoss \(got str\)"):
        Distiller(*models(), ["lsp"])


def test_lists_of_losses_in_a_mapping():
    stcd, hints = STCDLoss("0", "0"), [HintLoss("0", "0"), [HintLoss("1", "1", name="last")]]
    distiller = Distiller(*models(), {"a": hints, "b": stcd, "kd": SoftTargetLoss()})
    names = ["a_hint", "a_last", *(f"b_{loss.name}" for loss in stcd), "kd"]
    assert list(distiller.losses) == names
    with pytest.raises(ValueError, match=r"different names \(got 'a_hint' twice\)"):
        Distiller(*models(), {"a": [HintLoss("0", "0"), HintLoss("1", "1")]})
    with pytest.raises(TypeError, match=r"must hold objects of DistillationLoss \(got MSELoss\)"):
        Distiller(*models(), {"a": [nn.MSELoss()]})


def test_models_must_share_nothing():
    teacher, student = models()
    with pytest.raises(ValueError, match=r"got the very same model.*copy.deepcopy\(teacher\)"):
        Distiller(teacher, teacher, [])
    with pytest.raises(ValueError, match=r"got its module '1'"):
        Distiller(teacher, nn.Sequential(nn.Linear(2, 3), teacher[1]), [])
    student[0].weight = teacher[0].weight
    with pytest.raises(ValueError, match=r"got its parameters \['0.weight'\]"):
        Distiller(teacher, student, [])


@pytest.mark.parametrize("of", ["teacher", "student"])
@pytest.mark.parametrize("several", [False, True])
def test_losses_share_nothing_with_the_models(of, several):
    teacher, student = models()
    projection = {"teacher": teacher, "student": student}[of][0]
    loss = HintLoss("1", "1", projection=nn.Sequential(projection))
    given = Teachers([nn.Sequential(nn.Linear(2, 3), nn.ReLU()), teacher]) if several else teacher
    match = rf"'losses' must share nothing with '{of}' \(got its \['.*0.weight', '.*0.bias'\] in"
    with pytest.raises(ValueError, match=match):
        Distiller(given, student, [loss])
    assert projection.weight.requires_grad


def test_teacher_must_be_whole():
    teacher, student = nn.Sequential(nn.LazyLinear(3)), models()[1]
    match = r"'teacher' must be trained.*\(got \['0.weight', '0.bias'\] uninitialized\)"
    with pytest.raises(ValueError, match=match):
        Distiller(teacher, student, [SoftTargetLoss()])
    assert teacher.training
    teacher(torch.ones(4, 2))
    assert Distiller(teacher, student, [SoftTargetLoss()])(torch.ones(4, 2))[0].shape == (4, 3)


def test_forward_of_a_loss_must_take_three():
    class Two(DistillationLoss):
        def forward(self, student, teacher):
            return torch.zeros(())

    match = r"'forward' of loss 'two' must take \(student, teacher, target=None\).*Two.forward\(stu"
    with pytest.raises(TypeError, match=match):
        Distiller(*models(), [Two()])
