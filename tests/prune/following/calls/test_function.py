"""Tests of pyg_stkd/prune/following/function.py: channels through one call, found by trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.call import Call
from pyg_stkd.prune.following.calls.function import FunctionTrial
from pyg_stkd.prune.following.calls.labels import Axis, Labels
from pyg_stkd.prune.following.calls.widths import Width
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.units import Channels


class Run:
    """A call of a function on tensors that have channels, by the number of tensors."""

    def __init__(
        self,
        function: Callable[..., Any],
        *args: Any,
        channels: Any = ({1: 6},),
        heads: bool = False,
        zero: bool = True,
    ) -> None:
        self.ports = Ports(nn.Linear(1, 1), (), heads, follow=lambda ports, model: [])
        self.labels = Labels(self.ports)
        self.kept: list[tuple[Channels, str]] = []
        self.claimed: list[Any] = []
        call = Call(function, args, {})
        self.axes: list[Channels] = []
        for tensor, dims in zip(call.tensors, channels, strict=False):
            axes = {dim: Axis(self.ports.new(width), zero) for dim, width in dims.items()}
            self.axes += [axis.channels for axis in axes.values()]
            self.labels.put(tensor, axes)
        # The sizes of tensors that follow their channels are of the first axis.
        trial = FunctionTrial(call, self.labels, lambda source: self.axes[source[1]], self.keep)
        trial.run(lambda call, lines: self.claimed.append((call, [dict(line) for line in lines])))
        self.outputs = call.outputs

    def keep(self, channels: Channels, why: str, kind: str = "mixes") -> None:
        self.kept.append((channels, why))
        self.ports.freeze(channels)

    def of(self, result: int = 0) -> dict[int, Axis]:
        return self.labels.of(self.outputs[result])

    def found(self, *channels: Channels) -> list[list[int]]:
        return [[*map(self.ports.find, line)] for line in channels]


def x(*shape: int) -> Tensor:
    return torch.randn(shape or (5, 6), dtype=torch.float64)


def test_channels_that_move_are_where_they_go() -> None:
    run = Run(lambda t: t.flip(1).cos().t(), x())
    assert run.of() == {0: Axis(run.axes[0][::-1], False)}  # cos(0) is 1
    assert Run(torch.sin, x()).of()[1].zero
    assert not Run(torch.sin, x(), zero=False).of()[1].zero
    assert run.kept == []


def test_channels_that_meet_are_one() -> None:
    run = Run(torch.add, x(), x(), channels=({1: 6}, {1: 6}))
    assert len({*map(tuple, run.found(*run.axes, run.of()[1].channels))}) == 1
    apart = Run(lambda a, b: torch.cat([a, b], 1), x(), x(), channels=({1: 6}, {1: 6}))
    assert apart.of()[1].channels == apart.axes[0] + apart.axes[1]
    assert len(apart.ports.units) == 12 + 0  # none is tied


def test_what_stands_beside_channels_is_kept() -> None:
    run = Run(lambda a, b: torch.cat([b, a], 1), x(), x(5, 2))
    line = run.of()[1].channels
    assert line[2:] == run.axes[0]
    assert [run.ports.is_frozen(unit) for unit in line] == [True] * 2 + [False] * 6


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda t: t.softmax(-1), "its result depends on channels that are gone"),
        (lambda t: t - t.mean(1, True), "its result depends on channels that are gone"),
        (lambda t: t.log(), "channels of zeros give values that are not finite"),
        (lambda t: t.view(5, 6).cos(), r"RuntimeError: shape '[5, 6]' is invalid for input of"),
    ],
)
def test_what_mixes_channels_keeps_them_and_says_why(function: Any, why: str) -> None:
    run = Run(function, x().abs() + 1)
    (kept,) = run.kept
    assert kept[0] == run.axes[0]
    assert why in kept[1]
    assert run.of() == {}


def test_sums_of_squares_do_not_notice_zeros() -> None:
    run = Run(lambda t: t / t.norm(dim=1, keepdim=True), x())
    assert run.kept == []
    assert run.of() == {1: Axis(run.axes[0], True)}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ValueError("must be\nfinite"), "(ValueError: must be)"),
        (RuntimeError(), "(RuntimeError)"),
    ],
)
def test_what_takes_no_other_values_says_so(error: Exception, why: str) -> None:
    first = x()

    def strict(t: Tensor) -> Tensor:
        if not torch.equal(t, first):
            raise error
        return t * 2

    run = Run(strict, first)
    assert run.kept[0] == (run.axes[0], f"it cannot be tried with other values {why}")


def test_one_that_fails_does_not_keep_the_other() -> None:
    run = Run(lambda a, b: (a.softmax(-1), b * 2), x(), x(5, 4), channels=({1: 6}, {1: 4}))
    assert [channels for channels, _ in run.kept] == [run.axes[0]]
    assert run.of(0) == {}
    assert run.of(1) == {1: Axis(run.axes[1], True)}


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda a, b: (a * b).sum(1), (5, 6)),
        (lambda a, b: torch.einsum("nc,mc->nm", a, b), (4, 6)),
        (lambda a, b: a @ b.t(), (3, 6)),
    ],
)
def test_channels_whose_products_are_summed_go_together(function: Any, shape: Any) -> None:
    run = Run(function, x(), x(*shape), channels=({1: 6}, {1: 6}))
    a, b = run.found(*run.axes)
    assert a == b
    assert run.kept == []
    assert run.of() == {}


def test_sums_that_are_no_products_tie_nothing() -> None:
    run = Run(lambda a, b: a.sum(1) + b.sum(1), x(), x(), channels=({1: 6}, {1: 6}))
    a, b = run.found(*run.axes)
    assert not set(a) & set(b)
    assert run.kept == []  # masked ones add nothing


def test_a_matrix_ties_its_rows_and_has_its_columns() -> None:
    run = Run(torch.matmul, x(), x(6, 4), channels=({1: 6}, {0: 6, 1: 4}))
    inputs, rows, columns = run.axes
    assert run.found(inputs) == run.found(rows)
    assert run.of() == {1: Axis(columns, True)}


@pytest.mark.parametrize("blocks", [2, 3])
def test_blocks_of_channels_become_one(blocks: int) -> None:
    def gate(t: Tensor) -> Tensor:
        first, *rest = t.chunk(blocks, -1)
        for part in rest:
            first = first * part.sigmoid()
        return first

    run = Run(gate, x(5, 12), channels=({1: 12},))
    (line,) = run.found(run.axes[0])
    width = 12 // blocks
    assert line == line[:width] * blocks
    assert len(set(line)) == width
    assert run.of()[1].channels == tuple(line[:width])
    assert run.kept == []


def test_parts_are_cut_at_the_same_place() -> None:
    run = Run(lambda t: t.chunk(2, -1), x())
    (line,) = run.found(run.axes[0])
    assert line == line[:3] * 2
    assert run.found(run.of(0)[1].channels, run.of(1)[1].channels) == [line[:3]] * 2
    # Where only one channel of each would be left, none could go.
    few = Run(lambda t: t.chunk(2, -1), x(5, 2), channels=({1: 2},))
    assert [channels for channels, _ in few.kept] == [few.axes[0]]


@pytest.mark.parametrize(("heads", "dim"), [(False, 2), (True, 1)])
def test_heads_side_by_side_are_channels_of_all_or_units(heads: bool, dim: int) -> None:
    run = Run(lambda t: t.view(-1, 2, t.size(1) // 2) * 1, x(), heads=heads)
    if heads:  # how many there are is a number in the code, so they are kept
        assert [why for _, why in run.kept] != []
        assert run.ports.is_head(run.axes[0])
        return
    (line,) = run.found(run.axes[0])
    assert line == line[:3] * 2
    assert run.of() == {dim: Axis(tuple(line[:3]), True)}
    assert not run.ports.is_head(run.axes[0])


def test_heads_by_the_number_of_which_is_followed_stay_free() -> None:
    width = Width(6, ("size", 0, 6))
    run = Run(lambda t, width: t.view(-1, width // 3, 3), x(), width, heads=True)
    (line,) = run.found(run.axes[0])
    assert line == [line[0]] * 3 + [line[3]] * 3
    assert run.kept == []
    assert list(run.of()) == [1]
    assert run.ports.is_head(run.axes[0])


def test_widths_that_nothing_claimed_are_told_of_lines() -> None:
    run = Run(lambda t: F.pad(t, (0, 0, 1, 0)), x())
    ((call, lines),) = run.claimed
    assert call.results[0].shape == (6, 6)
    assert [{dim: line.tolist() for dim, line in of.items()} for of in lines] == [
        {1: list(run.axes[0])}
    ]
    assert list(run.of()) == [1]


def test_what_is_changed_in_place_has_channels_too() -> None:
    run = Run(lambda a, b: a.copy_(b), x(), x(), channels=({1: 6}, {1: 6}))
    (line,) = run.found(run.of()[1].channels)
    assert line == run.found(run.axes[1])[0]
    assert run.kept == []
