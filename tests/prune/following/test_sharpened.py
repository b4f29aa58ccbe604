"""The models that are run tell more than they would as they are; where they do not run, less."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following.sharpened import Sharpened, check_finite
from pyg_stkd.prune.structure.example import Example


class Picky(nn.Module):
    """Runs on some numbers alone, and counts its runs."""

    runs = 0

    def __init__(self, takes: str = "all") -> None:
        super().__init__()
        self.takes = takes
        self.hidden, self.out = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        Picky.runs += 1
        if self.takes == "float32" and x.dtype != torch.float32:
            raise RuntimeError("expected float32")
        y = self.out(self.hidden(x).relu())
        is_small = bool((self.hidden.bias == 0).all())
        return y if self.takes != "small weights" or is_small else y / 0.0


def sharpened(takes: str) -> Sharpened:
    model = Picky(takes)
    nn.init.zeros_(model.hidden.bias)
    return Sharpened(lambda: copy.deepcopy(model), Example((torch.ones(2, 3),)))


@pytest.mark.parametrize(
    ("takes", "dtype", "is_shaken"),
    [
        ("all", torch.float64, True),
        ("float32", torch.float32, True),
        ("small weights", torch.float64, False),
    ],
)
def test_as_sharp_as_the_model_runs(takes: str, dtype: torch.dtype, is_shaken: bool) -> None:
    sharp = sharpened(takes)
    assert sharp.model.hidden.weight.dtype == sharp.example.inputs[0].dtype == dtype
    assert bool(sharp.model.hidden.bias.any()) == is_shaken
    assert sharp.model is sharp.model


def test_a_model_that_never_runs_stays_as_it_is() -> None:
    def plain() -> nn.Module:
        return nn.Linear(4, 2)

    sharp = Sharpened(plain, Example((torch.ones(2, 3),)))
    assert sharp.model.weight.dtype == torch.float32
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        sharp.tried(lambda model, inputs, finite: inputs.run(model))


def test_a_function_is_tried_on_copies_with_the_same_parameters() -> None:
    sharp = sharpened("float32")
    seen = []

    def run(model: nn.Module, inputs: Example, finite: bool) -> str:
        seen.append((inputs.inputs[0].dtype, finite, model))
        inputs.run(model)
        return "done"

    assert sharp.tried(run) == sharp.tried(run) == "done"
    dtypes = [torch.float64, torch.float32, torch.float32]
    assert [dtype for dtype, *_ in seen] == dtypes
    assert [finite for _, finite, _ in seen] == [True, True, False]  # the last is known to be good
    first, second = (model for *_, model in seen[1:])
    assert len({first, second, sharp.model}) == 3
    assert first.hidden.weight is second.hidden.weight is sharp.model.hidden.weight


def test_following_is_the_run_by_which_a_model_is_found() -> None:
    Picky.runs = 0
    Pruner(Picky(), Random(0), keep=0.5, example=(torch.ones(2, 3),), verify=False)
    assert Picky.runs == 2  # as it is, to say whether it runs at all, and sharpened


@pytest.mark.parametrize("takes", ["all", "float32"])
def test_channels_are_followed_on_what_runs(takes: str) -> None:
    model = Picky(takes)
    pruner = Pruner(model, Random(0), keep=0.6, example=(x := torch.randn(2, 3),), min_width=1)
    pruner.step()
    small = pruner.compact()
    assert small.hidden.out_features < 8
    torch.testing.assert_close(small(x), model(x))


def test_outputs_must_be_finite() -> None:
    check_finite([torch.ones(2), None, torch.arange(3)])
    with pytest.raises(ValueError, match="the outputs must be finite"):
        check_finite({"x": torch.tensor([1.0, torch.nan])})


def test_weights_of_a_sharpened_model_are_neither_0_nor_alike() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(400, 400) for _ in range(3))
            for parameter in self.parameters():
                nn.init.zeros_(parameter)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.a(x) + self.b(x))

    model = Twins()
    sharp = Sharpened(lambda: copy.deepcopy(model), Example((torch.ones(2, 400),)))
    found = torch.cat([lin.weight for lin in sharp.model.children()])
    assert found.dtype == torch.float64
    assert bool((found != 0).all())
    assert len(found.unique(dim=0)) == 1200  # rows
    assert len(found.unique(dim=1)[0]) == 400  # columns
    assert not any(bool(parameter.any()) for parameter in model.parameters())
