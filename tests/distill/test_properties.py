"""What holds for every loss without parameters, whatever the models are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    GAT,
    GCN,
    GIN,
    PNA,
    ARMAConv,
    DeepGCNLayer,
    EdgeCNN,
    GENConv,
    GraphNorm,
    GraphSAGE,
    GraphUNet,
    JumpingKnowledge,
    LayerNorm,
    Linear,
    MessagePassing,
    SAGEConv,
    SAGPooling,
    TopKPooling,
    TransformerConv,
    global_mean_pool,
)

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    AttentionTransferLoss,
    DistillationLoss,
    GSPLoss,
    HintLoss,
    LogitLoss,
    LSPLoss,
    OutputLoss,
    SoftTargetLoss,
    SpatialCorrelationLoss,
    TemporalCorrelationLoss,
)
from pyg_stkd.nn import STConv

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.filterwarnings("ignore:.*lie behind pools that chose"),
    pytest.mark.filterwarnings("ignore:Sparse"),
]

N, F, C = 18, 6, 4
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, F, generator=GENERATOR, dtype=torch.float64)
EDGES = torch.randint(N, (2, 60), generator=GENERATOR)
EDGES = EDGES[:, EDGES[0] != EDGES[1]].unique(dim=1)
DEGREES = torch.bincount(EDGES[1], minlength=N).bincount()


class Deep(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin = Linear(F, width)
        self.layer = DeepGCNLayer(GENConv(width, width), LayerNorm(width), nn.ReLU(inplace=True))
        self.head = Linear(width, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.layer(self.lin(x), edge_index))


class Mixed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = TransformerConv(F, width, heads=2), ARMAConv(2 * width, width)
        self.norm, self.jump, self.prop = GraphNorm(width), JumpingKnowledge("cat"), APPNP(3, 0.1)
        self.head = Linear(3 * width, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(x, edge_index).relu_()
        b = self.norm(self.b(a, edge_index))
        out = self.head(self.jump([a, b]))
        return self.prop(out, edge_index), out


class Pooled(nn.Module):
    def __init__(self, width: int, pool: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.a, self.pool, self.b = SAGEConv(F, width), pool(width, ratio=0.6), SAGEConv(width, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x, edge_index, _, batch, *_ = self.pool(self.a(x, edge_index).relu(), edge_index)
        return global_mean_pool(self.b(x, edge_index), batch)


class Parts(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.heads = SAGEConv(F, width), nn.ModuleList([Linear(width, C) for _ in "ab"])

    def forward(self, x: Tensor, edge_index: Tensor) -> dict[str, Tensor]:
        h = self.conv(x, edge_index).relu()
        return {name: head(h) for name, head in zip("ab", self.heads, strict=True)}


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "GCN": lambda w: GCN(F, w, 2, C),
    "GCN jk": lambda w: GCN(F, w, 3, C, jk="cat", norm="batch_norm"),
    "GAT": lambda w: GAT(F, w, 2, C, heads=2),
    "GATv2": lambda w: GAT(F, w, 2, C, v2=True, residual=True),
    "SAGE": lambda w: GraphSAGE(F, w, 2, C, aggr="max", project=True),
    "GIN": lambda w: GIN(F, w, 2, C, train_eps=True),
    "EdgeCNN": lambda w: EdgeCNN(F, w, 2, C),
    "PNA": lambda w: PNA(
        F, w, 2, C, aggregators=["mean", "max"], scalers=["identity", "amplification"], deg=DEGREES
    ),
    "deep": Deep,
    "mixed": Mixed,
    "U-Net": lambda w: GraphUNet(F, w, C, depth=2),
    "TopK": lambda w: Pooled(w, TopKPooling),
    "SAG": lambda w: Pooled(w, SAGPooling),
    "parts": Parts,
}


QUICK = ("GCN", "TopK", "parts", "EdgeCNN")
NAMES = [pytest.param(x, marks=() if x in QUICK else pytest.mark.full) for x in MODELS]


def losses_at(layer: str) -> Iterator[DistillationLoss]:
    for cls in (SoftTargetLoss, OutputLoss, LogitLoss):
        yield cls(teacher_layer=layer, student_layer=layer)
    yield HintLoss(layer, layer, projection=False)
    yield AttentionTransferLoss(layer, layer)
    yield GSPLoss(layer, layer)
    for kernel in (kernels.RBF(), kernels.Linear(), kernels.Cosine(), kernels.Laplacian()):
        yield LSPLoss(layer, layer, kernel, name=f"lsp_{type(kernel).__name__}")
    yield LSPLoss.official(layer, layer, name="official")


def layers_of(model: nn.Module) -> list[str]:
    kinds = (MessagePassing, nn.Linear, Linear, TopKPooling, SAGPooling)
    named = model.named_modules()
    return ["", *(name for name, module in named if name and isinstance(module, kinds))]


def values(teacher: nn.Module, student: nn.Module, *args: Any) -> dict[tuple[str, str], Any]:
    """The value of each loss at each layer, or the kind of error it is refused with."""
    found: dict[tuple[str, str], Any] = {}
    for layer in layers_of(student):
        for loss in losses_at(layer):
            distiller = Distiller(teacher, student, [loss])
            try:
                with torch.no_grad():
                    (value,) = distiller.eval()(*args)[1].values()
                found[layer, loss.name] = value.item()
            except (TypeError, ValueError, IndexError) as error:
                found[layer, loss.name] = type(error).__name__
            distiller.remove_hooks()
    return found


def pair(name: str, teacher: int, student: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return tuple(MODELS[name](width).double().eval() for width in (teacher, student))


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_that_is_the_student_gives_nothing(name: str) -> None:
    _, student = pair(name, 8, 8)
    found = values(copy.deepcopy(student), student, X, EDGES)
    numbers = {key: value for key, value in found.items() if not isinstance(value, str)}
    assert len(numbers) > 20
    assert max(map(abs, numbers.values())) < 1e-10, numbers


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_nodes_is_of_no_account(name: str) -> None:
    torch.manual_seed(1)
    teacher, student = pair(name, 8, 8)
    order = torch.randperm(N)
    place = order.argsort()
    edges = place[EDGES][:, torch.randperm(EDGES.size(1))]
    found = values(teacher, student, X, EDGES)
    again = values(teacher, student, X[order], edges)
    assert found.keys() == again.keys()
    assert any(not isinstance(value, str) and value > 1e-4 for value in found.values())
    for key, value in found.items():
        same = value if isinstance(value, str) else pytest.approx(value, rel=1e-6, abs=1e-10)
        assert again[key] == same, key


class Forecaster(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = STConv(2, 8, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(self.block(x, edge_index))[..., 0]


def test_both_hold_for_sequences() -> None:
    torch.manual_seed(0)
    teacher, student = Forecaster().double(), Forecaster().double()
    x, order = torch.randn(2, 9, N, 2, dtype=torch.float64), torch.randperm(N)
    edges = order.argsort()[EDGES]

    def run(teacher: nn.Module, x: Tensor, e: Tensor) -> dict[str, float]:
        losses = [
            SpatialCorrelationLoss("block", "block", kernels.Linear()),
            TemporalCorrelationLoss("block", "block", kernels.Linear()),
            HintLoss("block", "block", projection=False),
            AttentionTransferLoss("block", "block"),
            OutputLoss(),
        ]
        found = Distiller(teacher, student, losses).eval()(x, e)[1]
        return {name: value.item() for name, value in found.items()}

    first, second = run(teacher, x, EDGES), run(teacher, x[:, :, order], edges)
    assert second == pytest.approx(first, rel=1e-6)
    assert min(first.values()) > 1e-4
    assert max(map(abs, run(copy.deepcopy(student), x, EDGES).values())) < 1e-10
