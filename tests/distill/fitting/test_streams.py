from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from pyg_stkd.distill.fitting.streams import (
    Stream,
    interleave,
    on_unlabelled,
    random_state,
    set_random,
)


@given(steps=st.integers(0, 200), share=st.floats(0, 1))
def test_unlabelled_steps_are_spread_evenly(steps, share):
    done = [on_unlabelled(step, share) for step in range(steps)]
    for n in range(steps + 1):
        assert abs(sum(done[:n]) - n * share) < 1 + 1e-6


def test_the_first_step_is_labelled_unless_none_is():
    assert not on_unlabelled(0, 0.99)
    assert on_unlabelled(0, 1.0)
    assert not any(on_unlabelled(step, 0.0) for step in range(10))


def test_lists_are_shuffled_anew_in_each_pass_and_keep_their_numbers():
    stream = Stream(list("abcdefgh"))
    passes = [[stream.next() for _ in range(8)] for _ in range(3)]
    for each in passes:
        assert sorted(each) == list(enumerate("abcdefgh"))
    assert passes[0] != passes[1]


def test_other_loaders_keep_their_order_and_have_no_numbers():
    stream = Stream(DataLoader(range(4), batch_size=2))
    batches = [stream.next() for _ in range(3)]
    assert [number for number, _ in batches] == [None] * 3
    assert [batch.tolist() for _, batch in batches] == [[0, 1], [2, 3], [0, 1]]


def loaders():
    own = torch.Generator().manual_seed(3)
    return {
        "list": lambda: list(range(5)),
        "shuffled": lambda: DataLoader(range(5), shuffle=True),
        "own generator": lambda: DataLoader(
            range(5), shuffle=True, generator=torch.Generator().set_state(own.get_state())
        ),
    }


@pytest.mark.parametrize("kind", ["list", "shuffled", "own generator"])
@pytest.mark.parametrize("taken", [0, 1, 5, 7])
def test_a_place_is_found_again(kind, taken):
    make = loaders()[kind]
    stream = Stream(make())
    for _ in range(taken):
        stream.next()
        torch.rand(3), random.random()  # what a training draws in between
    state, numbers = stream.state(), random_state()
    expected = [stream.next() for _ in range(12)], torch.rand(2)

    torch.manual_seed(99)
    other = Stream(make())
    other.restore(state)
    set_random(numbers)
    assert ([other.next() for _ in range(12)]) == expected[0]
    assert torch.equal(torch.rand(2), expected[1])


def test_looking_draws_nothing():
    stream = Stream(DataLoader(range(5), shuffle=True))
    before = random_state()
    stream.first()
    assert torch.equal(random_state()["torch"], before["torch"])
    assert stream.state() == {"start": None, "taken": 0}


def test_random_numbers_of_all_three_are_kept():
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random(), random.gauss(0, 1)  # noqa: NPY002

    state = random_state()
    first = draw()
    set_random(state)
    assert draw() == first


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75])
def test_interleaving_gives_each_labelled_batch_once(share):
    unlabelled = Stream([7])
    items = list(interleave(range(30), unlabelled, share))
    assert [batch for batch, labelled in items if labelled] == list(range(30))
    assert sum(not labelled for _, labelled in items) == pytest.approx(30 * share / (1 - share))


def test_bad_input():
    for bad in (iter([1]), 3, torch.ones(2), "ab", {"a": 1}, Data(x=torch.ones(2, 1))):
        with pytest.raises(TypeError, match="'labelled' must give its batches again each time"):
            Stream(bad, "labelled")
    for call in (Stream([], "labelled").first, Stream([], "labelled").next):
        with pytest.raises(ValueError, match=r"'labelled' must give .*got none"):
            call()


def test_states_of_more_devices_are_set_as_far_as_there_are_such() -> None:
    state = random_state()
    first = torch.rand(3)
    more = torch.zeros(16, dtype=torch.uint8)
    state["cuda"] = [*state["cuda"], more, more]
    set_random(state)
    assert torch.equal(torch.rand(3), first)
