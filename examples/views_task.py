"""What examples/views.py trains on: data and teachers of the other examples, and views."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch_geometric.data import Data
from torch_geometric.transforms import Compose, RandomJitter, RandomRotate, RandomScale
from torch_geometric.utils import dropout_edge

sys.path.append(str(Path(__file__).parent / "papers"))  # what the experiments share
import modelnet
import proteins
import traffic
import traffic_task
from experiment import Run, Store

from pyg_stkd.datasets.traffic.windows import WindowDataset
from pyg_stkd.distill import LogitLoss, OutputLoss
from pyg_stkd.graph import Graph

MOVE = Compose([*(RandomRotate(30, axis=i) for i in range(3)), RandomScale((0.8, 1.25)),
                RandomJitter(0.02)])  # fmt: skip


@dataclass
class Case:
    """A task: what is trained on what, and ways to perturb a batch."""

    teacher: nn.Module
    student: nn.Module
    loss: Any
    labelled: Sequence[Any]
    criterion: Callable[[Any, Any], Tensor]
    score: Callable[[nn.Module, str], float]  # of the validation or test part, higher is better
    views: dict[str, Callable[[Any], Any]]
    config: dict[str, Any]
    unpack: Callable[[Any], Any] | None = None


class Views:
    """A loader of batches that are perturbed anew each time: a teacher is asked of each."""

    def __init__(self, batches: Sequence[Any], change: Callable[[Any], Any]) -> None:
        self._batches, self._change = batches, change

    def __iter__(self) -> Iterator[Any]:
        for i in torch.randperm(len(self._batches)).tolist():
            yield self._change(self._batches[i])


def mixed(x: Tensor, other: Tensor) -> Tensor:
    """Return features between two of the same shape (mixup)."""
    share = 0.5 + 0.5 * torch.rand(())
    return share * x + (1 - share) * other


def options(sizes: dict[str, int]) -> list[str]:
    """Return options as on a command line."""
    return [text for name, size in sizes.items() for text in (f"--{name}", str(size))]


def of_proteins(seed: int, folder: Path, small: bool) -> Case:
    """Return a few graphs with many labels a node."""
    scale, steps = (0.02, 2) if small else (0.1, 300)
    run = Run("teacher", 0, {"scale": scale, "steps": 2 if small else 1000, "lr": 0.002})
    proteins.execute(run, folder, None)
    teacher = proteins.GAT.teacher(50, 121)
    teacher.load_state_dict(Store(folder).load_weights(run))
    data = proteins.Data.of(scale)
    labelled = data.train[: proteins.LABELLED]

    def features(batch: tuple[Any, ...]) -> tuple[Any, ...]:
        x, graph, _ = batch
        other = labelled[int(torch.randint(len(labelled), ()))][0]
        return mixed(x, other[torch.randint(len(other), (len(x),))]), graph

    def edges(batch: tuple[Any, ...]) -> tuple[Any, ...]:
        x, graph, _ = batch
        return x, Graph(dropout_edge(graph.edge_index, p=0.2)[0], len(x))

    parts = {"val": data.val, "test": data.test}
    torch.manual_seed(seed)
    return Case(
        teacher, proteins.student_of("shallow"), OutputLoss(), labelled,
        binary_cross_entropy_with_logits,
        lambda model, part: proteins.micro_f1(model.eval(), parts[part]),
        {"mixed features": features, "a fifth of the edges dropped": edges},
        {"steps": steps, "lr": 0.005},
    )  # fmt: skip


def of_shapes(seed: int, folder: Path, small: bool) -> Case:
    """Return point clouds."""
    tiny = {"points": 24, "shapes": 40, "labelled": 16, "epochs": 1, "teacher-epochs": 1}
    args = modelnet.parse(options(tiny | {"teacher-width": 4}) if small else [])
    task = modelnet.load(args)
    runs = modelnet.Experiment(args, task, Store(folder))
    runs.go("teacher", seed, runs.configs("teacher", None)[0])
    config = runs.run("student", seed, runs.configs("student", None)[0]).config

    def moved(clouds: Any) -> Any:
        sizes = clouds.batch.bincount().tolist()
        return clouds._replace(
            pos=torch.cat([MOVE(Data(pos=pos)).pos for pos in clouds.pos.split(sizes)])
        )

    def halves(clouds: Any) -> Any:
        parts = clouds.pos.split(clouds.batch.bincount().tolist())
        order = torch.randperm(len(parts)).tolist()
        both = []  # clouds of as many points, about half of them another cloud's
        for pos, j in zip(parts, order, strict=True):
            keep = torch.rand(len(pos)) < 0.5
            other = parts[j][torch.randint(len(parts[j]), (len(pos),))]
            both.append(torch.where(keep[:, None], pos, other))
        return clouds._replace(pos=torch.cat(both))

    torch.manual_seed(seed)
    labelled = task.train_batches(seed, "labelled")
    return Case(
        runs.teacher(seed)[1], modelnet.build(config, task), LogitLoss(), labelled, cross_entropy,
        lambda model, part: task.score(model, part)["acc"],
        {"rotated, scaled and jittered": moved, "half of the points another cloud's": halves},
        {"steps": config["epochs"] * len(labelled), "lr": config["lr"]}, task.unpack,
    )  # fmt: skip


def of_traffic(seed: int, folder: Path, small: bool) -> Case:
    """Return windows of traffic; the score is the error, negative."""
    tiny = {"nodes": 5, "steps": 1300, "epochs": 1, "stride": 16, "teacher-width": 8}
    args = traffic.parse(options(tiny) if small else [])
    task = traffic_task.load(args)
    rates = traffic.RATES
    config = traffic.settings(args) | dict(zip(("lr", "dropout"), rates["teacher"][0], strict=True))
    run, store = Run("teacher", seed, config), Store(folder)
    traffic.execute(run, task, store, None)
    teacher = traffic.build("teacher", task, config)
    teacher.load_state_dict(store.load_weights(run))
    windows = task.windows["train"]
    every = WindowDataset(windows.series, 12, 12, task.scaler, scale_target=True)
    place = {origin: i for i, origin in enumerate(every.origins.tolist())}
    labelled = [
        (index, *task.train_batch(index))
        for index in task.fixed_batches(config["batch_size"], seed, "labelled")
    ]

    def jittered(batch: tuple[Any, ...]) -> tuple[Any, ...]:
        index, x, y, mask = batch
        x = x.clone()
        x[..., 0] += 0.1 * torch.randn_like(x[..., 0])  # standard deviations of the readings
        return index, x, y, mask

    def shifted(batch: tuple[Any, ...]) -> tuple[Any, ...]:
        index, _, y, mask = batch
        by = torch.randint(1, args.stride, (len(index),)).tolist()
        origins = windows.origins[index].tolist()
        x = torch.stack([every[place[o + s]].x for o, s in zip(origins, by, strict=True)])
        return index, x, y, mask

    def between(batch: tuple[Any, ...]) -> tuple[Any, ...]:
        index, x, y, mask = batch
        return index, mixed(x, x[torch.randperm(len(x))]), y, mask

    def unpack(batch: tuple[Any, ...]) -> tuple[Any, dict[str, Any], Any]:
        _, x, y, mask = batch
        return (x, *task.graph), {}, (y, mask)

    torch.manual_seed(seed)
    steps = args.epochs * -(-len(windows) // args.batch_size)
    student = traffic.build("student", task, config | {"dropout": 0.0})
    return Case(
        teacher, student, OutputLoss(traffic.ERROR), labelled, traffic.observed,
        lambda model, part: -task.score(traffic.forecast(model, task, part), part)["mae/mean"],
        {"jittered": jittered, "shifted by 5 to 15 minutes": shifted, "mixed windows": between},
        {"steps": steps, "lr": rates["student"][0][0]}, unpack,
    )  # fmt: skip
