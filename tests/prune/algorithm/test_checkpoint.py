"""Tests of pyg_stkd/prune/algorithm/checkpoint.py: the end is as if nothing had happened."""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from pyg_stkd.distill import Distiller, HintLoss, SoftTargetLoss
from pyg_stkd.prune import KDIS, Magnitude, Pruner, Random, distill_and_prune
from pyg_stkd.prune.algorithm import distill_and_prune as package_function

module = __import__(package_function.__module__, fromlist=["x"])


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from the random numbers of NumPy and Python, and from generators of its own."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.rng = np.random.default_rng(3)
        self.old = np.random.Generator(np.random.MT19937(4))
        self.python = random.Random(5)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        noise = np.random.rand() + random.random() + self.rng.random()  # noqa: NPY002
        noise += self.old.normal() + self.python.random()
        return self.x[i] + 0.1 * float(noise), self.y[i]


def run(
    path: Path | None,
    stop: int | None = None,
    *,
    dropout: float = 0.0,
    importance: Callable[[], Any] = KDIS,
    loader: Callable[..., Any] | None = None,
    seed: int = 0,
    between: Callable[[], Any] = lambda: None,
    granularity: Any = "channel",
    guard: Any = None,
    **kwargs: Any,
) -> tuple[nn.Module, list[Any], Pruner]:
    """Runs all stages, or some, with all objects made anew."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    build = torch.Generator().manual_seed(1)
    teacher = nn.Sequential(
        nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 3)
    )
    x, y = torch.randn(32, 6, generator=build), torch.randint(0, 3, (32,), generator=build)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=build) - 0.5)
    student = copy.deepcopy(teacher)
    hint = HintLoss("0", "0", projection=copy.deepcopy(nn.Linear(12, 12)))
    with torch.no_grad():
        for parameter in hint.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=build) - 0.5)
    distiller = Distiller(teacher, student, [SoftTargetLoss(), hint])
    pruner = Pruner(student, importance(), granularity, keep=(0.8, 0.6, 0.5), rho=0.2)
    batches = DataLoader(TensorDataset(x, y), 8, shuffle=True) if loader is None else loader(x, y)
    stages = distill_and_prune(
        distiller, pruner, batches, F.cross_entropy, epochs=2, checkpoint=path,
        optimizer=lambda p: torch.optim.Adam(p, 0.01), **kwargs,
        **({} if guard is None else guard()),
    )  # fmt: skip
    reports = []
    for stage in stages:
        between()
        reports.append(replace(stage, seconds=0.0))
        if len(reports) == stop:
            stages.close()
            break
    return student, reports, pruner


def rolled_back() -> dict[str, Any]:
    def validate(model: nn.Module) -> float:  # worse where it has lost much at once
        return float(torch.rand(())) + (9.0 if model[0].weight.sum() == 0 else 0.0)

    return {"guard": 0.1, "validate": validate, "max_rollbacks": 1}


SETTINGS: dict[str, dict[str, Any]] = {
    "in order": {"loader": lambda x, y: [*zip(x.split(8), y.split(8), strict=True)]},
    "shuffled": {},
    "shuffled by a generator": {
        "loader": lambda x, y: DataLoader(
            TensorDataset(x, y), 8, shuffle=True, generator=torch.Generator().manual_seed(5)
        )
    },
    "sampled by a generator": {
        "loader": lambda x, y: DataLoader(
            TensorDataset(x, y),
            8,
            sampler=RandomSampler(x, generator=torch.Generator().manual_seed(5)),
        )
    },
    "noisy": {"loader": lambda x, y: DataLoader(Noisy(x, y), 8, shuffle=True)},
    "dropout": {"dropout": 0.3},
    "random scores": {"importance": Random},
    "seeded scores": {"importance": lambda: Random(seed=3)},
    "calibration": {"calibration": DataLoader([(torch.ones(6), torch.tensor(1))] * 9, 3, True)},
    "weights": {"granularity": "weight", "importance": Magnitude},
    "a draw between stages": {"dropout": 0.3, "between": lambda: torch.rand(3)},
    "rolled back": {"guard": rolled_back},
    "unlabelled": {
        "unlabelled": [(torch.full((4, 6), float(i)),) for i in range(3)],
        "share": 0.4,
    },
}


QUICK = ("shuffled by a generator", "dropout", "seeded scores", "unlabelled")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in SETTINGS],
)
def test_ends_bit_for_bit_as_the_uninterrupted_run(tmp_path: Path, name: str) -> None:
    settings = SETTINGS[name]
    whole, reports, _ = run(None, **settings)
    saved, again, _ = run(tmp_path / "whole.pt", **settings)  # writing changes nothing
    assert again == reports
    for stop in (1, 2):
        path = tmp_path / f"{stop}.pt"
        run(path, stop, **settings)
        resumed, later, pruner = run(path, seed=99, **settings)
        assert later == reports
        assert pruner.stage == 3
        for other in (saved, resumed):
            assert repr(other) == repr(whole)
            assert other.state_dict().keys() == whole.state_dict().keys()
            for key, value in whole.state_dict().items():
                assert torch.equal(other.state_dict()[key], value), key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.pt", "2.pt", "whole.pt"]


@pytest.mark.parametrize("stop", [2, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 3))])
def test_killed_after_a_write(tmp_path: Path, stop: int, fork_context: Callable[[], Any]) -> None:
    path, written = tmp_path / "stages.pt", []
    write = module.save_stages

    def save(*args: Any) -> None:
        write(*args)
        written.append(1)
        if len(written) == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        torch.set_num_threads(1)
        module.save_stages = save
        run(path, dropout=0.3)

    process = fork_context().Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (tmp_path / ".stages.pt.0123456789abcdef.part").touch()  # killed in the middle of a write
    (tmp_path / ".other.pt.0123456789abcdef.part").touch()
    whole, reports, _ = run(None, dropout=0.3)
    resumed, later, _ = run(path, dropout=0.3, seed=7)
    assert later == reports
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [".other.pt.0123456789abcdef.part", "stages.pt"]


def change(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def on_file(path: Path) -> None:
        content = torch.load(path)
        edit(content)
        torch.save(content, path)

    return on_file


def cut(length: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:length]) and None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 200 : middle + 200] = bytes(
        255 - b for b in content[middle - 200 : middle + 200]
    )
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [
        cut(0),
        cut(2000),
        cut(-1),
        flip,
        lambda path: path.write_bytes(pickle.dumps({1: 2})),
        lambda path: path.write_bytes(b"{}"),
        lambda path: torch.save([1], path),
        change(lambda c: c.pop("stages")),
        change(lambda c: c.pop("pruner")),
        change(lambda c: c.update(keep=0.5)),
        change(lambda c: c["stages"].pop()),
        change(lambda c: c["stages"][0].pop("losses")),
        change(lambda c: c["stages"][0].update(new=1)),
        change(lambda c: c["pruner"].pop("stage")),
        change(lambda c: c["pruner"].update(stage=99)),
        change(lambda c: c["pruner"].update(stage=-1)),
        change(lambda c: c["pruner"].update(stage=0)),
        change(lambda c: c["pruner"].update(stage=0) or c["stages"].clear()),
        change(lambda c: c["pruner"].update(stage=True)),
        change(lambda c: c["pruner"].update(stage=2.0)),
        change(lambda c: c["pruner"].pop("kept")),
        change(lambda c: c["pruner"].update(kept=5)),
        change(lambda c: c["pruner"]["kept"].update({"0": torch.ones(5)})),
        change(lambda c: c["pruner"]["kept"].update({"0": 5})),
        change(lambda c: c["distiller"].pop("student.0.weight")),
        change(lambda c: c["distiller"].update({"student.0.weight": torch.ones(2, 2)})),
        change(lambda c: c["distiller"].update({"student.0.weight": None})),
        change(lambda c: c["random"][0]["all"].pop("torch")),
        change(lambda c: c["random"][0]["all"].update(python=5)),
        change(lambda c: c["random"][0]["own"].append(5)),
        change(lambda c: c["random"].insert(0, 5) or c["random"].pop()),
    ],
)
def test_what_is_damaged_is_refused_by_name(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "stages.pt"
    run(path, stop=2)
    damage(path)
    content = path.read_bytes()
    seen: list[Any] = []

    class Spy(Pruner):
        def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
            super().__init__(model, *args, **kwargs)
            seen.extend([model, copy.deepcopy(model.state_dict()), self])

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run.__globals__, "Pruner", Spy)
        with pytest.raises(ValueError, match=r"'checkpoint' must .*stages\.pt"):
            run(path, seed=1)
    model, state, pruner = seen
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert pruner.stage == 0
    assert pruner.share == 1
    assert path.read_bytes() == content


def test_files_without_random_numbers_load(tmp_path: Path) -> None:
    path = tmp_path / "stages.pt"
    settings = SETTINGS["in order"]
    whole, reports, _ = run(None, **settings)
    run(path, stop=1, **settings)
    change(lambda content: content.pop("random"))(path)
    for report in (content := torch.load(path))["stages"]:
        del report["unlabelled"]  # as older files have it
    torch.save(content, path)
    resumed, later, _ = run(path, **settings)
    assert later == reports
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("where", ["file/stages.pt", "file/a/stages.pt", "folder"])
def test_what_cannot_be_written_is_refused_before_the_first_stage(
    tmp_path: Path, where: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    distiller = Distiller(
        nn.Linear(2, 2), student := nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    )
    pruner = Pruner(student, Magnitude(), keep=0.9)
    with pytest.raises(ValueError, match=rf"'checkpoint' must be a file .* \(got '.*{where}'"):
        distill_and_prune(
            distiller, pruner, [], F.cross_entropy, optimizer=torch.optim.Adam,
            checkpoint=tmp_path / where,
        )  # fmt: skip


def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "stages.pt"
    run(path, stop=1)
    assert [p.name for p in path.parent.iterdir()] == ["stages.pt"]
