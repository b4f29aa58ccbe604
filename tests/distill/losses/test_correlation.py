from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    Capture,
    LSPLoss,
    SpatialCorrelationLoss,
    TeacherCaptures,
    TemporalCorrelationLoss,
)
from pyg_stkd.functional.structures.spatial import spatial_correlation
from pyg_stkd.functional.structures.temporal import temporal_correlation
from pyg_stkd.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

EDGES = torch.tensor([[1, 2, 3, 0, 2, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2, 2, 3, 3]])
LOSSES = [SpatialCorrelationLoss, TemporalCorrelationLoss]


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 4, 2).double(), torch.randn(2, 3, 4, 5).double()


def captures(
    s: Tensor, t: Tensor, edges: object = EDGES, nodes: Tensor | None = None
) -> tuple[Capture, Capture]:
    student = Capture(s, {"edge_index": edges}, layer="b", nodes=nodes)
    return student, Capture(t, {"edge_index": edges}, layer="a", owner="teacher")


def expected(cls: type, s: Tensor, t: Tensor, **options: object) -> Tensor:
    if cls is SpatialCorrelationLoss:
        return spatial_correlation(s, t, EDGES, **options)  # type: ignore[arg-type]
    return temporal_correlation(s, t, **options)  # type: ignore[arg-type]


def naive_spatial(s: Tensor, t: Tensor) -> float:
    loss, slices = LSPLoss("a", "b"), zip(s.flatten(0, 1), t.flatten(0, 1), strict=True)
    return sum(loss(*captures(a, b)).item() for a, b in slices) / (s.size(0) * s.size(1))


def test_spatial_is_lsp_in_each_slice(features: tuple[Tensor, Tensor]) -> None:
    loss = SpatialCorrelationLoss("a", "b")
    assert loss.name == "spatial_correlation"
    assert loss(*captures(*features)).item() == pytest.approx(naive_spatial(*features), rel=1e-10)


def test_temporal_is_lsp_of_the_complete_graph_of_steps(features: tuple[Tensor, Tensor]) -> None:
    s, t = features
    steps = torch.ones(3, 3).fill_diagonal_(0).nonzero().t()
    lsp, total = LSPLoss("a", "b"), 0.0
    for b in range(2):
        for n in range(4):
            total += lsp(*captures(s[b, :, n], t[b, :, n], steps)).item()
    loss = TemporalCorrelationLoss("a", "b")
    assert loss.name == "temporal_correlation"
    assert loss(*captures(s, t)).item() == pytest.approx(total / 8, rel=1e-10)


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel": kernels.Cosine()},
        {"direction": "teacher"},
        {"normalize": "layer", "kernel": kernels.RBF(sigma="median")},
    ],
    ids=lambda o: "-".join(o),
)
def test_options_reach_the_function(
    cls: type, options: dict[str, object], features: tuple[Tensor, Tensor]
) -> None:
    ours = cls("a", "b", **options)(*captures(*features))
    torch.testing.assert_close(ours, expected(cls, *features, **options))


@pytest.mark.parametrize("cls", LOSSES)
def test_gradcheck(cls: type, features: tuple[Tensor, Tensor]) -> None:
    loss = cls("a", "b")
    s, t = features[0].requires_grad_(), features[1]
    assert gradcheck(lambda s: loss(*captures(s, t)), s)


@pytest.mark.parametrize("cls", LOSSES)
def test_lengths_are_aligned_at_the_last_step(cls: type, features: tuple[Tensor, Tensor]) -> None:
    s, t = features
    longer = torch.cat([torch.randn(2, 4, 4, 5).double(), t], dim=1)
    torch.testing.assert_close(cls("a", "b")(*captures(s, longer)), expected(cls, s, t))


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize(
    "nodes", [torch.tensor([3, 0]), torch.tensor([True, False, False, True])], ids=["index", "mask"]
)
def test_nodes(cls: type, nodes: Tensor, features: tuple[Tensor, Tensor]) -> None:
    ours = cls("a", "b")(*captures(*features, nodes=nodes))
    torch.testing.assert_close(ours, expected(cls, *features, nodes=nodes))


@pytest.mark.parametrize("cls", LOSSES)
def test_structure_of_a_fixed_teacher_is_computed_once(
    cls: type, features: tuple[Tensor, Tensor]
) -> None:
    student, teacher = captures(*features)
    known = TeacherCaptures({"a": (teacher.freeze(),)})["a"][0]
    loss = cls("a", "b")
    value = expected(cls, *features)
    torch.testing.assert_close(loss(student, known), value)
    known._versions = {}  # the check for in-place operations is not what is tested here
    known.value.fill_(float("nan"))  # nobody looks at the features again
    torch.testing.assert_close(loss(student, known), value)


class Scaled(kernels.Kernel):
    """A kernel with a tensor of its own, or with something that nobody can compare."""

    measure = "inner"

    def __init__(self, factor: object) -> None:
        self.factor = factor

    def __call__(self, value: Tensor) -> Tensor:
        factor = self.factor if isinstance(self.factor, Tensor) else self.factor["it"]  # type: ignore
        return value * factor


