"""Layers, models and losses trained under torch.compile, on graphs of one size after the other.

The default backend, Inductor, needs a C++ compiler. It alone relies on the strides that operators
promise, and takes seconds for each of them: all but one of those tests are long.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from pyg_stkd import Distiller, distill, functional, kernels
from pyg_stkd import nn as stkd

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    # Dynamo looks at them itself.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]
INDUCTOR = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="needs a C++ compiler"
)
WHOLE_GRAPHS = pytest.mark.skipif(
    tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 8),
    reason="before torch 2.8 a number of edges that depends on them breaks the graph",
)

# Nodes and edges, the fifth as the second; layers choose a sparse matrix for each of them.
SIZES = ((40, 150), (33, 90), (52, 250), (61, 77), (33, 90))


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], tuple[Any, ...]]
    # Whether Inductor compiles once more for the third size: the first with a sum of more than
    # 4,096 numbers, which it adds another way, or the first with another number of clouds.
    late: bool = False


def edges(num_nodes: int, num_edges: int) -> Tensor:
    return torch.randint(num_nodes, (2, num_edges))  # loops and duplicates among them


def on_graph(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    return torch.randn(num_nodes, 8), edges(num_nodes, num_edges)


def wide_points(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    return torch.randn(num_nodes, 40), edges(num_nodes, num_edges)


def with_edge_attr(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    return *on_graph(num_nodes, num_edges), torch.randn(num_edges, 3)


def points(num_nodes: int, _: int) -> tuple[Any, ...]:
    return torch.randn(num_nodes, 8), torch.arange(num_nodes) // 15


def sequences(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    return torch.randn(2, 12, num_nodes, 4), edges(num_nodes, num_edges)


def wide_sequences(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    return torch.randn(2, 3, num_nodes, 40), edges(num_nodes, num_edges)


def without_graph(num_nodes: int, _: int) -> tuple[Any, ...]:
    return (torch.randn(2, 12, num_nodes, 4),)


def weighted(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    return *sequences(num_nodes, num_edges), torch.rand(num_edges)


def sequences_of_one_graph(_: int, num_edges: int) -> tuple[Any, ...]:
    return sequences(20, num_edges)


def loops_later(num_nodes: int, num_edges: int) -> tuple[Any, ...]:
    x, (first, second) = on_graph(num_nodes, num_edges)
    if num_nodes == SIZES[0][0]:  # none in the first graph
        second = torch.where(first == second, (second + 1) % num_nodes, second)
    else:
        second[::7] = first[::7]
    return x, torch.stack([first, second])


def dense(_: int, num_edges: int) -> tuple[Any, ...]:
    # A batch and steps of other numbers, and as many nodes as the attention is of.
    x = torch.randn(2 + num_edges % 7, 2 + num_edges % 11, 20, 4)
    return x, torch.rand(x.size(0), 20, 20), torch.rand(20, 20)


def batches(_: int, num_edges: int) -> tuple[Any, ...]:
    return (torch.randn(2 + num_edges % 7, 12, 20, 4),)


def edge_network() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU())


class Loss(nn.Module):
    """A loss between what a linear layer makes of the features, and the features."""

    def __init__(self, width: int, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.lin, self.loss = nn.Linear(width, 6), loss

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        return self.loss(self.lin(x), x.detach(), *graph)


class Pairs(nn.Module):
    """A dynamic layer between two sets of points."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = stkd.DynamicEdgeConv(edge_network(), 3)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        return self.conv((x, x[::2].contiguous()), (batch, batch[::2].contiguous()))


class Distilled(nn.Module):
    """A student beside a teacher, with some losses."""

    def __init__(self, losses: list[Any], width: int) -> None:
        super().__init__()
        self.distiller = Distiller(Simple(width, 7), Simple(width, 6), losses)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        target = x[..., 0].tanh() if x.dim() == 4 else None
        out, losses = self.distiller(x, edge_index, target=target)
        return out.square().mean() + sum(losses.values())


