"""Distil a forecaster of traffic (STGCN) into one with a thirtieth of its parameters.

An hour of speeds on 24 roads is the input, the next hour is to be forecast. Beside the readings the
student learns from the teacher's forecasts, and from how it relates places and times (STCD).

    python examples/distil_stgcn.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from pyg_stkd import Distiller
from pyg_stkd.datasets import StandardScaler, SyntheticTraffic, TrafficSeries, WindowDataset
from pyg_stkd.distill import STCDLoss, fit
from pyg_stkd.nn import STGCN

Batches = list[tuple[Tensor, ...]]  # inputs [B, T, N, C], edges, weights, targets [B, T, N]


def batches(part: TrafficSeries, scaler: StandardScaler, size: int) -> Batches:
    loader = DataLoader(WindowDataset(part, 12, 12, scaler, scale_target=True), size, shuffle=True)
    return [(window.x, part.edge_index, part.edge_weight, window.y) for window in loader]


def mae(out: Tensor, y: Tensor) -> Tensor:
    return (out - y)[~y.isnan()].abs().mean()  # where there was a reading


@torch.no_grad()
def error(model: nn.Module, given: Batches) -> float:
    return float(torch.stack([mae(model.eval()(*inputs), y) for *inputs, y in given]).mean())


def train(model: nn.Module, given: Batches, steps: int) -> None:
    """Train on readings alone, as ever; the rate falls as it does in fit."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        *inputs, y = given[step % len(given)]
        mae(model.train()(*inputs), y).backward()
        optimizer.step()
        schedule.step()


def main(steps: int = 300, num_steps: int = 1440) -> dict[str, float]:
    """Return the errors on the last fifth of the time, in miles an hour."""
    torch.manual_seed(0)
    parts = SyntheticTraffic(num_nodes=24, num_steps=num_steps).split(0.7, 0.1, 0.2)
    scaler = StandardScaler.fit(parts[0])
    given, val, test = (batches(part, scaler, size=32) for part in parts)

    teacher = STGCN(1, 32, 12, temporal_channels=32, head_channels=64)
    alone, student = (STGCN(1, 4, 12, temporal_channels=6, head_channels=8) for _ in range(2))
    train(teacher, given, steps)
    train(alone, given, steps)

    # 'blocks.1' is the name of a layer, as named_modules() gives it; widths may differ.
    distiller = Distiller(teacher, student, STCDLoss("blocks.1", "blocks.1"))
    how = {"validate": lambda model: error(model, val), "every": max(1, steps // 5)}
    for epoch in fit(distiller, given, criterion=mae, steps=steps, **how):
        print(f"step {epoch.step}:", *(f"{k} {v:.3f}" for k, v in epoch.losses.items()))

    models = {"teacher": teacher, "student, labels alone": alone, "student, distilled": student}
    scores = {name: float(scaler.std[0]) * error(model, test) for name, model in models.items()}
    for name, model in models.items():
        size = sum(p.numel() for p in model.parameters())
        print(f"{name:22} {size:7,} parameters   error {scores[name]:.2f} mph")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    main(parser.parse_args().steps)
