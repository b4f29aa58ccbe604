"""Distil a graph attention network into one with a twelfth of its parameters.

Each protein of an interaction graph has any of 121 functions. The teacher was trained on 20 graphs
with labels; for the student there are labels of three, and 60 graphs without.

    python examples/distil_gat.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stkd import Distiller
from pyg_stkd.datasets import SyntheticProteins
from pyg_stkd.distill import fit
from pyg_stkd.nn import GAT


@torch.no_grad()
def micro_f1(model: nn.Module, graphs: list[Data]) -> float:
    model.eval()
    out = torch.cat([model(graph.x, graph.edge_index) for graph in graphs]) > 0
    y = torch.cat([graph.y for graph in graphs]) > 0
    return float(2 * (out & y).sum() / (out.sum() + y.sum()))


def criterion(out: Tensor, y: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(out, y.float())


def main(steps: int = 1000, scale: float = 0.1) -> dict[str, float]:
    """Return the F1 on graphs that no model saw."""
    torch.manual_seed(0)
    labelled, val, test = (list(SyntheticProteins(s, scale)) for s in ("train", "val", "test"))
    unlabelled = list(SyntheticProteins("extra", scale, num_graphs=60))
    teacher = GAT(50, 64, 121, num_layers=3, heads=4)
    alone, student = (GAT(50, 8, 121, num_layers=2, heads=4) for _ in range(2))

    def train(distiller: Distiller, graphs: list[Data], others: list[Data] | None = None) -> None:
        """Train by one schedule; the weights that are best on validation graphs are kept."""
        for epoch in fit(
            distiller, graphs, others, criterion=criterion, steps=steps, mode="max",
            validate=lambda model: micro_f1(model, val), every=max(1, steps // 5),
        ):  # fmt: skip
            print(f"step {epoch.step}: F1 {epoch.metric:.3f} on validation graphs")

    # Without losses a distiller asks nobody; without losses of its own, and with a teacher, it
    # compares what both models return, as numbers.
    train(Distiller(nn.Identity(), teacher, []), labelled)
    train(Distiller(nn.Identity(), alone, []), labelled[:3])
    train(Distiller(teacher, student), labelled[:3], unlabelled)

    models = {"teacher": teacher, "student, labels alone": alone, "student, distilled": student}
    scores = {name: micro_f1(model, test) for name, model in models.items()}
    for name, model in models.items():
        size = sum(p.numel() for p in model.parameters())
        print(f"{name:22} {size:7,} parameters   F1 {scores[name]:.3f}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    main(parser.parse_args().steps)
