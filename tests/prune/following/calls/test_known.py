"""Known functions label as a trial does, and leave to it what they do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.known import follow_known
from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.structure.ports import Ports

INDEX = torch.tensor([2, 0, 2, 1])


def labelled(*shapes: tuple[int, ...]) -> tuple[Labels, list[Tensor]]:
    labels = Labels(Ports(nn.Linear(1, 1)))
    tensors = [torch.randn(shape) for shape in shapes]
    for tensor in tensors:
        labels.put(tensor, {1: Axis(labels.ports.new(tensor.size(1)), True)})
    return labels, tensors


@pytest.mark.parametrize("name", ["index_add", "index_add_"])
def test_rows_added_to_rows_tie_their_channels(name: str) -> None:
    labels, (to, source) = labelled((3, 5), (4, 5))
    expected = to.clone().index_add(0, INDEX, source)
    a, b = labels.of(to)[1].channels, labels.of(source)[1].channels
    known = follow_known(getattr(Tensor, name), (to, 0, INDEX, source), {}, labels)
    assert known is not None
    torch.testing.assert_close(known.out, expected)
    assert list(labels.of(known.out)) == [1]
    assert labels.of(known.out)[1].zero
    assert [*map(labels.ports.find, a)] == [*map(labels.ports.find, b)]


def test_values_that_are_not_zero_stay_so() -> None:
    labels, (to, source) = labelled((3, 5), (4, 5))
    labels.put(to, {1: Axis(labels.of(to)[1].channels, False)})
    known = follow_known(Tensor.index_add, (to, 0, INDEX, source), {}, labels)
    assert known is not None
    assert not labels.of(known.out)[1].zero


def unlabelled_index(to: Tensor, source: Tensor) -> tuple[Callable[..., Any], Any]:
    return Tensor.scatter_add, (to, 0, INDEX.view(-1, 1).expand_as(source), source)


def along_channels(to: Tensor, source: Tensor) -> tuple[Callable[..., Any], Any]:
    return Tensor.index_add, (to, 1, torch.arange(5), to.clone())


@pytest.mark.parametrize("make", [unlabelled_index, along_channels])
def test_the_rest_is_left_to_a_trial(make: Callable[..., Any]) -> None:
    labels, (to, source) = labelled((3, 5), (4, 5))
    func, args = make(to, source)
    assert follow_known(func, args, {}, labels) is None
    assert not set(map(labels.ports.find, labels.of(to)[1].channels)) & set(
        map(labels.ports.find, labels.of(source)[1].channels)
    )


def test_rows_that_are_picked_keep_their_channels() -> None:
    labels, (x,) = labelled((3, 5))
    known = follow_known(Tensor.index_select, (x, 0, INDEX), {}, labels)
    assert known is not None
    assert torch.equal(known.out, x[INDEX])
    assert labels.of(known.out) == labels.of(x)
    assert follow_known(Tensor.index_select, (x, 1, INDEX), {}, labels) is None


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("transpose", (1, -1)),
        ("swapaxes", (0, 1)),
        ("permute", (2, 0, 1)),
        ("permute", ((1, 2, 0),)),
        ("movedim", (1, 0)),
    ],
)
@pytest.mark.parametrize("of", [Tensor, torch])
def test_dimensions_that_move_take_their_channels_along(name: str, args: Any, of: Any) -> None:
    if of is torch and name == "permute":
        args = args if isinstance(args[0], tuple) else (args,)
    labels, (x,) = labelled((3, 5, 4))
    channels = labels.of(x)[1].channels
    labels.put(x, {1: Axis(channels, True), 2: Axis(labels.ports.new(4), False)})
    known = follow_known(getattr(of, name), (x, *args), {}, labels)
    assert known is not None
    assert torch.equal(known.out, getattr(of, name)(x, *args))
    found = labels.of(known.out)
    assert {known.out.size(dim) for dim in found} == {4, 5}
    assert found[known.out.shape.index(5)] == Axis(channels, True)
    assert not found[known.out.shape.index(4)].zero


def test_a_matrix_is_turned() -> None:
    labels, (x,) = labelled((3, 5))
    known = follow_known(Tensor.t, (x,), {}, labels)
    assert known is not None
    assert labels.of(known.out)[0] == labels.of(x)[1]


@pytest.mark.parametrize("training", [False, True])
def test_dropout_leaves_channels_as_they_are(training: bool) -> None:
    labels, (x,) = labelled((3, 5))
    known = follow_known(nn.functional.dropout, (x, 0.5, training), {}, labels)
    assert known is not None
    assert bool(((known.out == 0) | (known.out == x) | (known.out == 2 * x)).all())
    assert labels.of(known.out) == labels.of(x)
    assert follow_known(nn.functional.alpha_dropout, (x, 0.5, training), {}, labels) is None
