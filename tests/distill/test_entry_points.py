"""Models with several entry points, run by ``call=``: encoders, decoders, memories, corruptions."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    GAE,
    VGAE,
    DeepGraphInfomax,
    GCNConv,
    InnerProductDecoder,
    TGNMemory,
)
from torch_geometric.nn.models.tgn import IdentityMessage, LastAggregator

from pyg_stkd import Distiller
from pyg_stkd.distill import HintLoss, LSPLoss, OutputLoss, SoftTargetLoss
from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

N = 12
EDGES = torch.randint(N, (2, 40), generator=torch.Generator().manual_seed(0))
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(1))
PAIRS = torch.randint(N, (2, 9), generator=torch.Generator().manual_seed(2))


class Encoder(nn.Module):
    def __init__(self, width: int, variational: bool = False) -> None:
        super().__init__()
        self.conv, self.mu = GCNConv(5, width), GCNConv(width, 3)
        self.logstd = GCNConv(width, 3) if variational else None

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        h = self.conv(x, edge_index).relu()
        if self.logstd is None:
            return self.mu(h, edge_index)
        return self.mu(h, edge_index), self.logstd(h, edge_index)


def learns(losses: dict[str, Tensor], student: nn.Module) -> None:
    sum(losses.values()).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in student.parameters())


@pytest.mark.parametrize("kind", [GAE, VGAE])
def test_autoencoders(kind: type[GAE]) -> None:
    torch.manual_seed(0)
    variational = kind is VGAE
    teacher, student = (kind(Encoder(width, variational)) for width in (8, 4))
    assert isinstance(student.decoder, InnerProductDecoder)
    taps: list[Any] = [LSPLoss("encoder.conv", "encoder.conv")]
    taps.append(OutputLoss(teacher_layer="encoder.mu", student_layer="encoder.mu"))

    def call(model: Any, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:
        return model.decode(model.encode(x, edge_index), pairs)

    before = copy.deepcopy(teacher.state_dict())
    out, losses = Distiller(teacher, student, [*taps, SoftTargetLoss(multi_label=True)], call=call)(
        X, EDGES, PAIRS
    )
    assert out.shape == (9,)
    with torch.no_grad():
        hidden = [model.encoder.conv(X, EDGES) for model in (student, teacher)]
        both = zip((student, teacher), hidden, strict=True)
        means = [model.encoder.mu(h.relu(), EDGES) for model, h in both]
        expected = lsp(*hidden, Graph(EDGES, N))
    torch.testing.assert_close(losses["lsp"], expected)
    torch.testing.assert_close(losses["output"], (means[0] - means[1]).square().mean())
    if variational:  # what the student keeps of its own run is there for its own terms
        assert isinstance(student, VGAE)
        losses["kl"] = student.kl_loss()
    learns(losses, student)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_deep_graph_infomax() -> None:
    """Its corruption draws a permutation: both models draw the same."""
    drawn: list[Tensor] = []

    def corrupt(x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        drawn.append(torch.randperm(x.size(0)))
        return x[drawn[-1]], edge_index

    def build(width: int) -> DeepGraphInfomax:
        return DeepGraphInfomax(
            3, Encoder(width), lambda z, *_: z.mean(dim=0).sigmoid(), corruption=corrupt
        )

    torch.manual_seed(0)
    teacher, student = build(8), build(4)
    losses = [OutputLoss(weights={0: 1.0, 1: 1.0}), HintLoss("encoder.conv", "encoder.conv")]
    losses[1].call = losses[1].teacher_call = "all"  # the true graph and the corrupted one
    (true, false, _), values = Distiller(teacher, student, losses)(X, EDGES)
    assert torch.equal(*drawn)
    with torch.no_grad():
        z = [teacher.encoder(x, EDGES) for x in (X, X[drawn[0]])]
        both = (true - z[0]).square().mean() + (false - z[1]).square().mean()
    torch.testing.assert_close(values["output"], both / 2)
    learns(values, student)


def test_temporal_graph_memory() -> None:
    """Each model keeps the memory that it wrote itself."""

    def build(width: int) -> TGNMemory:
        message = IdentityMessage(3, width, 4)
        return TGNMemory(N, 3, width, 4, message_module=message, aggregator_module=LastAggregator())

    def call(model: TGNMemory, src: Tensor, dst: Tensor, t: Tensor, message: Tensor) -> Tensor:
        nodes = torch.cat([src, dst]).unique()
        z, _ = model(nodes)
        model.update_state(src, dst, t, message)
        return z

    torch.manual_seed(0)
    teacher, student = build(6), build(6)
    twins = copy.deepcopy(teacher), copy.deepcopy(student)
    twins[0].eval()  # returns nothing
    distiller = Distiller(teacher, student, [OutputLoss()], call=call)
    for i in range(3):
        generator = torch.Generator().manual_seed(i)
        src, dst = torch.randint(N, (2, 5), generator=generator)
        batch = src, dst, torch.arange(5) + 5 * i, torch.randn(5, 3, generator=generator)
        out, losses = distiller(*batch)
        theirs, ours = (call(twin, *batch) for twin in twins)
        torch.testing.assert_close(out, ours)
        torch.testing.assert_close(losses["output"], (ours - theirs).square().mean())
        for memory in (teacher, student, *twins):
            memory.detach()


class Links(nn.Module):
    def __init__(self, width: int, out: int | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(width)
        self.head = None if out is None else nn.Linear(6, out)

    def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.encoder(x, edge_index)

    def decode(self, z: Tensor, pairs: Tensor) -> Tensor:
        a, b = z[pairs[0]], z[pairs[1]]
        return (a * b).sum(-1) if self.head is None else self.head(torch.cat([a, b], dim=-1))


@pytest.mark.parametrize("classes", [None, 4])
def test_links_and_classes_of_edges(classes: int | None) -> None:
    torch.manual_seed(0)
    teacher, student = Links(8, classes), Links(4, classes)

    def call(model: Links, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:
        return model.decode(model.encode(x, edge_index), pairs)

    losses = [SoftTargetLoss(temperature=2.0, multi_label=classes is None)]
    out, values = Distiller(teacher, student, losses, call=call)(X, EDGES, PAIRS)
    with torch.no_grad():
        s, t = (call(model, X, EDGES, PAIRS) / 2 for model in (student, teacher))
        if classes is None:
            p, q = t.sigmoid(), s.sigmoid()
            each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            expected = 4 * each.mean()
        else:
            p, q = t.softmax(-1), s.softmax(-1)
            expected = 4 * (p * (p / q).log()).sum(-1).mean()
    assert out.shape == ((9,) if classes is None else (9, 4))
    torch.testing.assert_close(values["soft_target"], expected)
    learns(values, student)
    # Pairs are no nodes: those that are restricted to are pairs, row by row.
    some = torch.tensor([1, 5])
    (value,) = Distiller(teacher, student, losses, call=call)(X, EDGES, PAIRS, nodes=some)[
        1
    ].values()
    (same,) = Distiller(teacher, student, losses, call=call)(X, EDGES, PAIRS[:, some])[1].values()
    torch.testing.assert_close(value, same)
