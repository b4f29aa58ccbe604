"""Distil a GraphSAGE on one large graph with several processes and sampled neighbours.

    torchrun --nproc-per-node 2 examples/distributed.py                     # CPUs, gloo
    torchrun --nproc-per-node 2 examples/distributed.py --resume            # goes on where it was
    torchrun --nproc-per-node 4 examples/distributed.py --device cuda       # GPUs, NCCL

Each process samples around its own labelled nodes; DistributedDataParallel holds the distiller.
One process writes the checkpoint; a run that was killed and resumed ends bit for bit as one that
was not (on CPUs). Sampling needs pyg-lib or torch-sparse.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE
from torch_geometric.utils import to_undirected
from tqdm import tqdm

from pyg_stkd import Distiller
from pyg_stkd.distill import LogitLoss, LSPLoss
from pyg_stkd.files import write_atomic
from pyg_stkd.kernels import Cosine

CLASSES, FEATURES = 8, 32


def make_graph(num_nodes: int) -> Data:
    """Draw communities with noisy features; a tenth of the nodes is labelled for training."""
    torch.manual_seed(0)
    y = torch.arange(num_nodes) % CLASSES
    source, far = torch.randint(num_nodes, (2, 8 * num_nodes))
    near = torch.randint(num_nodes // CLASSES, source.shape) * CLASSES + y[source]
    target = torch.where(torch.rand(source.shape) < 0.7, near, far)
    edge_index = to_undirected(torch.stack([source, target]))
    x = torch.randn(CLASSES, FEATURES)[y] + 4 * torch.randn(len(y), FEATURES)
    order = torch.randperm(len(y))
    train, test = order[: len(y) // 10], order[-len(y) // 4 :]
    return Data(x=x, edge_index=edge_index, y=y, train=train, test=test)


def train_teacher(data: Data, steps: int) -> GraphSAGE:
    """Train on the whole graph, alike in every process."""
    torch.manual_seed(1)
    teacher = GraphSAGE(FEATURES, 64, 2, CLASSES).to(data.x.device)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(teacher(data.x, data.edge_index)[data.train], data.y[data.train]).backward()
        optimizer.step()
    return teacher.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--teacher-steps", type=int, default=40)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/distributed"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-at", type=int, help="kill the last process in this epoch (a drill)")
    args = parser.parse_args()
    dist.init_process_group("nccl" if args.device == "cuda" else "gloo")
    distil(args)  # the model is gone before its group: gloo may hang for ever otherwise
    dist.destroy_process_group()


def distil(args: argparse.Namespace) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cpu" if args.device == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}")
    data = make_graph(args.nodes)
    teacher = train_teacher(data.clone().to(device), args.teacher_steps)
    torch.manual_seed(2)
    student = GraphSAGE(FEATURES, 8, 2, CLASSES, dropout=0.1).to(device)
    losses = [LogitLoss(), LSPLoss("convs.0", "convs.0", Cosine(), weight=10.0)]
    distiller = DistributedDataParallel(Distiller(teacher, student, losses).to(device))
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.01)
    path, first = args.out / "checkpoint.pt", 0
    own = {"distiller": distiller.module, "optimizer": optimizer}
    if args.resume:
        kept = torch.load(path, weights_only=True, map_location=device)
        first = kept["epoch"]
        for name, of in own.items():
            of.load_state_dict(kept[name])
    mine = data.train[: len(data.train) // world * world][rank::world]  # as many steps everywhere
    loader = NeighborLoader(data, [10, 5], input_nodes=mine, batch_size=128, shuffle=True)
    for epoch in tqdm(range(first, args.epochs), disable=rank != 0):
        # Sampling and dropout of an epoch follow from its number: nothing else need be kept.
        torch.manual_seed(1000 * epoch + rank)
        distiller.train()
        for step, batch in enumerate(loader):
            if args.die_at == epoch and step == 1 and rank == world - 1:
                os._exit(1)
            batch = batch.to(device)
            seeds = torch.arange(batch.batch_size, device=device)
            out, terms = distiller(batch.x, batch.edge_index, nodes=seeds)
            optimizer.zero_grad()
            (F.cross_entropy(out[seeds], batch.y[seeds]) + sum(terms.values())).backward()
            optimizer.step()
        if rank == 0:  # the others wait in the next epoch's first step
            kept = {name: of.state_dict() for name, of in own.items()} | {"epoch": epoch + 1}
            write_atomic(path, lambda file, kept=kept: torch.save(kept, file))
    data = data.to(device)
    for name, model in (("teacher", teacher), ("student", student.eval())) if rank == 0 else ():
        right = model(data.x, data.edge_index).argmax(-1) == data.y
        size, score = sum(p.numel() for p in model.parameters()), right[data.test].float().mean()
        print(f"{name}: {size:,} parameters, accuracy {100 * score:.1f} %")


if __name__ == "__main__":
    main()
