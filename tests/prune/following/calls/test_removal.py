from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.labels import Axis
from pyg_stkd.prune.following.calls.removal import Removal, choices, in_one_line
from pyg_stkd.prune.following.calls.trial import Place
from pyg_stkd.prune.following.calls.widths import Width
from pyg_stkd.prune.structure.ports import Ports

X = torch.randn(5, 6, dtype=torch.float64)


def removal(function: Callable[..., Any], *args: Any, known: bool = True) -> tuple[Removal, Any]:
    ports = Ports(nn.Linear(1, 1))
    channels = ports.new(6)
    call = Call(function, (X, *args), {})
    lines = [{1: torch.tensor(channels)} if known else {} for _ in call.results]
    of_width = {"hidden": channels}.get
    return Removal(call, ports, [Place(0, 1, Axis(channels, True))], lines, of_width), channels


def test_choices_leave_some_of_each_axis() -> None:
    ports = Ports(nn.Linear(1, 1))
    a, b = ports.new(6), ports.new(2)
    kept = ports.kept(3)
    for _ in range(20):
        found = choices(ports, [a, b, kept])
        assert 1 <= len(found) <= 2
        for gone in found:
            assert gone
            assert gone <= {*a, *b}
            assert all(set(axis) - gone for axis in (a, b))
    assert choices(ports, [kept]) == []


def test_what_treats_channels_alone_holds_and_says_where_zeros_are() -> None:
    some = torch.tensor([[0.0], [1.0], [0.0], [0.0], [0.0]])
    functions = ((torch.relu, True), (torch.sigmoid, False), (lambda x: x + some, False))
    for function, zero in functions:
        trial, channels = removal(function)
        assert trial.holds({channels[0], channels[4]})
        assert trial.zero == [{1: zero}]


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda x: x.softmax(-1), "its result depends on channels that are gone"),
        (lambda x: 1 / x, "channels of zeros give values that are not finite"),
        (
            lambda x: x.view(5, 6) * 1,
            "it fails with fewer channels: RuntimeError: "
            "shape '[5, 6]' is invalid for input of size 25",
        ),
        (lambda x: x if x.size(1) == 6 else x[0], "its result has another number of dimensions"),
        (lambda x: x if x.size(1) == 6 else (x, x), "it returns another number of tensors"),
    ],
)
def test_faults_are_named(function: Callable[..., Any], fault: str) -> None:
    trial, channels = removal(function)
    assert not trial.holds({channels[1]})
    assert trial.fault == fault


def test_a_result_must_shrink_as_channels_do() -> None:
    trial, channels = removal(lambda x: x[:, : x.size(1) // 2], known=False)
    assert not trial.holds({channels[0], channels[1]})
    assert trial.fault == "dimension 1 of its result shrinks by other channels"


def test_widths_shrink_with_their_channels() -> None:
    def function(x: Tensor, width: int) -> Tensor:
        return x.reshape(5, width).cos()

    trial, channels = removal(function, Width(6, "hidden"))
    assert trial.holds({channels[2], channels[3]})
    # A new tensor that is as wide as channels are has their line.
    trial, channels = removal(
        lambda x, width: x.new_ones(2, width), Width(6, "hidden"), known=False
    )
    assert trial.holds({channels[2]})
    assert trial.lines[0][1].tolist() == list(channels)


def test_sums_over_channels_hold_where_zeros_add_nothing() -> None:
    trial, channels = removal(lambda x: x.sum(-1), known=False)
    assert trial.holds({channels[0], channels[5]})
    assert trial.lines == [{}]


@pytest.mark.parametrize(
    ("function", "kind"), [(lambda x: x.softmax(-1), "mixes"), (lambda x: x.view(5, 6), "width")]
)
def test_the_kind_of_a_fault_says_what_would_mend_it(function: Any, kind: str) -> None:
    trial, channels = removal(function)
    assert not trial.holds({channels[1]})
    assert trial.kind == kind


def test_errors_are_told_in_one_line() -> None:
    assert in_one_line(ValueError("a\nb")) == "ValueError: a"
    assert in_one_line(IndexError()) == "IndexError"
    assert in_one_line(ValueError(20 * "long "), most=12) == "ValueError: long long..."
