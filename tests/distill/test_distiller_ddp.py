"""The whole distiller under DistributedDataParallel."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.nn import GCN

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import HintLoss, LSPLoss, SoftTargetLoss, until_epoch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed"),
]

EDGES = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 1]])


def build():
    torch.manual_seed(0)
    losses = [
        SoftTargetLoss(),
        HintLoss("convs.0", "convs.0", schedule=until_epoch(1)),
        LSPLoss("convs.0", "convs.0", kernels.Cosine()),
    ]
    distiller = Distiller(GCN(5, 8, 2, 3), GCN(5, 4, 2, 3), losses)
    distiller.check(torch.ones(4, 5), EDGES)
    return distiller


def inputs(rank):
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(rank))


def gradients(distiller, model, x):
    distiller.zero_grad()
    out, losses = model(x, EDGES)
    (out.square().mean() + sum(losses.values())).backward()
    return [p.grad.clone() for p in distiller.parameters()]


def work(rank, size, port):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    try:
        compare(rank, size)
    finally:
        dist.destroy_process_group()  # after the model: gloo may hang for ever otherwise


def compare(rank, size):
    distiller, alone = build(), build()
    model = DistributedDataParallel(distiller)
    for epoch in range(3):  # the adapter's loss rests from epoch 1 on
        distiller.set_epoch(epoch)
        alone.set_epoch(epoch)
        grads = gradients(distiller, model, inputs(rank))
        each = [gradients(alone, alone, inputs(r)) for r in range(size)]
        for grad, *parts in zip(grads, *each, strict=True):
            torch.testing.assert_close(grad, sum(parts) / size)
    own = {id(p) for p in distiller.teacher.parameters()}
    assert not own & {id(p) for p in model.parameters()}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_one_process():
    work(0, 1, free_port())


@pytest.mark.full
def test_two_processes():
    mp.spawn(work, args=(2, free_port()), nprocs=2)
