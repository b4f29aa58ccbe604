from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import ARMAConv, FiLMConv

from pyg_stkd.distill import (
    DistillationLoss,
    Distiller,
    HintLoss,
    LSPLoss,
    OutputLoss,
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
    for bad in ("gat", nn.Linear, [teacher], 3, {}, None):
        with pytest.raises(TypeError, match=r"'teacher' must be a Module, or another.*\(got "):
            Distiller(bad, student, [])
    with pytest.raises(TypeError, match=r"'student' must be a Module \(got <class .*Linear'>\)"):
        Distiller(teacher, nn.Linear, [])
    with pytest.raises(TypeError, match=r"'losses' must be a list or a dict.*SoftTargetLoss"):
        Distiller(teacher, student, SoftTargetLoss())
    with pytest.raises(TypeError, match=r"'losses' must be a list or a dict.*\(got 3\)"):
        Distiller(teacher, student, 3)
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
        Distiller(teacher, nn.Sequential(nn.Linear(2, 3), teacher[0]), [])
    norm = nn.BatchNorm1d(3, affine=False)  # buffers are something
    with pytest.raises(ValueError, match=r"got its module '1'"):
        Distiller(nn.Sequential(norm), nn.Sequential(nn.Linear(2, 3), norm), [])
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


def test_modules_that_hold_nothing_may_be_shared_and_tapped():
    teacher, student = models()
    student[1] = teacher[1]
    loss = HintLoss("1", "1", projection=False)
    x = torch.randn(4, 2)
    _, losses = Distiller(teacher, student, [loss])(x)
    torch.testing.assert_close(losses["hint"], (teacher(x) - student(x)).square().mean())


@pytest.mark.parametrize("layer", [ARMAConv, FiLMConv])
def test_layers_with_a_module_as_default_argument(layer):
    edges = torch.tensor([[0, 1], [1, 0]])
    distiller = Distiller(layer(2, 3), layer(2, 3), [HintLoss("", "")])
    assert distiller(torch.randn(2, 2), edges)[1]["hint"] > 0


@pytest.mark.parametrize("name", ["nodes", "target", "teacher", "teacher_args", "return_teacher"])
@pytest.mark.parametrize("side", [0, 1])
def test_arguments_of_the_distillers_names_are_refused(name, side):
    scope = {"nn": nn}
    exec(f"class Net(nn.Linear):\n  def forward(self, x, {name}=None): return {name}", scope)
    pair = [nn.Linear(2, 2), nn.Linear(2, 2)]
    pair[side] = scope["Net"](2, 2)
    owner = ("teacher", "student")[side]
    match = rf"'{owner}' must have no argument.*\(got \['{name}'\] of Net.forward.*call=lambda"
    with pytest.raises(ValueError, match=match):
        Distiller(*pair, [])

    # The way out that the message shows.
    def plain(model, x, more):
        return model(x)

    def renamed(model, x, more):
        return model(x, **{name: more})

    calls = [plain, plain]
    calls[side] = renamed
    x, more = torch.ones(3, 2), torch.zeros(3, 2)
    distiller = Distiller(*pair, [OutputLoss()], call=tuple(calls))
    out, _, teacher = distiller(x, more, return_teacher=True)
    assert torch.equal((teacher, out)[side], more)


@pytest.mark.parametrize("side", [0, 1])
def test_functions_that_call_a_model_must_not_have_these_names_either(side):
    calls = [None, None]
    calls[side] = lambda model, x, nodes=None: model(x if nodes is None else x[nodes])
    owner = ("teacher", "student")[side]
    match = rf"'call' must have no argument.*\(got \['nodes'\] of the {owner}'s\).*nodes_"
    with pytest.raises(ValueError, match=match):
        Distiller(nn.Linear(2, 2), nn.Linear(2, 2), [OutputLoss()], call=tuple(calls))


class Coder(nn.Module):
    """A model of two entry points, as for link prediction."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 4)

    def encode(self, x):
        return self.lin(x)

    def decode(self, z, pairs):
        return (z[pairs[0]] * z[pairs[1]]).sum(-1)


@pytest.mark.parametrize("side", [0, 1])
def test_models_without_a_forward_are_shown_the_way(side):
    pair = [nn.Linear(2, 2), nn.Linear(2, 2)]
    pair[side] = Coder()
    match = (
        rf"'{('teacher', 'student')[side]}' must have a forward \(got Coder without\).*call=lambda"
    )
    with pytest.raises(TypeError, match=match):
        Distiller(*pair, [])


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_are_taught_by_their_outputs():
    x, plain = torch.ones(3, 2), nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    student, teacher = torch.jit.script(plain), nn.Linear(2, 2)
    _, losses = Distiller(teacher, student, [OutputLoss()])(x)
    torch.testing.assert_close(losses["output"], (plain(x) - teacher(x)).square().mean())
    losses["output"].backward()
    assert plain[0].weight.grad.any()
    for model, layer in ((student, "0"), (nn.Sequential(student), "0")):
        match = rf"'student_layer' of loss 'hint' must be no part of a Script.*\(got '{layer}'\)"
        with pytest.raises(ValueError, match=match):
            Distiller(teacher, model, [HintLoss("", layer)])


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
