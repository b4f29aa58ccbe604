"""Tests of pyg_stkd/prune/algorithm/rehearsal.py: tried before anything is pruned."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune

from pyg_stkd.distill import Distiller, HintLoss, SoftTargetLoss, Teachers
from pyg_stkd.distill.losses.base import DistillationLoss, until_epoch
from pyg_stkd.prune import Magnitude, Pruner, distill_and_prune
from pyg_stkd.prune.algorithm.rehearsal import copied, maps_by_trial, needs_trial, rehearse

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3
BATCH: Any = ((X,), {}, Y)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


class Both(DistillationLoss):
    """Has a map for each side, and does not say which is which."""

    def __init__(self, ours: nn.Module, theirs: nn.Module, **kwargs: Any) -> None:
        super().__init__("0", "0", **kwargs)
        self.theirs, self.ours = theirs, ours

    def forward(self, student: Any, teacher: Any, target: Any = None) -> Tensor:
        return F.mse_loss(self.ours(student.features), self.theirs(teacher.features))


class OfTeacher(DistillationLoss):
    """Has a map for the teacher's features alone, of the width of the student's."""

    def __init__(self) -> None:
        super().__init__("0", "0")
        self.map = nn.Linear(16, 4)

    def forward(self, student: Any, teacher: Any, target: Any = None) -> Tensor:
        return (student.features.mean() - self.map(teacher.features).mean()).square()


class Chain(DistillationLoss):
    """Two maps of one width, one after the other, in the order of neither name nor place."""

    def __init__(self) -> None:
        super().__init__("0", "0")
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, student: Any, teacher: Any, target: Any = None) -> Tensor:
        return F.mse_loss(self.a(self.b(student.features).relu()), teacher.features)


def make(loss: DistillationLoss, teacher: Any = None, **kwargs: Any) -> tuple[Distiller, Pruner]:
    torch.manual_seed(0)
    student = mlp()
    distiller = Distiller(mlp() if teacher is None else teacher, student, [loss])
    return distiller, Pruner(student, Magnitude(), **{"keep": (0.6, 0.4), "rho": 0.2, **kwargs})


def run(distiller: Distiller, pruner: Pruner, **kwargs: Any) -> list[Any]:
    options: dict[str, Any] = {"optimizer": lambda p: torch.optim.SGD(p, 0.01), "epochs": 1}
    return [
        *distill_and_prune(distiller, pruner, [(X, Y)], F.cross_entropy, **{**options, **kwargs})
    ]


def both() -> Both:
    return Both(nn.Linear(16, 8), nn.Linear(16, 8))


def test_maps_are_found_whatever_their_names() -> None:
    loss = both()
    distiller, pruner = make(loss)
    assert needs_trial(distiller)
    assert maps_by_trial(distiller, BATCH) == {loss: [loss.ours]}
    assert len(run(distiller, pruner)) == 2
    width = pruner.widths["0"]
    assert loss.ours.in_features == loss.ours.weight.size(1) == width < 16
    assert loss.theirs.in_features == loss.theirs.weight.size(1) == 16
    distiller(X)[1]["both"].backward()


@pytest.mark.parametrize("guarded", [False, True])
def test_a_map_of_the_teacher_stays(guarded: bool) -> None:
    loss = OfTeacher()
    distiller, pruner = make(loss)
    assert maps_by_trial(distiller, BATCH) == {loss: []}
    metrics = iter([1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    options = {"guard": 0.1, "validate": lambda model: next(metrics)} if guarded else {}
    run(distiller, pruner, **options)
    assert loss.map.in_features == 16
    assert pruner.widths["0"] < 16


def test_the_first_of_a_chain_is_found() -> None:
    loss = Chain()
    distiller, pruner = make(loss)
    assert maps_by_trial(distiller, BATCH) == {loss: [loss.b]}
    run(distiller, pruner)
    assert (loss.b.in_features, loss.a.in_features) == (pruner.widths["0"], 16)


def test_copies_for_further_teachers_are_asked_too() -> None:
    loss = both()
    distiller, pruner = make(loss, Teachers([mlp(), mlp()]))
    other = loss.of_teacher["1"]
    assert maps_by_trial(distiller, BATCH) == {loss: [loss.ours], other: [other.ours]}
    run(distiller, pruner)
    assert other.ours.in_features == pruner.widths["0"]
    assert other.theirs.in_features == 16


def test_resumes_with_maps_found_by_trial(tmp_path: Any) -> None:
    path = tmp_path / "stages.pt"
    first, pruner = make(both())
    run(first, pruner, checkpoint=path)
    second, again = make(both())
    run(second, again, checkpoint=path)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_losses_that_say_it_are_not_asked() -> None:
    distiller, _ = make(HintLoss("0", "0", in_channels=16, out_channels=16))
    assert not needs_trial(distiller)
    assert maps_by_trial(distiller, BATCH) == {}


def test_losses_that_rest_and_frozen_students_are_left_out() -> None:
    distiller, pruner = make(Both(nn.Linear(16, 8), nn.Linear(16, 8), schedule=until_epoch(0)))
    assert maps_by_trial(distiller, BATCH) == {}
    with pytest.raises(ValueError, match="Loss 'both' must say which of its linear maps"):
        run(distiller, pruner)
    assert pruner.share == 1
    distiller, _ = make(both())
    distiller.student.requires_grad_(False)
    assert maps_by_trial(distiller, BATCH) == {}


class Fixed(DistillationLoss):
    """Takes the width of the student's layer for granted."""

    def forward(self, student: Any, teacher: Any, target: Any = None) -> Tensor:
        return (student.features @ torch.ones(16)).mean().square()


