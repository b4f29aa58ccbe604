"""Prune a model of one's own to a quarter, and export it.

The class below knows nothing of pruning: its channels are followed as it runs once. What comes out
is a smaller model of the same class, and with --onnx (the extra "export") an ONNX file.

    python examples/prune_and_export.py --folder small
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, SAGEConv

from pyg_stkd.datasets import SyntheticProteins
from pyg_stkd.prune import KDIS, Pruner
from pyg_stkd.testing import assert_exports, assert_masked_equals_compacted


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(50, 64), nn.Linear(128, 121)
        self.conv1, self.conv2 = SAGEConv(64, 64), GCNConv(64, 64)
        self.norm = nn.LayerNorm(64)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.enter(x).relu()
        x = x + self.norm(self.conv1(x, edge_index)).relu()
        return self.leave(torch.cat([x, self.conv2(x, edge_index).relu()], dim=-1))


def losses(model: nn.Module, graphs: list[Data]) -> Iterator[Tensor]:
    for graph in graphs:
        yield binary_cross_entropy_with_logits(model(graph.x, graph.edge_index), graph.y.float())


def train(model: nn.Module, graphs: list[Data]) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for loss in losses(model.train(), graphs):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(folder: Path, epochs: int = 20, onnx: bool = False) -> nn.Module:
    torch.manual_seed(0)
    graphs, test = (list(SyntheticProteins(split, scale=0.05)) for split in ("train", "test"))
    inputs, other = ((graph.x, graph.edge_index) for graph in graphs[:2])
    model = Net()
    pruner = Pruner(model, KDIS(), keep=(0.5, 0.25), example=inputs)
    for share in (1.0, *pruner.keep):
        if share < 1:
            pruner.step(losses(model, graphs))
        train(model, epochs * graphs)  # under the masks: what was dropped stays 0
        error = sum(losses(model.eval(), test)).item() / len(test)
        print(f"{pruner.num_parameters:6,} parameters ({pruner.share:.0%}): test loss {error:.3f}")

    # Each raises where something differs: the masked model, the small one, the program of it.
    small = assert_masked_equals_compacted(pruner, *inputs)
    sizes = ({0: Dim("N")}, {1: Dim("E")})  # any number of nodes and edges
    program = assert_exports(small, inputs, other, dynamic_shapes=sizes, onnx=onnx)
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / "small.pt2")
    if onnx:
        torch.onnx.export(program, dynamo=True, verbose=False).save(folder / "small.onnx")
    print(f"The small model gives the masked one's outputs, and is in {folder / 'small.pt2'}")
    return small


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--onnx", action="store_true")
    main(**vars(parser.parse_args()))
