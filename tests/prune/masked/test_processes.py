"""Tests of pyg_stkd/prune/masked/processes.py: what the processes agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GCN

from pyg_stkd.prune import KDIS, Magnitude, Pruner, Random
from pyg_stkd.prune.masked.processes import (
    average,
    check_same,
    first,
    gathered,
    several,
    summed,
    together,
)


def gcn(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return GCN(5, width, 3, 3)


def losses(model: nn.Module, rank: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(rank)
    for _ in range(2):
        x = torch.randn(20, 5, generator=random)
        edge_index = torch.randint(0, 20, (2, 80), generator=random)
        y = torch.randint(0, 3, (20,), generator=random)
        yield F.cross_entropy(model(x, edge_index), y)


def agree(content: Any) -> bool:
    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)

    return all(same(content, other) for other in gathered(content))


def keep_the_same(rank: int) -> None:
    world = len(gathered(rank))
    # The scores are the means over the processes.
    model = gcn()
    pruner = Pruner(model, KDIS(), keep=(0.6, 0.3))
    report = pruner.step(losses(model, rank))
    assert agree(report.widths)
    assert agree(pruner.state_dict()["kept"])
    scores = [KDIS().score(dict(model.named_parameters()), losses(model, r)) for r in range(world)]
    assert not all(torch.equal(scores[0][n], scores[1][n]) for n in scores[0])
    alone = gcn()
    expected: dict[str, Any] = {}

    class Known(Magnitude):
        def score(self, weights: Any, _: Any) -> Any:
            if not expected:
                each = [KDIS().score(weights, losses(alone, r)) for r in range(world)]
                expected.update({n: sum(s[n] for s in each) / world for n in weights})
            return expected

    known = Pruner(alone, Known(), keep=(0.6, 0.3))
    known.step()
    assert agree(known.widths)
    for name, kept in known.state_dict()["kept"].items():
        assert torch.equal(kept, pruner.state_dict()["kept"][name])
    pruner.shrink()
    pruner.step(losses(model, rank))
    assert agree({n: p.shape for n, p in model.named_parameters()})


def decide_as_the_first(rank: int) -> None:
    torch.manual_seed(rank)
    for granularity in ("channel", "weight"):
        model = gcn()
        torch.manual_seed(rank)  # other random numbers in each process
        pruner = Pruner(model, Random(), granularity, keep=0.5)
        pruner.step()
        assert agree(pruner.state_dict()["kept"])
    # Costs are measured, and never twice the same.
    pruner = Pruner(gcn(), Magnitude(), keep=0.5, budget=lambda m: size(m) * (1 + 0.4 * rank))
    costly = Pruner(gcn(), Magnitude(), keep=0.5, budget=lambda m: size(m) + 300 * rank)
    for one in (pruner, costly):
        one.step()
        assert agree(one.spent)
        assert agree(one.state_dict()["kept"])


class Own(nn.Module):
    """Followed on an example: there is no rule for its class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Linear(5, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)).relu())


def follow_the_same(rank: int) -> None:
    torch.manual_seed(rank)
    example = (torch.randn(4 + rank, 5),)  # each process has its own
    model = Own()
    torch.manual_seed(rank)
    pruner = Pruner(model, KDIS(), keep=(0.7, 0.5), example=example)
    for _ in range(2):
        pruner.step(model(torch.randn(6, 5)).square().sum() for _ in range(2))
        assert agree(pruner.state_dict()["kept"])
        pruner.shrink()
        assert agree({n: tuple(p.shape) for n, p in model.named_parameters()})
    assert agree(pruner.widths)


def fail_together(rank: int) -> None:
    model = gcn()
    pruner = Pruner(model, KDIS(), keep=0.5)
    error, message = (
        (ValueError, "'losses' must be finite")
        if rank == 1
        else (RuntimeError, "Process 1 has failed, and no other can go on without it")
    )
    with pytest.raises(error, match=message):
        pruner.step(loss * (float("nan") if rank == 1 else 1.0) for loss in losses(model, rank))
    assert pruner.share == 1
    other = Pruner(gcn(16 + rank), Magnitude(), keep=0.5)
    with pytest.raises(RuntimeError, match=r"All processes must have the same model and 'keep' \("):
        other.step()
    assert other.share == 1
    with pytest.raises(RuntimeError, match="the same model and 'keep'"):
        Pruner(gcn(), Magnitude(), keep=0.5 - 0.1 * rank).step()


def helpers(rank: int) -> None:
    world = len(gathered(None))
    assert several()
    assert gathered(rank) == [*range(world)]
    assert first(rank) == 0
    assert first(torch.full((2,), rank)).tolist() == [0, 0]
    assert summed(torch.tensor([rank, 1])).tolist() == [sum(range(world)), world]
    half = torch.full((3,), 0.1 * (rank + 1), dtype=torch.float16)
    assert summed(half).dtype == torch.float16
    mean = average({"a": half})["a"]
    assert mean.sum().item() == pytest.approx(0.3 * (world + 1) / 2, rel=1e-2)
    check_same("x", lambda: {"a": [torch.ones(2), (1, None)], "b": {}})
    for odd in ({"a": torch.ones(2) * rank}, [rank], {rank: 1}, torch.ones(2 + rank)):
        with pytest.raises(RuntimeError, match=r"the same thing \(got the hashes \w{8}, \w{8}"):
            check_same("thing", lambda odd=odd: odd)
    with together():
        pass


def size(model: nn.Module) -> float:
    return float(sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "work", [keep_the_same, decide_as_the_first, follow_the_same, fail_together, helpers]
)
def test_processes_agree(in_processes: Any, count: int, work: Any) -> None:
    in_processes(count, work)


def test_one_process_agrees_with_itself() -> None:
    x = torch.ones(2)
    assert not several()
    assert summed(x) is x
    assert first(x) is x
    assert average({"a": x})["a"] is x
    assert gathered(x)[0] is x
    check_same("x", pytest.fail)  # is not looked at
    with pytest.raises(KeyError), together():
        raise KeyError("x")