@pytest.mark.parametrize(
    "loss",
    [HintLoss("0", "0", projection=False), Fixed("0", "0"), Both(nn.Identity(), nn.Identity())],
)
def test_what_cannot_be_computed_then_is_refused_before_anything_is_pruned(loss: Any) -> None:
    distiller, pruner = make(copy.deepcopy(loss))
    state, random = copy.deepcopy(distiller.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match=r"when the student loses channels \(got \w+: "):
        distill_and_prune(distiller, pruner, [(X, Y)], F.cross_entropy, optimizer=torch.optim.Adam)
    assert torch.equal(torch.get_rng_state(), random)
    assert pruner.share == 1
    assert distiller.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in distiller.state_dict().items())
    distiller(X)  # still runs
    assert not any(m._forward_pre_hooks for m in distiller.losses.modules())


def test_single_weights_lose_no_channel() -> None:
    distiller, pruner = make(HintLoss("0", "0", projection=False), granularity="weight")
    assert len(run(distiller, pruner, epochs=0)) == 2


def test_trying_changes_nothing() -> None:
    loss = HintLoss("0", "0", schedule=until_epoch(0))
    distiller, pruner = make(loss)
    prune.l1_unstructured(distiller.student[0], "weight", 0.2)
    pruner = Pruner(distiller.student, Magnitude(), keep=0.5, rho=0.2)
    distiller(X)
    state, random = copy.deepcopy(distiller.state_dict()), torch.get_rng_state()
    modes = [m.training for m in distiller.modules()]
    rehearse(distiller, pruner, BATCH, {})
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in distiller.modules()] == modes
    assert all(
        torch.equal(value, state[name])
        for name, value in distiller.state_dict().items()
        if not is_lazy(value)
    )
    other, cutter, _ = copied(distiller, pruner, {})
    assert other.teacher is distiller.teacher
    assert cutter.model is other.student is not distiller.student


def test_loaders_that_give_batches_once_are_not_touched() -> None:
    seen: list[int] = []

    def once() -> Iterator[Any]:
        seen.append(1)
        yield X, Y

    distiller, pruner = make(SoftTargetLoss())
    distill_and_prune(distiller, pruner, once(), F.cross_entropy, optimizer=torch.optim.Adam)
    assert seen == []
