"""Tests of pyg_stkd/prune/algorithm/random_numbers.py: every generator is found and put back."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from pyg_stkd.prune import Random
from pyg_stkd.prune.algorithm.random_numbers import RandomNumbers


class Rows(TensorDataset):
    """A data set with generators of all kinds."""

    def __init__(self) -> None:
        super().__init__(torch.arange(6))
        self.pcg, self.mt = np.random.default_rng(1), np.random.Generator(np.random.MT19937(2))
        self.python, self.torch = random.Random(3), torch.Generator().manual_seed(4)

    def draw(self) -> list[float]:
        torch_one = torch.rand((), generator=self.torch).item()
        return [self.pcg.random(), self.mt.normal(), self.python.random(), torch_one]


def globally() -> list[float]:
    return [torch.rand(()).item(), random.random(), float(np.random.rand())]  # noqa: NPY002


def test_all_numbers_come_again_after_a_file() -> None:
    rows = Rows()
    numbers = RandomNumbers(DataLoader(rows, 2, shuffle=True))
    file = io.BytesIO()
    torch.save(numbers.state(), file)
    file.seek(0)
    first = globally() + rows.draw()
    second = globally() + rows.draw()
    assert first != second
    numbers.restore(torch.load(file, weights_only=True))
    assert globally() + rows.draw() == first
    assert globally() + rows.draw() == second


@pytest.mark.parametrize(
    "make",
    [
        lambda g: DataLoader(range(9), 2, shuffle=True, generator=g),
        lambda g: DataLoader(range(9), 2, sampler=RandomSampler(range(9), generator=g)),
        lambda g: DataLoader(range(9), 2, sampler=WeightedRandomSampler([1.0] * 9, 9, generator=g)),
        lambda g: DataLoader(
            range(9),
            batch_sampler=torch.utils.data.BatchSampler(
                RandomSampler(range(9), generator=g), 2, False
            ),
        ),
    ],
)
def test_the_order_of_loaders_comes_again(make: Any) -> None:
    loader = make(torch.Generator().manual_seed(3))
    numbers = RandomNumbers(loader, loader)
    state = numbers.state()
    assert len(state["own"]) == 1  # each once
    first = [batch.tolist() for batch in loader]
    assert [batch.tolist() for batch in loader] != first
    numbers.restore(state)
    assert [batch.tolist() for batch in loader] == first


def test_scores_have_generators_too() -> None:
    score, weights = Random(seed=1), {"w": torch.ones(4)}
    numbers = RandomNumbers(score, Random(), None, 5, [1, 2])
    state = numbers.state()
    assert len(state["own"]) == 1
    first = score.score(weights, None)["w"]
    numbers.restore(state)
    assert torch.equal(score.score(weights, None)["w"], first)


@pytest.mark.parametrize("kind", ["own", "all"])
def test_states_of_others_change_nothing(kind: str) -> None:
    rows = Rows()
    numbers = RandomNumbers(DataLoader(rows))
    state = numbers.state()
    expected = globally() + rows.draw()
    numbers.restore(state)
    other = RandomNumbers(DataLoader(Rows())).state()
    other[kind] = other[kind][:-1] if kind == "own" else {**other["all"], "python": (3, [], None)}
    for bad in (other, {}, None, {"own": [], "all": 5}):
        with pytest.raises(ValueError, match="no states of random numbers"):
            numbers.restore(bad)  # type: ignore[arg-type]
    assert globally() + rows.draw() == expected
