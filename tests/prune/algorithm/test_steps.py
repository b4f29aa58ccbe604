"""Tests of pyg_stkd/prune/steps.py: statistics anew, and what may calibrate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import InstanceNorm

from pyg_stkd.prune.algorithm.steps import check_calibration, recalibrate


class Stream(torch.utils.data.IterableDataset[int]):
    """Of no known length."""

    def __iter__(self) -> Any:
        return iter(range(2))


def norms() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Identity(), nn.BatchNorm1d(2))
    for norm in (model[0], model[2]):
        norm.running_mean.copy_(torch.tensor([3.0, -2.0]))
        norm.running_var.copy_(torch.tensor([0.5, 7.0]))
        norm.num_batches_tracked.fill_(9)
    return model


def same(model: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True)
    ) and not any(m._forward_pre_hooks for m in model.modules())


def test_without_batches_statistics_stay() -> None:
    model = norms()
    recalibrate(model, lambda: None)
    assert same(model, norms())
    assert model[0].momentum == 0.1


def test_norms_that_see_nothing_stay() -> None:
    model, x = norms(), torch.randn(5, 2)
    recalibrate(model, lambda: model[0](x))
    torch.testing.assert_close(model[0].running_mean, x.mean(0))
    assert model[0].num_batches_tracked == 1
    assert same(model[2], norms()[2])


def test_a_run_that_fails_changes_nothing() -> None:
    model = norms().train()

    def run() -> None:
        model[0](torch.randn(5, 2))
        model[2](torch.randn(1, 2))

    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        recalibrate(model, run)
    assert same(model, norms())
    assert model.training
    assert model[2].momentum == 0.1


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d, InstanceNorm])
def test_instance_norms_are_estimated_too(norm: Any) -> None:
    model = norm(2, track_running_stats=True)
    xs = [torch.randn(3, 2, 6) for _ in range(3)]

    def inputs(x: Tensor) -> tuple[Tensor, ...]:
        if norm is nn.InstanceNorm1d:
            return (x,)
        return x.transpose(1, 2).flatten(0, 1), torch.arange(3).repeat_interleave(6)

    recalibrate(model, lambda: [model(*inputs(x)) for x in xs])  # type: ignore[arg-type, return-value]
    means = torch.stack([x.mean((0, 2)) for x in xs]).mean(0)
    variances = torch.stack([x.var(2).mean(0) for x in xs]).mean(0)
    torch.testing.assert_close(model.running_mean, means)
    torch.testing.assert_close(model.running_var, variances)


def test_statistics_that_are_lost_can_be_estimated() -> None:
    model, x = norms(), torch.randn(5, 2)
    model[0].running_mean.fill_(float("nan"))
    recalibrate(model, lambda: model[0](x))
    torch.testing.assert_close(model[0].running_mean, x.mean(0))


@pytest.mark.parametrize(
    ("calibration", "error", "message"),
    [
        (0, ValueError, r"'calibration' must be at least 1 \(got 0\)"),
        ([], ValueError, r"'calibration' must give at least one batch \(got none\)"),
        ((x for x in [1]), TypeError, r"'calibration' must be .* more than once \(got generator\)"),
        (iter([1]), TypeError, r"more than once \(got list_iterator\)"),
        (1.5, TypeError, r"'calibration' must be a number, or batches .*\(got float\)"),
    ],
)
def test_what_cannot_calibrate_is_refused(calibration: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        check_calibration(calibration)


def test_loaders_may_have_no_length() -> None:
    loader = torch.utils.data.DataLoader(Stream())
    check_calibration(loader)
    assert len([*loader]) == 2
