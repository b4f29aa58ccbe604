"""What it costs to follow a model, to compare it, and to take a step.

    python benchmarks/pruner.py

A net of one's own around this package's DGCNN and STGCN is followed on its example; the constructor
compares it too, unless `verify=False`. Both are counted in forwards of the net in eval mode on the
same example, in float32. Steps are those of models of 12 million parameters, less the time of the
scores (`Magnitude`): the first step of a model with an example compares masked with compacted.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from harness import interleave, write
from torch import Tensor, nn
from torch_geometric.nn import GCN

from pyg_stkd.nn import DGCNN, STGCN
from pyg_stkd.prune import Magnitude, Pruner, Random


class Clouds(nn.Module):
    """A DGCNN and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = DGCNN(3, 64), nn.Linear(64, 10)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        return self.head(self.body(pos, batch).relu())


class Traffic(nn.Module):
    """The teacher's STGCN and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = STGCN(1, [(64, 16, 64)] * 2, 64), nn.Linear(64, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.body(x, edge_index).transpose(1, 2).relu())


class Deep(nn.Module):
    """A GCN of a hundred layers, or of a few wide ones, and a linear layer."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.body, self.head = GCN(64, width, layers, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.body(x, edge_index).relu())


class Timed(Magnitude):
    """A score that knows its own time."""

    seconds = 0.0

    def score(self, weights: Mapping[str, Tensor], losses: Iterable[Tensor] | None) -> Any:
        start = time.process_time()
        scores = super().score(weights, losses)
        self.seconds = time.process_time() - start
        return scores


def mlp() -> nn.Module:
    widths = [64, 2400, 2400, 2400]
    layers = [layer for i, o in pairwise(widths) for layer in (nn.Linear(i, o), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(2400, 10))


def followed() -> dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]]:
    """Return how to make each net that is followed, and its example."""
    clouds = torch.randn(4 * 256, 3), torch.arange(4).repeat_interleave(256)
    traffic = torch.randn(8, 12, 170, 1), torch.randint(170, (2, 8 * 170))
    return {
        "DGCNN in a net, 4 clouds of 256 points": (Clouds, clouds),
        "STGCN in a net, 8 windows of 170 nodes": (Traffic, traffic),
        "STGCN in a net, 1 window of 24 nodes": (
            Traffic,
            (traffic[0][:1, :, :24], torch.randint(24, (2, 72))),
        ),
    }


def stepped() -> dict[str, tuple[Callable[[], nn.Module], Any]]:
    """Return how to make each model of 12 million parameters, and its example or none."""
    x, edge_index = torch.randn(20, 64), torch.randint(20, (2, 60))
    return {
        "MLP 64, 3 x 2400, 10; no example": (mlp, None),
        "the same; 20 rows": (mlp, (x,)),
        "GCN, 100 x 345; 20 nodes": (lambda: Deep(345, 100), (x, edge_index)),
        "GCN, 5 x 2000; 20 nodes": (lambda: Deep(2000, 5), (x, edge_index)),
    }


def follow(repeats: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Time following and constructing in turn with forwards."""
    rows, raw = [], {}
    for name, (build, example) in followed().items():
        model = build().eval()
        copies = [copy.deepcopy(model) for _ in range(2)]

        def forward(model: nn.Module = model, example: Any = example) -> None:
            with torch.no_grad():
                for _ in range(4):
                    model(*example)

        def construct(verify: bool, model: nn.Module, example: Any = example) -> Callable[[], Any]:
            return lambda: Pruner(model, Random(0), keep=0.5, example=example, verify=verify)

        calls = {"forward": forward, "following": construct(False, copies[0])}
        calls["constructor"] = construct(True, copies[1])
        times = {key: value["cpu"] for key, value in interleave(calls, repeats, 1).items()}
        times["forward"] = [seconds / 4 for seconds in times["forward"]]
        raw[name] = times
        base = statistics.median(times["forward"])
        row = {"model": name, "forward": f"{1e3 * base:.1f} ms"}
        for key in ("following", "constructor"):
            row[key] = f"{statistics.median(times[key]) / base:.1f} forwards"
        rows.append(row)
        print(row, flush=True)
    return rows, raw


def step(repeats: int) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Time the first and the second step of new models."""
    rows, raw = [], {}
    for name, (build, example) in stepped().items():
        seconds: list[list[float]] = [[], []]
        for _ in range(repeats):
            score = Timed()
            pruner = Pruner(build(), score, keep=(0.4, 0.15), example=example)
            for each in seconds:
                start = time.process_time()
                pruner.step()
                each.append(time.process_time() - start - score.seconds)
                pruner.shrink()
        raw[name] = dict(zip(("first", "second"), seconds, strict=True))
        row = {"model": name, "parameters": f"{sum(p.numel() for p in build().parameters()):,}"}
        for key, each in raw[name].items():
            row[f"{key} step"] = f"{statistics.median(each):.2f} s"
        rows.append(row)
        print(row, flush=True)
    return rows, raw


def main() -> None:
    """Time all, print the tables, and write them with --write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    (rows, raw), (steps, raw_steps) = follow(options.repeats), step(options.repeats)
    if options.write:
        note = (
            __doc__.partition("\n\n    python")[2].partition("\n\n")[2].replace("\n", " ").strip()
        )
        write("pruner", [*rows, *steps], raw | raw_steps, note)


if __name__ == "__main__":
    main()