class Simple(nn.Module):
    """A layer, a sum over neighbours, and a head of 3 classes, or a forecast of sequences."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lin, self.head = nn.Linear(width, hidden), nn.Linear(hidden, 3 if width == 8 else 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.lin(x)
        h = h.index_add(-2, edge_index[1], h.index_select(-2, edge_index[0])).tanh()
        return self.head(h) if x.dim() == 2 else self.head(h).squeeze(-1)


def lsp_of(kernel: kernels.Kernel, **options: Any) -> Callable[..., Tensor]:
    return lambda s, t, edge_index: functional.lsp(s, t, edge_index, kernel, **options)


def spatial(s: Tensor, t: Tensor, edge_index: Tensor) -> Tensor:
    return functional.spatial_correlation(s, t, edge_index, kernels.RBF(2.0))


def temporal(s: Tensor, t: Tensor, _: Tensor) -> Tensor:
    return functional.temporal_correlation(s, t, kernels.RBF(2.0))


def gsp_of(kernel: kernels.Kernel) -> Callable[..., Tensor]:
    return lambda s, t, _: functional.gsp(s, t, kernel)


def contrast(s: Tensor, t: Tensor, _: Tensor) -> Tensor:
    return functional.contrast(s, t[..., :6])


def response(s: Tensor, t: Tensor, _: Tensor) -> Tensor:
    return functional.response(s, t[..., :6], t[..., 2:])


LAYERS = {
    "GATConv": Case(lambda: stkd.GATConv(8, 6, heads=4), on_graph),
    "GATConv, mean of heads and residual": Case(
        lambda: stkd.GATConv(8, 6, heads=3, concat=False, residual=True), on_graph
    ),
    "GATConv, edge features": Case(lambda: stkd.GATConv(8, 6, heads=2, edge_dim=3), with_edge_attr),
    "GATConv, no loops": Case(lambda: stkd.GATConv(8, 6, heads=2, add_self_loops=False), on_graph),
    "EdgeConv": Case(lambda: stkd.EdgeConv(edge_network()), on_graph),
    "EdgeConv, no norm": Case(lambda: stkd.EdgeConv(nn.Linear(16, 6)), on_graph),
    "DynamicEdgeConv": Case(lambda: stkd.DynamicEdgeConv(edge_network(), 5), points),
    "ChebConv": Case(lambda: stkd.ChebConv(4, 6, 3), weighted),
    "GCNConv": Case(lambda: stkd.GCNConv(4, 6), weighted),
    "ChebConv, wide": Case(lambda: stkd.ChebConv(40, 40, 3), wide_sequences),
    "GCNConv, wide": Case(lambda: stkd.GCNConv(40, 36), wide_sequences),
    "GatedTemporalConv": Case(
        lambda: stkd.GatedTemporalConv(4, 6), lambda n, e: sequences(n, e)[:1]
    ),
    "GatedTemporalConv, pgt": Case(
        lambda: stkd.GatedTemporalConv(4, 6, gate="pgt"), lambda n, e: sequences(n, e)[:1]
    ),
    "STConv": Case(lambda: stkd.STConv(4, 6, 8), sequences),
    "GATConv, loops from the second graph on": Case(lambda: stkd.GATConv(8, 6, 4), loops_later),
    "DynamicEdgeConv, pairs": Case(Pairs, points),
    "ChebAttentionConv": Case(lambda: stkd.ChebAttentionConv(4, 6, 3), dense),
    "SpatialAttention": Case(lambda: stkd.SpatialAttention(4, 20, 12), batches),
    "TemporalAttention": Case(lambda: stkd.TemporalAttention(4, 20, 12), batches),
    "NodeLayerNorm": Case(lambda: stkd.NodeLayerNorm(4), without_graph),
    "NodeBatchNorm": Case(lambda: stkd.NodeBatchNorm(20), batches),
}
MODELS = {
    "GAT": Case(lambda: stkd.GAT(8, 6, 3, num_layers=2), on_graph),
    "GAT, loops from the second graph on": Case(
        lambda: stkd.GAT(8, 6, 3, num_layers=2), loops_later
    ),
    "DGCNN": Case(
        lambda: stkd.DGCNN(8, 3, k=4, channels=(8, 8), mlp_channels=(8,), dropout=0.0),
        points,
        late=True,
    ),
    "STGCN": Case(lambda: stkd.STGCN(4, 8, 12), sequences),
    "ASTGCN": Case(lambda: stkd.ASTGCN(4, 8, 12, num_nodes=20), sequences_of_one_graph),
}
LOSSES = {
    "lsp, RBF": Case(lambda: Loss(8, lsp_of(kernels.RBF(2.0))), on_graph),
    "lsp, Linear": Case(lambda: Loss(8, lsp_of(kernels.Linear(), normalize="layer")), on_graph),
    "lsp, Cosine": Case(lambda: Loss(8, lsp_of(kernels.Cosine(), direction="teacher")), on_graph),
    "lsp, Laplacian": Case(lambda: Loss(8, lsp_of(kernels.Laplacian(2.0))), on_graph),
    "spatial correlation": Case(lambda: Loss(4, spatial), sequences, late=True),
    "temporal correlation": Case(lambda: Loss(4, temporal), sequences),
    "lsp, Polynomial": Case(lambda: Loss(8, lsp_of(kernels.Polynomial(2))), on_graph),
    "lsp, SquaredEuclidean": Case(lambda: Loss(8, lsp_of(kernels.SquaredEuclidean())), on_graph),
    "lsp, Euclidean": Case(lambda: Loss(8, lsp_of(kernels.Euclidean())), on_graph),
    "gsp": Case(lambda: Loss(8, gsp_of(kernels.RBF(2.0))), on_graph),
    "gsp, Cosine": Case(lambda: Loss(8, gsp_of(kernels.Cosine())), on_graph),
    "gsp, Linear": Case(lambda: Loss(8, gsp_of(kernels.Linear())), on_graph),
    "gsp, Cosine of wide features": Case(lambda: Loss(40, gsp_of(kernels.Cosine())), wide_points),
    "gsp, Polynomial": Case(lambda: Loss(8, gsp_of(kernels.Polynomial(2))), on_graph),
    "contrast": Case(lambda: Loss(8, contrast), on_graph),
    "response": Case(lambda: Loss(8, response), on_graph),
}
LOSSES_OF_NODES: dict[type, Callable[[], Any]] = {
    distill.SoftTargetLoss: distill.SoftTargetLoss,
    distill.LogitLoss: distill.LogitLoss,
    distill.OutputLoss: distill.OutputLoss,
    distill.HintLoss: lambda: distill.HintLoss("lin", "lin", in_channels=6, out_channels=7),
    distill.AttentionTransferLoss: lambda: distill.AttentionTransferLoss("lin", "lin"),
    distill.ContrastiveLoss: lambda: distill.ContrastiveLoss(
        "lin", "lin", channels=5, in_channels=(6, 7)
    ),
    distill.GSPLoss: lambda: distill.GSPLoss("lin", "lin"),
    distill.LSPLoss: lambda: distill.LSPLoss("lin", "lin", kernels.RBF(2.0)),
}
LOSSES_OF_STEPS: dict[type, Callable[[], Any]] = {
    distill.ResponseLoss: distill.ResponseLoss,
    distill.SpatialCorrelationLoss: lambda: distill.SpatialCorrelationLoss(
        "lin", "lin", kernels.RBF(2.0)
    ),
    distill.TemporalCorrelationLoss: lambda: distill.TemporalCorrelationLoss(
        "lin", "lin", kernels.RBF(2.0)
    ),
}
# Whole distillers, whose hooks break the graph.
DISTILLERS = {
    "losses of nodes": Case(
        lambda: Distilled([make() for make in LOSSES_OF_NODES.values()], 8), on_graph, late=True
    ),
    "losses of sequences": Case(
        lambda: Distilled([make() for make in LOSSES_OF_STEPS.values()], 4), sequences, late=True
    ),
}
WHOLE = LAYERS | MODELS | LOSSES
CASES = WHOLE | DISTILLERS


def gradients(model: nn.Module, run: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Return the output, and the gradients of the first input and of all parameters."""
    first = inputs[0].clone().requires_grad_()
    out = run(first, *inputs[1:])
    weight = torch.linspace(-1.0, 1.0, out.numel()).view_as(out)
    wanted = [first, *model.parameters()]
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), wanted, allow_unused=True)]


