"""Losses of several processes are those of one process on the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.nn import GCN

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    AttentionTransferLoss,
    HintLoss,
    LogitLoss,
    LSPLoss,
    OutputLoss,
    SoftTargetLoss,
    global_mean,
)
from pyg_stkd.distill.global_mean import share_of_process

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed"),
]

# Nodes and edges of each rank: few and many, without edges, without nodes.
SIZES = [(4, 9), (40, 200), (3, 0), (0, 0)]


def build() -> Distiller:
    torch.manual_seed(0)
    losses = [
        LogitLoss(),
        SoftTargetLoss(name="kd"),
        OutputLoss("mae", name="mae"),
        HintLoss("convs.0", "convs.0", projection=False),
        AttentionTransferLoss("convs.0", "convs.0"),
        LSPLoss("convs.0", "convs.0", kernels.Cosine(), name="lsp"),
        LSPLoss.efficient_gnns("convs.1", "convs.1", name="by edge"),
    ]
    return Distiller(GCN(5, 8, 2, 3), GCN(5, 8, 2, 3), losses).double()


def graph_of(rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The features, edges, chosen nodes and labels of a rank."""
    num_nodes, num_edges = SIZES[rank]
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=torch.float64)
    edge_index = torch.randint(max(1, num_nodes), (2, num_edges), generator=generator)
    y = torch.randint(3, (num_nodes,), generator=generator)
    return x, edge_index, torch.arange(0, num_nodes, 3), y


def gradients(distiller, model, x, edge_index, nodes, y, batch) -> dict[str, Tensor]:
    distiller.zero_grad()
    out, losses = model(x, edge_index, nodes=nodes, batch=batch)
    task = torch.nn.functional.cross_entropy(out[nodes], y[nodes], reduction="sum")
    (global_mean(task, len(nodes)) + sum(losses.values())).backward()
    return {name: p.grad.clone() for name, p in distiller.named_parameters()}


def work() -> None:
    """Compare the gradients of all ranks with those of one process; run by torchrun."""
    torch.set_num_threads(1)
    parts = [graph_of(rank) for rank in range(int(os.environ["WORLD_SIZE"]))]
    sizes = torch.tensor([len(part[0]) for part in parts])
    starts = sizes.cumsum(0) - sizes
    each = list(zip(parts, starts, strict=True))
    whole = (
        torch.cat([part[0] for part in parts]),
        torch.cat([part[1] + start for part, start in each], dim=1),
        torch.cat([part[2] + start for part, start in each]),
        torch.cat([part[3] for part in parts]),
        torch.arange(len(parts)).repeat_interleave(sizes),
    )
    alone = build()
    expected = gradients(alone, alone, *whole)  # before there is a process group
    dist.init_process_group("gloo")
    try:
        distiller = build()
        batch = torch.zeros(len(parts[dist.get_rank()][0]), dtype=torch.long)
        model = DistributedDataParallel(distiller)
        found = gradients(distiller, model, *parts[dist.get_rank()], batch)
        for name, grad in expected.items():
            torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-9, msg=name)
        # Without gradients no process waits for another.
        if dist.get_rank() == 0:
            with torch.no_grad():
                distiller(*whole[:2])
        # As it was: each process counts the same.
        distiller.reduction = "process"
        found = gradients(distiller, distiller, *parts[0], torch.zeros(4, dtype=torch.long))
        assert not all(torch.allclose(found[name], expected[name]) for name in expected)
        del model  # before its group: gloo may hang for ever otherwise
        dist.barrier()  # no process leaves before the others have ended
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    "size", [2, pytest.param(3, marks=pytest.mark.full), pytest.param(4, marks=pytest.mark.full)]
)
def test_ranks_of_unlike_sizes(size: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    root = Path(__file__).parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    result = subprocess.run(
        [*command, f"--nproc-per-node={size}", __file__],
        capture_output=True, text=True, env=env, check=False, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_without_a_process_group() -> None:
    error = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    mean = global_mean(error.sum(), torch.tensor(3))
    mean.backward()
    torch.testing.assert_close((mean, error.grad), (torch.tensor(3.0), torch.full((3,), 1 / 3)))
    assert global_mean(error.new_zeros(()), 0) == 0
    assert share_of_process(5, torch.device("cpu")) == 1
    with pytest.raises(ValueError, match=r"'total' must be a scalar \(got shape \[3\]\)"):
        global_mean(error, 3)


def test_the_reduction_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="'reduction' must be"):
        Distiller(GCN(5, 8, 2, 3), GCN(5, 8, 2, 3), reduction="mean")


@pytest.mark.parametrize("nodes", [None, torch.tensor([0, 3])])
def test_counts_are_the_terms_of_the_means(nodes: Tensor | None) -> None:
    """A loss times its count adds up over disjoint graphs, as a sum of terms does."""
    distiller = build()
    teacher = distiller.teacher.requires_grad_(False)
    counts = {}
    for name, loss in distiller.losses.items():
        seen = {}

        def look(student, teacher, target=None, loss=loss, seen=seen):
            seen["count"] = loss.count(student, teacher, target)
            return type(loss).forward(loss, student, teacher, target)

        loss.forward = look
        x, edge_index, _, _ = graph_of(0)
        distiller(x, edge_index, nodes=nodes)
        counts[name] = seen["count"]
        del loss.forward
    assert teacher is not None
    rows = 4 if nodes is None else 2
    inside = edge_index[1]
    edges = len(inside) if nodes is None else int(torch.isin(inside, nodes).sum())
    assert counts == {
        "logit": rows, "kd": rows, "mae": rows, "hint": rows, "lsp": rows,
        "attention_transfer": 1, "by edge": edges,
    }  # fmt: skip


if __name__ == "__main__":
    work()
