"""Which channels a pruner took, and what they did."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.nn import STGCN
from pyg_stkd.prune import Magnitude, Pruner
from pyg_stkd.report.interpretation.channels import channels_taken

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).relu())


def run(model: nn.Module) -> Tensor:
    return model(X)


@pytest.fixture
def teacher() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.parametrize("shrunk", [False, True])
def test_kept_channels_are_those_of_the_teacher(teacher: Net, shrunk: bool) -> None:
    pruner = Pruner(copy.deepcopy(teacher), Magnitude(), keep=0.6, example=(X,))
    pruner.step()
    expected = pruner.state_dict()["kept"]["hidden"]
    if shrunk:
        pruner.shrink()
    (found,) = channels_taken(teacher, pruner, run, (X,))
    assert found.layer == "hidden"
    assert found.kept.tolist() == expected.tolist()
    assert 0 < int(found.kept.sum()) < 6


def test_effects_and_likeness_are_as_the_formulas_say(teacher: Net) -> None:
    with torch.no_grad():
        teacher.hidden.weight[3] = teacher.hidden.weight[1]  # a twin
        teacher.out.weight[:, 2] = 0.0  # nobody listens
    pruner = Pruner(copy.deepcopy(teacher), Magnitude(), keep=0.6, example=(X,))
    mask = torch.tensor([True, True, False, False, True, True])
    pruner.mask({"hidden": mask})
    (found,) = channels_taken(teacher, pruner, run, (X,))
    with torch.no_grad():
        h = teacher.hidden(X)
        for c in range(6):
            quiet = h.clone()
            quiet[:, c] = h[:, c].mean()
            change = (teacher.out(quiet.relu()) - teacher(X)).abs().mean()
            torch.testing.assert_close(found.effect[c], change)
    assert found.effect[2] == 0
    alike = np.abs(np.corrcoef(h.double().T.numpy()))
    np.fill_diagonal(alike, 0)
    np.testing.assert_allclose(found.twin.numpy(), alike[:, mask.numpy()].max(1))
    assert found.twin[3] == pytest.approx(1.0)


def test_the_teacher_is_left_as_it_was(teacher: Net) -> None:
    before = copy.deepcopy(teacher.state_dict())
    pruner = Pruner(copy.deepcopy(teacher), Magnitude(), keep=0.6, example=(X,))
    pruner.step()
    channels_taken(teacher, pruner, run, (X,))
    assert all((value == before[name]).all() for name, value in teacher.state_dict().items())
    assert not any(len(module._forward_hooks) for module in teacher.modules())


def test_layers_of_a_forecaster_are_told_once_each() -> None:
    torch.manual_seed(0)
    teacher = STGCN(1, 4, 3, temporal_channels=8, head_channels=8).eval()
    x, edges = torch.randn(2, 12, 3, 1), torch.tensor([[0, 1, 2], [1, 2, 0]])
    pruner = Pruner(copy.deepcopy(teacher), Magnitude(), keep=0.4)
    pruner.step()
    found = channels_taken(teacher, pruner, lambda model: model(x, edges), (x, edges))
    small = pruner.compact()
    widths = {each.layer: int(each.kept.sum()) for each in found}
    assert {"blocks.0", "blocks.0.temporal1", "blocks.0.conv", "head_conv", "lin1"} <= set(widths)
    assert "blocks.0.norm" not in widths  # which has the channels of its block
    assert "blocks.0.conv.lins.0" not in widths  # a part of the sum that its layer is
    assert widths["blocks.0"] == small.hidden_channels[0][2]
    assert widths["blocks.1.conv"] == small.hidden_channels[1][1]
    assert widths["lin1"] == small.head_channels[1]
    assert all(torch.isfinite(each.effect).all() for each in found)
