from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pyg_stkd import Distiller
from pyg_stkd.distill import OutputLoss
from pyg_stkd.distill.recording.reading.random_numbers import RandomState

DRAWS = {
    "torch": lambda n: torch.randperm(n)[: n // 2],
    "numpy": lambda n: torch.from_numpy(np.random.permutation(n)[: n // 2]),  # noqa: NPY002
    "python": lambda n: torch.tensor(random.sample(range(n), n // 2)),
}


class Samples(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.lin, self.kind, self.drop = nn.Linear(3, 8), kind, nn.Dropout()

    def forward(self, pos: torch.Tensor) -> torch.Tensor:
        self.chosen = DRAWS[self.kind](len(pos))
        return self.drop(self.lin(pos[self.chosen]))


def seed() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)


@pytest.mark.parametrize("kind", DRAWS)
def test_both_models_draw_the_same_and_the_student_as_if_it_were_alone(kind: str) -> None:
    teacher, student, pos = Samples(kind), Samples(kind), torch.randn(40, 3)
    distiller = Distiller(teacher, student, [OutputLoss()])
    seed()
    alone = [student(pos) for _ in range(3)]
    after = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    seed()
    for expected in alone:
        out, _ = distiller(pos)
        assert torch.equal(out, expected)
        assert torch.equal(teacher.chosen, student.chosen)
    assert after == (torch.rand(1), np.random.rand(), random.random())  # noqa: NPY002


class LateDraws(nn.Module):
    """Draws from its third call on, as a sampler does that caches its first batches."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.lin, self.draw, self.calls = nn.Linear(3, 2), draw, 0
        self.drawn: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.drawn += [self.draw()] if self.calls > 2 else []
        return self.lin(x)


LATE = {"python": random.random, "uniform": np.random.rand, "normal": np.random.randn}


@pytest.mark.parametrize("kind", LATE)
def test_numbers_that_are_drawn_late_are_the_same(kind: str) -> None:
    draw = LATE[kind]
    teacher, student = LateDraws(draw), LateDraws(draw)
    distiller = Distiller(teacher, student, [OutputLoss()])
    seed()
    expected = [draw() for _ in range(5)]
    seed()
    for _ in range(7):
        distiller(torch.ones(4, 3))
    assert teacher.drawn == student.drawn == expected


NUMPY = [
    lambda: np.random.rand(),  # noqa: NPY002 - what code of others draws
    lambda: np.random.randn(),  # noqa: NPY002
    lambda: np.random.seed(5),  # noqa: NPY002
    lambda: np.random.set_state(np.random.RandomState(7).get_state()),  # noqa: NPY002
]


@pytest.mark.parametrize("between", range(len(NUMPY)))
def test_numpy_is_put_back_whatever_was_drawn_before(between: int) -> None:
    seed()
    state = RandomState(nn.Linear(1, 1))
    for _ in range(6):  # with a second normal number at hand and without
        NUMPY[between]()
        state.save()
        expected = [np.random.randn() for _ in range(3)]  # noqa: NPY002
        state.restore()
        assert [np.random.randn() for _ in range(3)] == expected  # noqa: NPY002
        state.save()
        state.restore()  # nothing was drawn
        assert np.random.randn() not in expected  # noqa: NPY002


def test_another_generator_of_numpy_is_put_back() -> None:
    usual = np.random.get_bit_generator()
    state = RandomState(nn.Linear(1, 1))
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        state.save()
        expected = np.random.rand(4)  # noqa: NPY002
        state.restore()
        assert (np.random.rand(4) == expected).all()  # noqa: NPY002
    finally:
        np.random.set_bit_generator(usual)


def test_copies_know_no_state() -> None:
    state = RandomState(nn.Linear(1, 1))
    state.save()
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        other.save()
        expected = np.random.rand()  # noqa: NPY002
        other.restore()
        assert np.random.rand() == expected  # noqa: NPY002
