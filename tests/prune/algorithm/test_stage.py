"""Tests of pyg_stkd/prune/stage.py: what is refused at once, and the way back."""

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

from pyg_stkd.distill import Distiller, HintLoss, SoftTargetLoss
from pyg_stkd.distill.losses.base import until_epoch
from pyg_stkd.distill.training import unpack
from pyg_stkd.prune import Magnitude, Pruner, distill_and_prune
from pyg_stkd.prune.algorithm.stage import Algorithm

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LOADER = [(X, torch.arange(12) % 3)]


class Scale(nn.Module):
    """Has a buffer that is no mask of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("attn_mask", torch.full((16,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attn_mask


def mlp(*extra: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.LayerNorm(16),
        nn.Linear(16, 3), *extra,
    )  # fmt: skip


def make(student: nn.Module, loss: Any = None, **kwargs: Any) -> tuple[Distiller, Pruner]:
    student(X)
    distiller = Distiller(mlp(), student, [SoftTargetLoss() if loss is None else loss])
    return distiller, Pruner(student, Magnitude(), **{"keep": 0.4, "rho": 0.2, **kwargs})


def stages(distiller: Distiller, pruner: Pruner, **kwargs: Any) -> list[Any]:
    options = {"optimizer": lambda p: torch.optim.SGD(p, 0.01), "epochs": 1, **kwargs}
    return list(distill_and_prune(distiller, pruner, LOADER, F.cross_entropy, **options))


def guarded(*metrics: float) -> dict[str, Any]:
    values = iter(metrics)
    return {"guard": 0.1, "validate": lambda model: next(values)}


def algorithm(distiller: Distiller, pruner: Pruner, **kwargs: Any) -> Algorithm:
    options = {"calibration": None, "validate": None, "guard": 0.1, "max_rollbacks": 1, **kwargs}
    return Algorithm(
        distiller, pruner, LOADER, F.cross_entropy, lambda p: torch.optim.SGD(p, 0.1),
        unpack=unpack, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("calibration", "error"), [(0, ValueError), ([], ValueError), (iter(LOADER), TypeError)]
)
def test_calibration_is_checked_before_anything_is_changed(calibration: Any, error: Any) -> None:
    distiller, pruner = make(mlp())
    state = copy.deepcopy(distiller.state_dict())
    with pytest.raises(error, match="'calibration' must "):
        distill_and_prune(
            distiller, pruner, LOADER, F.cross_entropy, optimizer=torch.optim.Adam,
            calibration=calibration,
        )  # fmt: skip
    assert distiller.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in distiller.state_dict().items())


def test_a_loader_that_runs_dry_is_noticed() -> None:
    distiller, pruner = make(mlp())
    stages = distill_and_prune(
        distiller, pruner, iter(LOADER), F.cross_entropy, optimizer=torch.optim.Adam, epochs=0
    )
    with pytest.raises(
        ValueError, match=r"'loader' must give at least one batch, each time .*none"
    ):
        next(stages)
    assert pruner.model[1].running_mean.abs().max() > 0


@pytest.mark.parametrize("budget", ["parameters", "flops"])
def test_each_roll_back_is_less_deep(budget: Any) -> None:
    distiller, pruner = make(mlp(), keep=0.25, budget=budget, example=(X,))
    (stage,) = stages(distiller, pruner, max_rollbacks=3, **guarded(1, 9, 9, 9, 1, 1))
    expected = [0.25, 0.25 ** (1 / 2), 0.25 ** (1 / 4)]
    assert stage.attempts == pytest.approx(expected)
    assert pruner.spent <= 0.25


def test_the_way_back_restores_what_is_spent() -> None:
    distiller, pruner = make(mlp(), budget="flops", example=(X,))
    run = algorithm(distiller, pruner)
    snapshot = run._snapshot()
    run._attempt(0.5, 0, shrink=False)
    assert pruner.spent <= 0.5
    run._restore(snapshot)
    assert pruner.spent == 1.0


@pytest.mark.parametrize("granularity", ["channel", "weight"])
@pytest.mark.parametrize("masked", [(), ("weight",), ("weight", "bias")])
def test_masks_that_were_there_stay(masked: tuple[str, ...], granularity: Any) -> None:
    torch.manual_seed(0)
    student = mlp(nn.Identity())
    for name in masked:
        prune.l1_unstructured(student[3], name, 0.25)
    distiller, pruner = make(student, granularity=granularity)
    run = algorithm(distiller, pruner)
    state, out = copy.deepcopy(distiller.state_dict()), student.eval()(X)
    names = [name for name, _ in student.named_parameters()]
    share = pruner.share
    for _ in range(2):
        snapshot = run._snapshot()
        run._attempt(0.5, 1, shrink=False)
        assert not torch.equal(student.eval()(X), out)
        run._restore(snapshot)
        assert list(distiller.state_dict()) == list(state)
        assert all(torch.equal(v, state[k]) for k, v in distiller.state_dict().items())
        assert [name for name, _ in student.named_parameters()] == names
        assert torch.equal(student.eval()(X), out)
        assert pruner.share == share
    (stage,) = stages(distiller, pruner, **guarded(1, 9, 1, 1))
    assert stage.attempts == (0.4,)
    assert stage.share <= 0.4


def test_buffers_of_the_user_are_no_masks() -> None:
    student = mlp()
    student.insert(2, Scale())
    distiller, pruner = make(student, ignore=["2"])
    (stage,) = stages(distiller, pruner, **guarded(1, 9, 1, 1))
    assert stage.attempts == (0.4,)
    assert student[2].attn_mask.tolist() == [2.0] * 16
    assert not any(name.endswith(("weight_mask", "_orig")) for name in student.state_dict())


def test_adapters_take_their_widths_before_the_first_attempt() -> None:
    loss = HintLoss("0", "0")
    distiller, pruner = make(mlp(), loss)
    (stage,) = stages(distiller, pruner, **guarded(1, 9, 1, 1))
    assert stage.attempts == (0.4,)
    assert loss.projection.in_features == pruner.model[0].out_features < 16


def test_losses_that_do_not_count_may_stay_lazy() -> None:
    loss = HintLoss("0", "0", schedule=until_epoch(0))
    distiller, pruner = make(mlp(), loss)
    (stage,) = stages(distiller, pruner, **guarded(1, 9, 1, 1))
    assert stage.attempts == (0.4,)
    assert is_lazy(loss.projection.weight)


def test_losses_that_cannot_follow_are_refused_at_once() -> None:
    loss = HintLoss("0", "0", projection=nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 16)))
    distiller, pruner = make(mlp(), loss)

    def never(batch: Any) -> Iterator[Any]:
        raise AssertionError

    with pytest.raises(ValueError, match=r"loss 'hint' \(BatchNorm1d\) follow the channels of"):
        distill_and_prune(
            distiller, pruner, LOADER, F.cross_entropy, optimizer=torch.optim.Adam, unpack=never
        )
    assert pruner.share == 1
