from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import Capture, ResponseLoss, STCDLoss
from pyg_stkd.functional.structures.response import response
from pyg_stkd.functional.structures.spatial import spatial_correlation
from pyg_stkd.functional.structures.temporal import temporal_correlation

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

EDGES = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])


@pytest.fixture
def triple() -> tuple[Tensor, Tensor, Tensor]:
    s, t, y = (torch.randn(2, 4, 3).double() for _ in range(3))
    y[0, 1] = math.nan
    return s, t, y


def call(loss: ResponseLoss, s: Tensor, t: Tensor, y: Tensor | None, **options: object) -> Tensor:
    return loss(Capture(s, **options), Capture(t, owner="teacher"), y)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.2, "gate": None},
        {"alpha": 0.2, "delta": 0.7, "error": "mae"},
        {"alpha": 2.0, "gate": "bounded", "margin": 0.1},
        {"error": "huber", "huber_delta": 0.3},
    ],
    ids=str,
)
def test_value(options: dict[str, object], triple: tuple[Tensor, Tensor, Tensor]) -> None:
    loss = ResponseLoss(**options)  # type: ignore[arg-type]
    assert (loss.name, loss.teacher_layer, loss.student_layer) == ("response", "", "")
    torch.testing.assert_close(call(loss, *triple), response(*triple, **options))  # type: ignore


def test_missing_labels(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    s, t, y = triple
    s.requires_grad_()
    loss = call(ResponseLoss(gate=None, alpha=0.25), s, t, y)
    seen = ~y.isnan()
    error = 0.75 * (s - y)[seen].square() + 0.25 * (s - t)[seen].square()
    torch.testing.assert_close(loss, error.mean())
    loss.backward()
    assert s.grad is not None
    assert torch.equal(s.grad == 0, ~seen)
    assert gradcheck(lambda s: call(ResponseLoss(), s, t, y), s)


@pytest.mark.parametrize(
    "nodes", [torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=["index", "mask"]
)
def test_nodes_are_the_last_axis_of_a_forecast(
    nodes: Tensor, triple: tuple[Tensor, Tensor, Tensor]
) -> None:
    s, t, y = triple
    ours = call(ResponseLoss(gate=None), s, t, y, nodes=nodes)
    expected = response(*(x[..., [0, 2]] for x in triple), gate=None)
    torch.testing.assert_close(ours, expected)
    first = ResponseLoss(gate=None, node_dim=0)  # [N, C] of a regression of nodes
    ours = call(first, s[0].t(), t[0].t(), y[0].t(), nodes=nodes)
    rows = [x[0].t()[[0, 2]] for x in triple]
    torch.testing.assert_close(ours, response(*rows, gate=None))


def test_errors(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    s, t, y = triple
    with pytest.raises(ValueError, match=r"labels must be given: distiller\(..., target=y\)"):
        call(ResponseLoss(), s, t, None)
    with pytest.raises(TypeError, match=r"'target' must be a tensor of labels \(got list\)"):
        call(ResponseLoss(), s, t, [1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'target' must have the same shape \(got \[2, 4, 3\]"):
        call(ResponseLoss(), s, t, y.mT)
    with pytest.raises(ValueError, match=r"'alpha' must be at least 0 and at most 1 \(got 2\)"):
        ResponseLoss(alpha=2)
    with pytest.raises(ValueError, match=r"'gate' must be .* \(got 'soft'\)"):
        ResponseLoss(gate="soft")  # type: ignore[arg-type]


class Model(nn.Module):
    """A layer on sequences [B, T, N, C] and forecasts [B, T', N]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(x))[:, -1]).transpose(1, 2)


def test_stcd_is_the_weighted_sum(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    teacher, student = Model(6).double(), Model(3).double()
    losses = STCDLoss("layer", "layer", weights=(0.5, 3.0, 2.0), alpha=0.3, kernel=kernels.Cosine())
    distiller = Distiller(teacher, student, losses)
    x, y = torch.randn(2, 5, 3, 2).double(), triple[2]
    out, values = distiller(x, EDGES, target=y)
    s, t = student.layer(x), teacher.layer(x)
    kernel = kernels.Cosine()
    expected = {
        "response": 0.5 * response(out, teacher(x, EDGES), y, alpha=0.3),
        "spatial_correlation": 3 * spatial_correlation(s, t, EDGES, kernel),
        "temporal_correlation": 2 * temporal_correlation(s, t, kernel),
    }
    torch.testing.assert_close(values, expected)
    names = list(dict(student.named_parameters()))
    gradients = [
        torch.autograd.grad(sum(part.values()), list(student.parameters()), retain_graph=True)
        for part in (values, expected)
    ]
    for name, ours, theirs in zip(names, *gradients, strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_stcd_among_other_losses_and_twice() -> None:
    first, second = STCDLoss("layer", "layer"), STCDLoss("head", "head", name="deep")
    distiller = Distiller(Model(6), Model(3), [*first, *second])
    assert list(distiller.losses) == [
        "response",
        "spatial_correlation",
        "temporal_correlation",
        "deep_response",
        "deep_spatial_correlation",
        "deep_temporal_correlation",
    ]
    assert len(first) == 3
    assert [loss.weight for loss in first[1:]] == [1.0, 1.0]
    assert "ResponseLoss" in repr(first)


def test_stcd_options() -> None:
    losses = STCDLoss(
        "a", "b", gate="bounded", error="mae", direction="teacher", normalize="l2", schedule=float
    )
    first, *others = losses
    assert isinstance(first, ResponseLoss)
    assert (first.gate, first.error, first.factor(0)) == ("bounded", "mae", 1.0)
    for loss in others:
        assert (loss.direction, loss.normalize, loss.factor(2)) == ("teacher", "l2", 2.0)
        assert (loss.teacher_layer, loss.student_layer) == ("a", "b")
    with pytest.raises(ValueError, match=r"'weights' must be three.* \(got \(1.0, 1.0\)\)"):
        STCDLoss("a", "b", weights=(1.0, 1.0))  # type: ignore[arg-type]
