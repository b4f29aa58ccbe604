from __future__ import annotations

import importlib
import math
import socket
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("torchmetrics")

from torchmetrics import MetricCollection

from pyg_stkd.metrics import (
    MaskedMAE,
    MaskedMAPE,
    MaskedRMSE,
    masked_mae,
    masked_mape,
    masked_rmse,
)

CLASSES = [MaskedMAE, MaskedRMSE, MaskedMAPE]
FUNCTIONS = [masked_mae, masked_rmse, masked_mape]
NAMES = ["mae", "rmse", "mape"]
NAMED_CLASSES = list(zip(CLASSES, NAMES, strict=True))
NAMED_FUNCTIONS = list(zip(FUNCTIONS, NAMES, strict=True))


def make(batch: int = 7, steps: int = 12, nodes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    target = 40 + 20 * torch.rand(batch, steps, nodes)
    pred = target + torch.randn(batch, steps, nodes) * 5
    mask = torch.rand(batch, steps, nodes) > 0.3
    return pred, target.masked_fill(~mask, math.nan), mask


def naive(name: str, pred: Tensor, target: Tensor, mask: Tensor) -> float:
    errors = []
    for p, y, m in zip(
        pred.double().flatten().tolist(),
        target.double().flatten().tolist(),
        mask.flatten().tolist(),
        strict=True,
    ):
        if m and not (name == "mape" and y == 0):
            errors.append({"mae": abs(p - y), "rmse": (p - y) ** 2}.get(name, 0.0))
            if name == "mape":
                errors[-1] = 100 * abs((p - y) / y)
    mean = float(np.mean(errors))
    return math.sqrt(mean) if name == "rmse" else mean


@pytest.mark.parametrize(("function", "name"), NAMED_FUNCTIONS)
def test_functions_equal_the_naive_formula(function: object, name: str) -> None:
    pred, target, mask = make()
    target[0, 0, 0], mask[0, 0, 0] = 0.0, True
    expected = naive(name, pred, target, mask)
    assert function(pred.double(), target.double(), mask).item() == pytest.approx(
        expected, rel=1e-12
    )  # type: ignore[operator]
    assert function(pred, target).item() == pytest.approx(expected, rel=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_are_finite_where_the_truth_is_missing(function: object) -> None:
    pred, target, mask = make(2, 3, 2)
    pred = pred.double().requires_grad_()
    (grad,) = torch.autograd.grad(function(pred, target.double(), mask), pred)  # type: ignore[operator]
    assert grad.isfinite().all()
    assert (grad[~mask] == 0).all()
    assert torch.autograd.gradcheck(lambda p: function(p, target.double(), mask), pred)  # type: ignore[operator]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_faults_are_not_hidden(function: object) -> None:
    truth = torch.tensor([50.0, 60.0])
    assert function(torch.tensor([math.nan, 60.0]), truth).isnan()  # type: ignore[operator]
    assert function(truth, truth, torch.zeros(2, dtype=torch.bool)).isnan()  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"one shape \(got \[\(2,\), \(1,\)\]\)"):
        function(truth, truth[:1])  # type: ignore[operator]
    with pytest.raises(TypeError, match=r"'mask' must be boolean \(got torch.float32\)"):
        function(truth, truth, torch.ones(2))  # type: ignore[operator]


@pytest.mark.parametrize(("cls", "name"), NAMED_CLASSES)
def test_metrics_equal_the_naive_formula_per_horizon(cls: type, name: str) -> None:
    pred, target, mask = make(9)
    target[0, 2, 0], mask[0, 2, 0] = 0.0, True
    metric = cls()
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):  # batches of unequal size
        metric.update(pred[part], target[part], mask[part])
    out = metric.compute()
    assert list(out) == [f"{name}/15", f"{name}/30", f"{name}/45", f"{name}/60", f"{name}/mean"]
    for minutes, step in ((15, 2), (30, 5), (45, 8), (60, 11)):
        expected = naive(name, pred[:, step], target[:, step], mask[:, step])
        assert out[f"{name}/{minutes}"].item() == pytest.approx(expected, rel=1e-12)
    expected = naive(name, pred, target, mask)
    assert out[f"{name}/mean"].item() == pytest.approx(expected, rel=1e-12)

    metric.reset()
    metric.update(pred[:2], target[:2])  # where the truth is not NaN
    expected = naive(name, pred[:2], target[:2], mask[:2])
    assert metric.compute()[f"{name}/mean"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cls", CLASSES)
def test_processes_add_up(cls: type) -> None:
    # What torchmetrics does under DDP, with the other processes' states at hand: unequal shares
    # of the data, and one process that saw none of it.
    pred, target, mask = make(9)
    whole = cls()
    whole.update(pred, target, mask)
    parts = [cls(), cls(), cls()]
    parts[1].update(pred[:2], target[:2], mask[:2])
    parts[2].update(pred[2:], target[2:], mask[2:])

    states = iter([[p.total for p in parts], [p.count for p in parts]])
    rank = cls(
        dist_sync_fn=lambda state, group: next(states), distributed_available_fn=lambda: True
    )
    rank.update(pred[:2], target[:2], mask[:2])
    synced, expected = rank.compute(), whole.compute()
    for key in expected:
        assert synced[key].item() == pytest.approx(expected[key].item(), rel=1e-12)


def _process(rank: int, port: int, pred: Tensor, target: Tensor, mask: Tensor, out: Tensor) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    part = slice(0, 3) if rank == 0 else slice(3, 9)
    for i, cls in enumerate(CLASSES):
        metric = cls()
        metric.update(pred[part], target[part], mask[part])
        out[rank, i] = torch.stack(list(metric.compute().values()))
    dist.destroy_process_group()


@pytest.mark.full
def test_two_processes(fork_context: Callable[[], Any]) -> None:
    pred, target, mask = make(9)
    out = torch.zeros(2, 3, 5, dtype=torch.double).share_memory_()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = fork_context()
    processes = [
        context.Process(target=_process, args=(rank, port, pred, target, mask, out))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for i, cls in enumerate(CLASSES):
        whole = cls()
        whole.update(pred, target, mask)
        expected = torch.stack(list(whole.compute().values()))
        torch.testing.assert_close(out[:, i], expected.expand(2, 5), rtol=1e-12, atol=0)


def test_sums_of_a_long_run_keep_their_digits() -> None:
    metric = MaskedMAE(output_steps=1, horizons=(5,))
    truth = torch.zeros(1, 1, 1000)
    for _ in range(200):
        metric.update(truth + 0.1, truth)
    assert metric.compute()["mae/mean"].item() == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_collection_and_other_horizons() -> None:
    options = {"output_steps": 4, "horizons": (30, 60), "step_minutes": 15}
    metrics = MetricCollection([cls(**options) for cls in CLASSES])
    pred, target, mask = make(3, 4)
    metrics.update(pred, target, mask)
    out = metrics.compute()
    assert set(out) == {f"{m}/{h}" for m in ("mae", "rmse", "mape") for h in (30, 60, "mean")}
    expected = naive("mae", pred[:, 1], target[:, 1], mask[:, 1])
    assert out["mae/30"].item() == pytest.approx(expected, rel=1e-12)


def test_horizon_without_a_reading_is_nan() -> None:
    metric = MaskedMAE(output_steps=2, horizons=(5, 10))
    metric.update(torch.ones(1, 2, 1), torch.tensor([[[3.0], [math.nan]]]))
    out = metric.compute()
    assert out["mae/5"] == 2
    assert out["mae/10"].isnan()
    assert out["mae/mean"] == 2


def test_refuses() -> None:
    with pytest.raises(
        ValueError, match=r"multiples of 5 minutes up to the 60 of 12 steps.*\[61\]"
    ):
        MaskedMAE(horizons=(15, 61))
    with pytest.raises(ValueError, match=r"got \[65\]"):
        MaskedMAE(horizons=(65,))
    metric = MaskedMAE()
    wrong = torch.ones(2, 5, 12)
    with pytest.raises(ValueError, match=r"T_out = 12 steps on axis 1 \(got \(2, 5, 12\)\)"):
        metric.update(wrong, wrong)
    with pytest.raises(ValueError, match="one shape"):
        metric.update(torch.ones(2, 12, 5), torch.ones(2, 12, 4))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "pyg_stkd.metrics")
    with pytest.raises(ImportError, match=r"^pyg_stkd.metrics needs .*'pyg-stkd\[metrics\]'$"):
        importlib.import_module("pyg_stkd.metrics")