@pytest.mark.parametrize("cls", [LSPLoss, *LOSSES])
@pytest.mark.parametrize("kind", ["sigma", "tensor", "dict"])
def test_a_changed_kernel_measures_the_fixed_teacher_again(
    cls: type, kind: str, features: tuple[Tensor, Tensor]
) -> None:
    s, t = (h[0, 0] for h in features) if cls is LSPLoss else features
    factor = torch.tensor(1.0).double()
    kernel = kernels.RBF(0.5) if kind == "sigma" else Scaled(factor)
    if kind == "dict":
        kernel = Scaled({"it": factor})
    student, teacher = captures(s, t)
    known = TeacherCaptures({"a": (teacher.freeze(),)})["a"][0]
    student, loss = student.at(None, known.graphs), cls("a", "b", kernel=kernel)
    before = loss(student, known)
    torch.testing.assert_close(loss(student, known), before)
    if kind == "sigma":
        kernel.sigma = 3.0  # type: ignore[attr-defined]
    else:
        factor.fill_(0.1)
    after = loss(student, known)
    torch.testing.assert_close(after, loss(student, teacher))
    assert abs(after - before) > 1e-4


def test_blocks_are_shared_by_the_captures_of_many_batches(
    features: tuple[Tensor, Tensor],
) -> None:
    loss, made = SpatialCorrelationLoss("a", "b"), []
    for _ in range(3):  # the same edges, each time as another tensor
        student, teacher = captures(*features, edges=EDGES.clone())
        known = TeacherCaptures({"a": (teacher.freeze(),)})["a"][0]
        loss(student, known)
        made.append(known.memo[loss][0])
    assert made[0] is made[1] is made[2]


@pytest.mark.parametrize("cls", LOSSES)
def test_copies_and_pickles(cls: type, features: tuple[Tensor, Tensor]) -> None:
    loss = cls("a", "b", weight=3.0)
    value = loss(*captures(*features))
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert other.weight == 3.0
        torch.testing.assert_close(other(*captures(*features)), value)


def test_official_preset_and_self_loops(features: tuple[Tensor, Tensor]) -> None:
    loss = SpatialCorrelationLoss.official("a", "b")
    assert isinstance(loss, SpatialCorrelationLoss)
    assert (loss.direction, loss.factor(30)) == ("teacher", 0.0)
    loops = torch.cat([EDGES, torch.arange(4).expand(2, -1)], dim=1)
    ours = SpatialCorrelationLoss("a", "b", self_loops="drop")(*captures(*features, edges=loops))
    torch.testing.assert_close(ours, expected(SpatialCorrelationLoss, *features))


class Model(nn.Module):
    """One layer on sequences [B, T, N, C] with a graph."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = Layer(width)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor, edge_index: object) -> Tensor:
        return self.head(self.layer(x, edge_index))[:, -1]


class Layer(nn.Linear):
    def __init__(self, width: int) -> None:
        super().__init__(2, width)

    def forward(self, x: Tensor, edge_index: object) -> Tensor:  # type: ignore[override]
        return super().forward(x)


@pytest.mark.parametrize("edges", [EDGES, Graph(EDGES, 4)], ids=["tensor", "graph"])
def test_in_a_distiller(edges: object) -> None:
    teacher, student = Model(6), Model(3)
    losses = [cls("layer", "layer", weight=2.0) for cls in LOSSES]
    distiller = Distiller(teacher, student, losses)
    x = torch.randn(2, 3, 4, 2)
    _, values = distiller(x, edges)
    s, t = student.layer(x, edges), teacher.layer(x, edges)
    for cls, value in zip(LOSSES, values.values(), strict=True):
        torch.testing.assert_close(value, 2 * expected(cls, s, t))
    sum(values.values()).backward()
    assert student.layer.weight.grad is not None
    captured = distiller.capture_teacher(x, edges)
    for _ in range(2):
        _, again = distiller(x, edges, teacher=captured)
        torch.testing.assert_close(again, values)


@pytest.mark.parametrize("cls", LOSSES)
def test_errors(cls: type, features: tuple[Tensor, Tensor]) -> None:
    s, t = features
    with pytest.raises(ValueError, match=r"student layer 'b' must be a sequence \[B, T, N, C\]"):
        cls("a", "b")(*captures(s[0], t))
    with pytest.raises(ValueError, match="must have the same batch and nodes"):
        cls("a", "b")(*captures(s, t[:1]))
    with pytest.raises(TypeError, match=r"'kernel' must be a Kernel \(got 'rbf'\)"):
        cls("a", "b", kernel="rbf")
    with pytest.raises(ValueError, match=r"'direction' must be one of .* \(got 'up'\)"):
        cls("a", "b", direction="up")
    with pytest.raises(ValueError, match=r"'normalize' must be one of .* \(got 'batch'\)"):
        cls("a", "b", normalize="batch")


@pytest.mark.parametrize("cls", LOSSES)
@pytest.mark.parametrize("frozen", [False, True])
def test_an_empty_batch(cls: type, frozen: bool, features: tuple[Tensor, Tensor]) -> None:
    s, t = (h[:0] for h in features)
    student, teacher = captures(s.requires_grad_(), t)
    if frozen:
        teacher = TeacherCaptures({"a": (teacher.freeze(),)})["a"][0]
    loss = cls("a", "b")
    for _ in range(2):
        value = loss(student, teacher)
        assert value.item() == 0
        assert torch.autograd.grad(value, s)[0].shape == s.shape
