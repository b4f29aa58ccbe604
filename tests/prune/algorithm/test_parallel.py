"""Tests of pyg_stkd/prune/algorithm/parallel.py: distillation and pruning in several processes."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from pyg_stkd.distill import Distiller, HintLoss, SoftTargetLoss
from pyg_stkd.prune import KDIS, Magnitude, Pruner, distill_and_prune
from pyg_stkd.prune.algorithm.parallel import apart, inner, wrapped_alike
from pyg_stkd.prune.masked.processes import gathered

ROWS, WORLD = 6, 6  # rows of a process and a batch, enough for 2 and for 3 processes


def data(part: slice = slice(None)) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(3)
    batches = []
    for _ in range(3):
        x = torch.randn(ROWS * WORLD, 5, generator=random, dtype=torch.float64)
        y = torch.randint(0, 3, (ROWS * WORLD,), generator=random)
        batches.append((x[part], y[part]))
    return batches


def make(norm: bool = False, importance: Any = None) -> tuple[Distiller, Pruner]:
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(12)] if norm else []
    student = nn.Sequential(nn.Linear(5, 12), *norms, nn.Tanh(), nn.Linear(12, 3)).double()
    teacher = copy.deepcopy(student)
    hint = HintLoss("0", "0", in_channels=12, out_channels=12)
    distiller = Distiller(teacher, student, [SoftTargetLoss(), hint]).double()
    return distiller, Pruner(student, importance or Magnitude(), keep=(0.8, 0.6), rho=0.2)


def run(distiller: Any, pruner: Pruner, loader: Any, **kwargs: Any) -> list[Any]:
    options: dict[str, Any] = {"optimizer": lambda p: torch.optim.SGD(p, 0.1), "epochs": 2}
    return [*distill_and_prune(distiller, pruner, loader, F.cross_entropy, **{**options, **kwargs})]


def agree(content: Any) -> None:
    for other in gathered(content):
        assert other.keys() == content.keys()
        for name, value in content.items():
            same = torch.equal(value, other[name]) if isinstance(value, Tensor) else True
            assert same, name
            assert isinstance(value, Tensor) or value == other[name], name


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.full)])
def test_as_one_process_on_all_batches(in_processes: Any, count: int, tmp_path: Path) -> None:
    alone, pruner = make()
    expected = run(alone, pruner, data(), validate=lambda m: float(m(data()[0][0]).sum()))
    path = tmp_path / "stages.pt"

    def work(rank: int) -> None:
        size = ROWS * WORLD // count
        part = slice(rank * size, (rank + 1) * size)
        distiller, pruner = make()
        model = DistributedDataParallel(distiller, gradient_as_bucket_view=True)
        reports = run(
            model, pruner, data(part), checkpoint=path,
            validate=lambda m: count * float(m(data(part)[0][0]).sum()),
        )  # fmt: skip
        agree(distiller.state_dict())
        agree({i: asdict(report) for i, report in enumerate(reports)})
        for name, value in distiller.state_dict().items():
            torch.testing.assert_close(value, alone.state_dict()[name])
        for report, other in zip(reports, expected, strict=True):
            assert report.widths == other.widths
            assert report.losses == pytest.approx(other.losses)
            assert report.metric == pytest.approx(other.metric)
        again, pruner = make()
        resumed = run(DistributedDataParallel(again), pruner, data(part), checkpoint=path)
        assert [r.losses for r in resumed] == [r.losses for r in reports]
        agree(again.state_dict())
        for name, value in again.state_dict().items():
            assert torch.equal(value, distiller.state_dict()[name])

    in_processes(count, work)
    assert [p.name for p in tmp_path.iterdir()] == ["stages.pt"]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.full)])
def test_processes_agree_whatever_each_sees(in_processes: Any, count: int) -> None:
    def work(rank: int) -> None:
        size = ROWS * WORLD // count
        part = slice(rank * size, (rank + 1) * size)
        distiller, pruner = make(norm=True, importance=KDIS())
        torch.manual_seed(rank)
        metrics = iter([1.0, 9.0 * (rank == 1), 1.0, 1.0, 1.0, 1.0, 1.0])  # worse for one of them
        reports = run(
            DistributedDataParallel(distiller), pruner, data(part), guard=0.1,
            validate=lambda model: next(metrics), unlabelled=[(data(part)[0][0] * 2,)],
        )  # fmt: skip
        agree({i: asdict(report) for i, report in enumerate(reports)})
        agree(distiller.state_dict())
        assert reports[0].attempts == (0.8,)
        assert set(reports[0].unlabelled) == {"loss", "soft_target", "hint"}
        assert isinstance(distiller.student, nn.Sequential)
        assert distiller.student[0].out_features < 12

    in_processes(count, work)


def test_statistics_are_those_of_all_processes(in_processes: Any) -> None:
    alone, pruner = make(norm=True)
    # Batches of all rows in two halves: means over batches are means over processes.
    halves = [(x[part], y[part]) for x, y in data() for part in (slice(0, 18), slice(18, None))]
    run(alone, pruner, halves, epochs=0)

    def work(rank: int) -> None:
        part = slice(18 * rank, 18 * (rank + 1))
        distiller, pruner = make(norm=True)
        run(DistributedDataParallel(distiller), pruner, data(part), epochs=0)
        norm, other = distiller.student[1], alone.student[1]
        torch.testing.assert_close(norm.running_mean, other.running_mean)
        torch.testing.assert_close(norm.running_var, other.running_var)
        assert norm.num_batches_tracked == other.num_batches_tracked == 6
        assert norm.momentum == 0.1

    in_processes(2, work)


def test_a_process_that_fails_stops_all(in_processes: Any, tmp_path: Path) -> None:
    def work(rank: int) -> None:
        distiller, pruner = make()
        with pytest.raises(ValueError, match="'distiller' must be in DistributedDataParallel"):
            run(distiller, pruner, data())
        model = DistributedDataParallel(distiller)
        error, message = (
            (ValueError, "must hold at least one loss")
            if rank == 1
            else (RuntimeError, "Process 1 has failed")
        )
        pruner.importance = KDIS()
        with pytest.raises(error, match=message):
            run(model, pruner, [] if rank == 1 else data())
        assert pruner.share == 1
        with pytest.raises((ValueError, RuntimeError), match=r"'checkpoint' must be a|Process 0"):
            run(model, pruner, data(), checkpoint=tmp_path if rank == 0 else tmp_path / "a.pt")

    in_processes(2, work)


def test_wrappers_keep_their_options(in_processes: Any) -> None:
    def work(rank: int) -> None:
        distiller, _ = make()
        first = DistributedDataParallel(
            distiller, bucket_cap_mb=7, find_unused_parameters=True, gradient_as_bucket_view=True
        )
        assert inner(first) is distiller
        second = wrapped_alike(distiller, first)
        assert type(second) is DistributedDataParallel
        assert second is not first
        assert second.module is distiller
        assert second.find_unused_parameters
        assert second.gradient_as_bucket_view
        assert not second.static_graph
        assert second.bucket_bytes_cap == first.bucket_bytes_cap == 7 * 2**20
        assert second.process_group is first.process_group

    in_processes(1, work)


def test_losses_are_computed_apart() -> None:
    distiller, _ = make()
    with apart(distiller):
        assert distiller.reduction == "process"
    assert distiller.reduction == "global"


def test_without_processes_nothing_is_wrapped() -> None:
    distiller, _ = make()
    assert inner(distiller) is distiller
    assert wrapped_alike(distiller, distiller) is distiller
    with pytest.raises(TypeError, match=r"'distiller' must be a Distiller \(got Linear\)"):
        inner(nn.Linear(1, 1))
