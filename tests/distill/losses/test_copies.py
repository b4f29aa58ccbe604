from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pyg_stkd import Distiller
from pyg_stkd.distill import HintLoss, SoftTargetLoss, Teachers
from pyg_stkd.distill.losses.copies import copies_of, loss_of, spread


def hint(**kwargs: object) -> HintLoss:
    return HintLoss("", "", in_channels=2, out_channels=3, **kwargs)


def test_losses_without_parameters_are_not_copied() -> None:
    loss = SoftTargetLoss(weights={"a": 1.0, "b": 1.0})
    spread(loss, 4)
    assert loss_of(loss, 3, "b") is loss
    assert copies_of(loss) == [loss]


def test_one_copy_for_each_teacher_and_part() -> None:
    loss = hint(weights={"a": 1.0, ("a", "to", "b"): 1.0, "c.d": 1.0})
    spread(loss, 2)
    spread(loss, 2)  # once is enough
    parts = list(loss.weights)
    every = [loss_of(loss, k, part) for k in range(2) for part in parts]
    assert len({id(one) for one in every}) == len(every) == 6
    assert {id(one) for one in copies_of(loss)} == {id(one) for one in every}
    assert every[0] is loss
    own = [one.projection.weight for one in every]
    assert len({id(weight) for weight in own}) == 6
    assert len(list(loss.parameters())) == 12
    assert loss.student_maps() == [loss.projection]


@pytest.mark.parametrize("teachers", [1, 2])
def test_states_go_round(teachers: int) -> None:
    old, new = (hint(weights={"a": 1.0, "b": 1.0}) for _ in range(2))
    for loss in (old, new):
        spread(loss, teachers)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        assert torch.equal(a, b)
    other = hint(weights={"b": 1.0, "a": 1.0})
    spread(other, teachers)
    with pytest.raises(RuntimeError, match=r"of_part\.part_a"):
        other.load_state_dict(old.state_dict())


class Parts(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, a), nn.Linear(4, b)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.a(x), "b": self.b(x)}


def test_each_part_and_teacher_has_a_projection_of_its_own_width() -> None:
    student, x = Parts(3, 5), torch.randn(6, 4)
    teachers = [Parts(7, 8), Parts(9, 10)]
    loss = HintLoss("", "", weights={"a": 1.0, "b": 3.0})
    distiller = Distiller(Teachers(teachers), student, [loss])
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    out, losses = distiller(x)
    expected = torch.zeros(())
    for k, teacher in enumerate(teachers):
        for part, weight in (("a", 0.25), ("b", 0.75)):
            projection = loss_of(loss, k, part).projection
            gap = projection(out[part]) - teacher(x)[part]
            expected = expected + gap.square().mean() * weight / 2
    torch.testing.assert_close(losses["hint"], expected)
    losses["hint"].backward()
    before = [p.clone() for p in loss.parameters()]
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True))
