"""Models that are called step by step, alone and under DistributedDataParallel."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pyg_stkd import Distiller
from pyg_stkd.distill import HintLoss, OutputLoss, Unrolled


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, width), nn.Linear(width, 2)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return self.head(h), h


def step(model: nn.Module, x: Tensor, h: Tensor | None) -> Any:
    return model(x, h)


def build(call: Any = None) -> Distiller:
    torch.manual_seed(0)
    hint = HintLoss("cell", "cell", in_channels=4, out_channels=6, call="all")
    return Distiller(Net(6), Net(4), [OutputLoss(), hint], call=call)


def sequence(rank: int = 0) -> Tensor:
    return torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(rank))  # [T, N, C]


def test_as_call_it_is_what_unroll_does() -> None:
    out, losses = build(Unrolled(step))(sequence())
    expected, values = build().unroll(step, sequence())
    assert torch.equal(out, expected)
    assert out.shape == (5, 7, 2)
    assert losses.keys() == values.keys()
    assert all(torch.equal(losses[name], values[name]) for name in losses)


def test_outputs() -> None:
    counted = Unrolled(lambda model, x, state: (model(x), (state or 0) + 1))
    given = [torch.ones(2), torch.ones(3)]
    assert [x.shape for x in counted(nn.ReLU(), given)] == [(2,), (3,)]
    assert Unrolled(step)(Net(4), []) == []


def test_what_is_no_step() -> None:
    with pytest.raises(TypeError, match=r"'step' must be a function \(model, x, state\) \(got 3\)"):
        Unrolled(3)  # type: ignore[arg-type]


def test_unroll_does_not_train_past_what_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyg_stkd.distill.distiller.several_processes", lambda: True)
    match = (
        r"'unroll' must not train under torch.distributed.*Distiller\(..., call=Unrolled\(step\)"
    )
    with pytest.raises(RuntimeError, match=match):
        build().unroll(step, sequence())
    with torch.no_grad():
        assert build().unroll(step, sequence())[0].shape == (5, 7, 2)


def gradients(distiller: Distiller, model: nn.Module, x: Tensor) -> list[Tensor]:
    distiller.zero_grad()
    out, losses = model(x)
    (out.square().mean() + sum(losses.values())).backward()
    return [p.grad.clone() for p in distiller.parameters() if p.grad is not None]


def work(rank: int, size: int, port: int) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    try:
        distiller = build(Unrolled(step))
        model = DistributedDataParallel(distiller)
        grads = gradients(distiller, model, sequence(rank))
        del model  # before its group: gloo may hang for ever otherwise
    finally:
        dist.destroy_process_group()
    alone = build(Unrolled(step))
    each = [gradients(alone, alone, sequence(other)) for other in range(size)]
    assert len(grads) == len(each[0]) > 0
    for grad, *parts in zip(grads, *each, strict=True):
        torch.testing.assert_close(grad, sum(parts) / size)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_one_process() -> None:
    work(0, 1, free_port())


@pytest.mark.full
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_two_processes() -> None:
    mp.spawn(work, args=(2, free_port()), nprocs=2)
