"""Tests of pyg_stkd/prune/compaction/runs.py: what a run says, and how much a model is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.compaction.runs import Outputs, Runs, damped
from pyg_stkd.prune.structure.example import Example

X = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Counts its calls, and drops and shuffles in train mode as it is told."""

    def __init__(self, drops: bool = False, shuffles: bool = False) -> None:
        super().__init__()
        self.lin, self.calls = nn.Linear(4, 4), 0
        self.drops, self.shuffles = drops, shuffles

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.lin(x)
        if self.drops:
            x = nn.functional.dropout(x, 0.5, self.training)
        return x[torch.randperm(len(x))] if self.training and self.shuffles else x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("drops", [False, True])
def test_random_numbers_stand_still_where_some_are_drawn(drops: bool, training: bool) -> None:
    model, runs = Net(drops), Runs(Example((X,)))
    for calls in (1, 2):
        out = runs.first(model, training)
        torch.testing.assert_close(out.tensors[0], model.lin(X))
        assert not out.draws
        # In train mode a copy shows at first whether some are drawn.
        assert model.calls == calls - (training and not drops)
    assert model.training is (training and (drops or calls > 1))


def test_what_is_drawn_even_so_is_said() -> None:
    model, runs = Net(True, True), Runs(Example((X,)))
    a, b = (runs.first(model, True) for _ in range(2))
    assert a.draws
    assert torch.equal(a.state, b.state)
    assert torch.equal(a.tensors[0], b.tensors[0])
    assert not runs.first(model, False).draws


def test_errors_are_said_and_nothing_is_learned_of_them() -> None:
    class Breaks(Net):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and self.calls == 0:
                self.calls += 1
                raise RuntimeError("not yet")
            return super().forward(x)

    model, runs = Breaks(True), Runs(Example((X,)))
    assert runs.first(model, True).error == "RuntimeError: not yet"
    assert model.calls == 0
    model.calls = 1
    out = runs.first(model, True)
    assert (out.error, out.draws) == ("", False)


def of(*tensors: Any, error: str = "") -> Outputs:
    return Outputs([torch.tensor(t) for t in tensors], False, torch.zeros(1), error)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (of([1.0, 2.0], [3]), of([1.0, 2.00001], [3]), True),
        (of([1.0, 2.0], [3]), of([1.0, 2.001], [3]), False),
        (of([1.0, 2.0], [3]), of([1.0, 2.0], [4]), False),
        (of([1.0, 2.0]), of([1.0, 2.0], [3]), False),
        (of([1.0, 2.0]), of([[1.0, 2.0]]), False),
        (of([1.0]), of(error="it broke"), False),
        (of(error="it broke"), of(error="it broke"), True),
        (of(), of(), True),
    ],
    ids=["last bits", "another", "another integer", "more", "shape", "error", "errors", "none"],
)
def test_outputs_are_the_same(a: Outputs, b: Outputs, same: bool) -> None:
    assert a.is_same(b, None) is b.is_same(a, None) is same


def test_tolerances_are_those_of_the_least_exact_and_last_bits_of_the_most_exact() -> None:
    both = Outputs([X, X.double(), X.long()], False, X)
    assert both.tolerance == 1e-4
    assert both.last_bit == torch.finfo(torch.float64).eps
    whole = Outputs([X.long()], False, X)
    assert whole.tolerance == whole.last_bit == 0.0


def test_gaps_of_a_model_from_itself() -> None:
    class Steep(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x)
            return (1e6 * x).sin() if self.training else x

    model, runs = Steep(4, 4), Runs(Example((X,)))
    out = runs.first(model.train(), True)
    assert 1e-3 < runs.own_gap(model, out.tensors[0], 0) == runs.largest_own_gap(model, out)
    out = runs.first(model.eval(), False)
    assert runs.own_gap(model, out.tensors[0], 0) == 0.0  # another run is the same
    whole = Runs(Example((torch.arange(3),)))
    table = nn.Sequential(nn.Embedding(3, 4), Steep(4, 4)).train()
    assert whole.own_gap(table, whole.run(table, True).tensors[0], 0) > 1e-3


def test_norms_are_damped_and_as_they_were_again() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4, eps=0.5), nn.Linear(4, 4))
    with damped(model, 0.1):
        assert [model[0].eps, model[1].eps] == [0.1, 0.5]
        expected = (X - X.mean(0)) / (X.var(0, correction=0) + 0.1).sqrt()
        torch.testing.assert_close(model[0](X), expected)
    assert [model[0].eps, model[1].eps] == [1e-5, 0.5]
