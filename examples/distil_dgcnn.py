"""Distil a dynamic graph network for point clouds into one with a sixteenth of its parameters.

Ten kinds of solids, seen from one side as 64 points each. The graph of neighbours is built anew in
every layer, from features; a loss on local structures takes it from the layer that it is on.

    python examples/distil_dgcnn.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from pyg_stkd import Distiller
from pyg_stkd.datasets import SyntheticShapes
from pyg_stkd.distill import LSPLoss, OutputLoss, fit
from pyg_stkd.kernels import RBF
from pyg_stkd.nn import DGCNN

Batches = list[tuple[Tensor, Tensor, Tensor]]  # points, the cloud of each, the class of each cloud


def batches(train: bool, num_shapes: int) -> Batches:
    shapes = SyntheticShapes(train, num_shapes, points=64, seed=1)
    return [(data.pos, data.batch, data.y) for data in DataLoader(list(shapes), 20, shuffle=train)]


@torch.no_grad()
def accuracy(model: nn.Module, given: Batches) -> float:
    model.eval()
    right = [(model(pos, batch).argmax(-1) == y).float() for pos, batch, y in given]
    return float(torch.cat(right).mean())


def train(model: nn.Module, given: Batches, steps: int) -> None:
    """Train on labels alone, as ever; the rate falls as it does in fit."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        pos, batch, y = given[step % len(given)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(pos, batch), y).backward()
        optimizer.step()
        schedule.step()


def main(steps: int = 300, num_shapes: int = 600) -> dict[str, float]:
    """Return the accuracies on shapes that no model saw."""
    torch.manual_seed(0)
    given, test = batches(True, num_shapes), batches(False, num_shapes // 3)
    few = given[: max(1, len(given) // 10)]  # the student has labels of a tenth

    teacher = DGCNN(3, 10, (32, 32, 64, 128), (64,), k=10)
    alone, student = (DGCNN(3, 10, (8, 16, 32), (16,), k=10, dropout=0.0) for _ in range(2))
    train(teacher, given, steps)
    train(alone, few, steps)

    losses = [OutputLoss(), LSPLoss("convs.1", "convs.0", kernel=RBF(sigma="median"))]
    epochs = fit(
        Distiller(teacher, student, losses), few, given, criterion=nn.functional.cross_entropy,
        validate=None, steps=steps, every=max(1, steps // 5),
    )  # fmt: skip
    for epoch in epochs:
        print(f"step {epoch.step}:", *(f"{k} {v:.3f}" for k, v in epoch.unlabelled.items()))

    models = {"teacher": teacher, "student, labels alone": alone, "student, distilled": student}
    scores = {name: accuracy(model, test) for name, model in models.items()}
    for name, model in models.items():
        size = sum(p.numel() for p in model.parameters())
        print(f"{name:22} {size:7,} parameters   accuracy {scores[name]:.1%}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    main(parser.parse_args().steps)
