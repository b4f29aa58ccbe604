"""Random nets: whatever is pruned equals what is masked, on the example and on other inputs."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import (
    GATv2Conv,
    GCNConv,
    GINConv,
    GraphNorm,
    MessagePassing,
    SAGEConv,
    TransformerConv,
    global_mean_pool,
)

from pyg_stkd.prune import Pruner, Random

NODES, EDGES, CHANNELS = 14, 40, 6
GRAPHS = torch.arange(NODES) // 7

# Of one tensor; some treat each channel by itself, others mix them in ways that zeros leave alone,
# or do not leave alone.
ONE: list[Callable[[Tensor], Tensor]] = [
    torch.relu,
    torch.sigmoid,
    torch.cos,
    F.softplus,
    torch.sign,
    lambda x: 1 - x,
    lambda x: x.clone().relu_().mul_(2).add_(0.1),
    lambda x: torch.where(x > 0, x, 0.1 * x + 0.2),
    lambda x: (x > 0).to(x) * x,
    lambda x: x.mean(0, keepdim=True).expand_as(x) * x,
    lambda x: global_mean_pool(x, GRAPHS)[GRAPHS],
    lambda x: torch.stack([x, x.relu()], 0).mean(0),
    lambda x: (x.unsqueeze(1) * torch.ones(1, 3, 1).to(x)).sum(1),
    lambda x: x.flip(-1),
    lambda x: x.roll(1, -1),
    lambda x: x.sort(-1).values,
    lambda x: x.cumsum(-1),
    lambda x: x.softmax(-1),
    lambda x: x - x.mean(-1, keepdim=True),
    lambda x: x - x.amax(-1, keepdim=True),
    lambda x: x / (1e-3 + x.norm(dim=-1, keepdim=True)),
    lambda x: x / x.size(-1) ** 0.5,
    lambda x: x * torch.tanh((x * x.flip(0)).sum(-1, keepdim=True)),
    lambda x: x * torch.exp(-torch.cdist(x, x)).sum(-1, keepdim=True),
    lambda x: x * (x.sum(-1).argsort() < 7).to(x).unsqueeze(-1),
    lambda x: sum(x.unbind(-1)).unsqueeze(-1) * x,
    lambda x: x.view(NODES, 2, -1).transpose(1, 2).reshape(NODES, -1),
    lambda x: (x.view(NODES, 2, -1) * x.view(NODES, 2, -1).sum(-1, keepdim=True)).flatten(1),
    lambda x: torch.cat([x, x.new_zeros(x.size(0), x.size(1))], -1)[:, : x.size(1)],
]
HALVES: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.chunk(2, -1)[1],
    lambda x: F.glu(x, -1),
    lambda x: x[:, : x.size(1) // 2],
    lambda x: x[:, ::2] * x[:, 1::2],
    lambda x: torch.mul(*x.view(NODES, 2, -1).unbind(1)),
]
TWO: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add,
    torch.maximum,
    lambda a, b: a * torch.sigmoid(b),
    lambda a, b: torch.lerp(a, b, 0.3),
    lambda a, b: a * (a * b).sum(-1, keepdim=True),
]
RAW: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.mul,
    torch.add,
    lambda a, b: a * b.softmax(0),
    lambda a, b: a * b.sigmoid(),
]


class Net(nn.Module):
    """A random program on a list of node features."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.layers, self.raw = nn.ModuleList(), nn.ParameterList()
        self.steps: list[tuple[str, int, int, Any]] = []
        widths = [CHANNELS]
        for _ in range(self.random.randint(4, 12)):
            i = self.random.randrange(max(0, len(widths) - 3), len(widths))
            step, width = self._step(i, widths)
            self.steps.append(step)
            widths.append(width)
        self.out = nn.Linear(widths[-1], 3)
        del self.random

    def _step(self, i: int, widths: list[int]) -> tuple[tuple[str, int, int, Any], int]:
        choose, c = self.random.choice, widths[i]
        kind = choose(["layer"] * 4 + ["one"] * 5 + ["two", "half", "raw", "mat", "buffer", "cat"])
        j = choose([j for j, width in enumerate(widths) if width == c])
        if kind == "one":
            return (kind, i, j, choose(ONE)), c
        if kind == "two":
            return (kind, i, j, choose(TWO)), c
        if kind == "cat":
            j = self.random.randrange(len(widths))
            return (kind, i, j, None), c + widths[j]
        if kind == "half" and c % 2 == 0:
            return (kind, i, j, choose(HALVES)), c // 2
        if kind in ("raw", "mat", "buffer"):
            width = choose([4, 8, 12]) if kind == "mat" else c
            self.raw.append(nn.Parameter(torch.randn(*([c, width] if kind == "mat" else [c]))))
            if kind == "buffer":
                self.raw[-1].requires_grad_(False)
            return (kind, i, len(self.raw) - 1, choose(RAW)), width
        layer, width = self._layer(c)
        self.layers.append(layer)
        return ("layer", i, len(self.layers) - 1, None), width

    def _layer(self, c: int) -> tuple[nn.Module, int]:
        w = self.random.choice([4, 8, 12, 16])
        act = self.random.choice([nn.ReLU(), nn.Sigmoid(), nn.Softmax(-1), nn.LayerNorm(w)])
        makes: list[tuple[Callable[[], nn.Module], int]] = [
            (lambda: nn.Linear(c, w), w),
            (lambda: GCNConv(c, w), w),
            (lambda: SAGEConv(c, w, aggr="max", normalize=True), w),
            (lambda: GINConv(nn.Sequential(nn.Linear(c, w), act, nn.Linear(w, w))), w),
            (lambda: GATv2Conv(c, w // 2, heads=2), w),
            (lambda: TransformerConv(c, w // 2, heads=2), w),
            (lambda: nn.BatchNorm1d(c), c),
            (lambda: GraphNorm(c), c),
            (lambda: nn.LayerNorm(c), c),
            (lambda: nn.GRUCell(c, w), w),
            (lambda: nn.PReLU(c), c),
            (lambda: nn.Conv1d(c, w, 1), w),
        ]
        make, width = self.random.choice(makes)
        return make(), width

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found = [x]
        for kind, i, j, function in self.steps:
            a = found[i].clamp(max=5.0)
            if kind == "layer":
                layer = self.layers[j]
                if isinstance(layer, nn.Conv1d):
                    a = layer(a.t().unsqueeze(0))[0].t()
                elif isinstance(layer, MessagePassing):
                    a = layer(a, edge_index)
                else:
                    a = layer(a)
            elif kind in ("one", "half"):
                a = function(a)
            elif kind in ("two", "raw", "buffer"):
                a = function(a, found[j] if kind == "two" else self.raw[j])
            else:
                a = a @ self.raw[j] if kind == "mat" else torch.cat([a, found[j]], -1)
            found.append(a)
        return self.out(found[-1])


def inputs(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(NODES, CHANNELS, generator=generator, dtype=torch.float64)
    return x, torch.randint(NODES, (2, EDGES), generator=generator)


SEEDS = [*range(8), *[pytest.param(seed, marks=pytest.mark.full) for seed in range(8, 120)]]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_pruned_is_right(seed: int) -> None:
    torch.manual_seed(seed)
    model = Net(seed).double()
    try:
        with torch.no_grad():
            finite = bool(model.eval()(*inputs(0)).isfinite().all())
    except RuntimeError:
        finite = False  # such as a view of a transposed tensor
    if not finite:
        pytest.skip("the net does not run")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "These channels are kept|The floors")
        try:
            pruner = Pruner(model, Random(seed), keep=0.4, example=inputs(0), min_width=1, rho=0.0)
        except ValueError as error:
            if "must have channels that can be pruned" not in str(error):
                raise
            return
        pruner.step()
    small = pruner.compact().eval()
    assert pruner.num_parameters == sum(p.numel() for p in small.parameters())
    with torch.no_grad():
        for other in range(3):  # the example, and two graphs that following has not seen
            expected = model.eval()(*inputs(other))
            scale = 1.0 + expected.abs().max()
            torch.testing.assert_close(
                small(*inputs(other)) / scale, expected / scale, rtol=0, atol=1e-10
            )
