from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pyg_stkd.distill import Distiller
from pyg_stkd.distill.fitting.batches import Batches
from pyg_stkd.distill.fitting.run import Run

X, Y = torch.randn(8, 2), torch.randn(8, 1)


def run_of(
    validate: Any = None, mode: str = "min", criterion: Any = mse_loss, **changes: Any
) -> Run:
    torch.manual_seed(0)
    distiller = Distiller(nn.Linear(2, 1), nn.Linear(2, 1))
    batches = Batches([(X, Y)], [(X,)], None, None)
    plan = {"steps": 5, "every": 2, "alpha": None, "share": 0.5, "mode": mode, **changes}
    run = Run(distiller, batches, criterion, validate, **plan)
    run.look()
    run.prepare(None, None)
    return run


def test_looking_changes_nothing_and_an_epoch_its_steps() -> None:
    run = run_of()
    before = torch.cat([p.detach().flatten() for p in run.distiller.student.parameters()])
    torch.testing.assert_close(run.best_state["weight"].flatten(), before[:2])
    epoch = run.epoch()
    after = torch.cat([p.detach().flatten() for p in run.distiller.student.parameters()])
    assert (epoch.epoch, epoch.step, run.step) == (1, 2, 2)
    assert not torch.equal(before, after)
    assert epoch.lr == pytest.approx(0.005 * (1 + torch.cos(torch.tensor(torch.pi / 5))) / 2)


def test_losses_are_means_over_the_steps_of_their_kind() -> None:
    seen: list[float] = []

    def criterion(out: Tensor, target: Tensor) -> Tensor:
        loss = mse_loss(out, target)
        seen.append(float(loss.detach()))
        return loss

    run = run_of(criterion=criterion, share=0.0, steps=3, every=3)
    seen.clear()  # of the look at the first batch
    epoch = run.epoch()
    assert len(seen) == 3
    assert seen[0] > seen[2]
    assert epoch.losses["task"] == pytest.approx(sum(seen) / 3)
    assert epoch.unlabelled == {}


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("min", [3.0, 2.0, 2.0, 2.5], [True, True, False]),
        ("max", [3.0, 2.0, 3.0, float("nan")], [False, True, False]),
    ],
)
def test_of_equal_metrics_the_later_is_best(mode: str, values: list[float], best: Any) -> None:
    given = iter(values)
    run = run_of(lambda _: next(given), mode, steps=6)
    assert [run.epoch().best for _ in best] == best