def train(name: str, backend: Any, **options: Any) -> list[int]:
    """Compare values and gradients with those without a compiler, size after size.

    Returns how often the backend had been called after each size.
    """
    torch._dynamo.reset()
    case, counter = CASES[name], CompileCounterWithBackend(backend)
    model = case.make()
    compiled = torch.compile(model, backend=counter, **options)
    counts = []
    for size in SIZES:
        inputs, state = case.inputs(*size), {k: v.clone() for k, v in model.state_dict().items()}
        expected = gradients(model, model, inputs)
        after = {k: v.clone() for k, v in model.state_dict().items()}
        model.load_state_dict(state)
        torch.testing.assert_close(
            gradients(model, compiled, inputs), expected, rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(model.state_dict(), after)
        counts.append(counter.frame_count)
    settled = counts[2 if backend == "inductor" and case.late else 1 :]
    assert settled == settled[:1] * len(settled)  # none for a third size
    torch._dynamo.reset()
    return counts


@INDUCTOR
@WHOLE_GRAPHS
@pytest.mark.full
def test_gat_conv_trains_under_the_default_backend() -> None:
    counts = train("GATConv", "inductor", fullgraph=True, dynamic=True)
    assert counts[-1] == counts[0]  # torch may look at the first size twice


@INDUCTOR
@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_trains_under_the_default_backend(name: str) -> None:
    train(name, "inductor")


@WHOLE_GRAPHS
@pytest.mark.full
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", [name for name in WHOLE if name != "DGCNN"])  # reads sizes
def test_compiles_whole_for_graphs_of_any_size(name: str, dynamic: bool | None) -> None:
    train(name, "aot_eager", fullgraph=True, dynamic=dynamic)


def test_nothing_public_is_left_out() -> None:
    def all_of(module: Any, base: type) -> set[str]:
        found = {name: getattr(module, name) for name in module.__all__}
        return {k for k, v in found.items() if isinstance(v, type) and issubclass(v, base)}

    known = {name.split(",")[0] for name in CASES}
    assert all_of(stkd, nn.Module) - {"KNNGraph"} <= known  # which has no gradient
    losses = {cls.__name__ for cls in (*LOSSES_OF_NODES, *LOSSES_OF_STEPS)}
    assert all_of(distill, distill.DistillationLoss) - {"DistillationLoss"} == losses
