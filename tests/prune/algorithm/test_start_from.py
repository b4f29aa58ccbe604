"""Tests of pyg_stkd/prune/algorithm/start_from.py: students that start as the pruned teacher."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GCNConv

from pyg_stkd import Distiller
from pyg_stkd.distill import SoftTargetLoss
from pyg_stkd.prune import KDIS, Magnitude, Pruner, Random, start_from
from pyg_stkd.prune.compaction.compact import plain_copy

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])


def gcn(**kwargs: Any) -> GCN:
    torch.manual_seed(0)
    return GCN(4, 32, 3, 3, **kwargs).double()


def batches(count: int = 3) -> list[tuple[Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(6, 4, generator=random, dtype=torch.float64),
            EDGES,
            torch.randint(3, (6,), generator=random),
        )
        for _ in range(count)
    ]


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_is_the_compacted_teacher() -> None:
    teacher = gcn()
    before = copy.deepcopy(teacher.state_dict())
    student = start_from(teacher, keep=0.3)
    by_hand = Pruner(plain_copy(teacher), Magnitude(), keep=0.3)
    by_hand.step()
    expected, x = by_hand.compact(), batches()[0][0]
    assert type(student) is GCN
    assert size(student) == size(expected) <= 0.3 * size(teacher)
    assert torch.equal(student(x, EDGES), expected(x, EDGES))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert student.convs[0].out_channels == student.convs[0].bias.numel() < 32


def test_a_frozen_teacher_in_eval_mode_gives_a_student_to_train() -> None:
    teacher = gcn(dropout=0.5).eval()
    Distiller(teacher, GCN(4, 8, 2, 3).double(), [SoftTargetLoss()])  # freezes it, with hooks
    student = start_from(teacher, keep=0.3)
    assert student.training
    assert all(module.training for module in student.modules())
    assert all(p.requires_grad for p in student.parameters())
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())
    kdis = start_from(teacher, 0.3, calibration=batches(), criterion=F.cross_entropy)
    assert all(p.requires_grad for p in kdis.parameters())


def test_kdis_scores_the_criterion_on_all_batches() -> None:
    teacher, seen = gcn(), []

    def criterion(out: Tensor, y: Tensor) -> Tensor:
        seen.append(y)
        return F.cross_entropy(out, y)

    student = start_from(teacher, 0.4, calibration=batches(), criterion=criterion)
    assert len(seen) == 3
    copied = plain_copy(teacher)
    pruner = Pruner(copied, KDIS(), keep=0.4)
    pruner.step(F.cross_entropy(copied(x, e), y) for x, e, y in batches())
    widths = [conv.out_channels for conv in pruner.compact().convs]
    assert [conv.out_channels for conv in student.convs] == widths
    magnitude = start_from(teacher, 0.4, calibration=batches())
    assert len(seen) == 3
    assert size(magnitude) <= 0.4 * size(teacher)


def test_nodes_of_a_mask_are_scored_alone() -> None:
    (x, edge_index, y), *_ = batches()
    mask = torch.tensor([True, False, True, True, False, False])
    data = Data(x=x, edge_index=edge_index, y=y.where(mask, -(10**9)), train_mask=mask)
    student = start_from(gcn(), 0.4, calibration=[data], criterion=F.cross_entropy)
    by_hand = start_from(
        gcn(), 0.4, calibration=[(x, edge_index, y)],
        criterion=lambda out, y: F.cross_entropy(out[mask], y[mask]),
    )  # fmt: skip
    assert torch.equal(student(x, edge_index), by_hand(x, edge_index))


def test_nodes_of_a_mask_without_labels_are_refused_before_anything_is_pruned() -> None:
    (x, edge_index, y), *_ = batches()
    data = Data(x=x, edge_index=edge_index, y=y[:5], train_mask=torch.ones(6, dtype=torch.bool))
    criterion = lambda out, y: pytest.fail("it was scored")  # noqa: E731
    rule = r"'loader' must give Data with a y of one row for each of the 6 nodes.*\(got \[5\]\)"
    with pytest.raises(ValueError, match=rule):
        start_from(gcn(), 0.4, calibration=[data], criterion=criterion)


def test_means_and_statistics_are_those_of_the_calibration_batches() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    data = [(torch.randn(20, 4, dtype=torch.float64), torch.zeros(20)) for _ in range(3)]
    x = torch.cat([x for x, _ in data])
    student = start_from(teacher, 0.5, calibration=data)
    assert student[0].out_features < 16
    torch.testing.assert_close(student(x).mean(0), teacher(x).mean(0))
    plain = start_from(teacher, 0.5)
    assert (plain(x).mean(0) - teacher(x).mean(0)).abs().max() > 1e-3
    normed = start_from(gcn(norm="batch_norm"), 0.5, calibration=batches())
    for norm in normed.norms[:2]:
        assert norm.module.num_batches_tracked == 3


def test_several_shares_are_pruned_one_after_the_other() -> None:
    scores: list[float] = []

    class Spy(Magnitude):
        def score(self, weights: Any, losses: Any) -> Any:
            scores.append(sum(float((w != 0).sum()) for w in weights.values()))
            return super().score(weights, losses)

    student = start_from(gcn(), keep=(0.5, 0.2), importance=Spy())
    assert len(scores) == 2
    assert size(student) <= 0.2 * size(gcn())


def test_the_inputs_of_a_batch_are_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Spy(Pruner):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.append(kwargs["example"])
            super().__init__(*args, **kwargs)

    monkeypatch.setitem(start_from.__globals__, "Pruner", Spy)
    data = batches()
    start_from(gcn(), 0.5, calibration=data)
    mine = (data[0][0].clone(), data[0][1])
    start_from(gcn(), 0.5, calibration=data, example=mine)
    start_from(gcn(), 0.5)
    assert [a is b for a, b in zip(seen[0], data[0][:2], strict=True)] == [True, True]
    assert seen[1] is mine
    assert seen[2] is None


def test_options_are_those_of_the_pruner() -> None:
    teacher = gcn()
    student = start_from(teacher, 0.6, ignore=["convs.2"], rho=0.0, min_width=1)
    assert student.convs[0].out_channels < student.convs[2].in_channels == 32
    with pytest.raises(ValueError, match="'granularity' must be"):
        start_from(teacher, 0.3, granularity="rows")
    assert size(start_from(teacher, 0.3, importance=Random(seed=0))) <= 0.3 * size(teacher)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"importance": KDIS()}, ValueError, r"'calibration' and 'criterion' .*no calibration\)"),
        (
            {"importance": KDIS(), "calibration": [(1, 2)]},
            ValueError,
            r"'calibration' and 'criterion' must be given for KDIS.* \(got no criterion\)",
        ),
        ({"calibration": []}, ValueError, r"'calibration' must give at least one batch"),
        ({"calibration": 3}, TypeError, r"'calibration' must be batches, not .* \(got 3\)"),
        ({"calibration": iter([1])}, TypeError, r"'calibration' must be .* more than once"),
    ],
)
def test_what_does_not_fit_is_refused(kwargs: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        start_from(gcn(), 0.3, **kwargs)


def test_the_teacher_must_be_a_module() -> None:
    with pytest.raises(TypeError, match=r"'teacher' must be a Module \(got 'teacher'\)"):
        start_from("teacher")  # type: ignore[arg-type]


class Net(nn.Module):
    """A model without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(4, 24), GCNConv(24, 24)
        self.lin = nn.Linear(48, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = self.conv1(x, edge_index).relu()
        return self.lin(torch.cat([first, self.conv2(first, edge_index).relu()], dim=-1))


def test_models_of_ones_own_need_inputs_alone() -> None:
    torch.manual_seed(0)
    teacher = Net().double()
    x, edge_index, _ = batches()[0]
    with pytest.raises(ValueError, match="'example' must be given for a model class without a r"):
        start_from(teacher, 0.5)
    student = start_from(teacher, 0.5, example=(x, edge_index))
    assert type(student) is Net
    assert size(student) <= 0.5 * size(teacher)
    scored = start_from(teacher, 0.5, calibration=batches(), criterion=F.cross_entropy)
    assert scored.lin.in_features == scored.conv1.out_channels + scored.conv2.out_channels < 48


def test_teachers_in_wrappers_are_looked_through() -> None:
    teacher = gcn()
    expected = start_from(teacher, 0.4)
    student = start_from(nn.DataParallel(teacher), 0.4)
    x = batches()[0][0]
    assert type(student) is GCN
    assert torch.equal(student(x, EDGES), expected(x, EDGES))


class Encoder(nn.Module):
    """A model without a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 3)

    def encode(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


def test_models_without_a_forward_are_called_otherwise() -> None:
    torch.manual_seed(0)
    teacher, x = Encoder().double(), torch.randn(20, 4, dtype=torch.float64)
    y = torch.arange(20) % 3

    def call(model: Any, x: Tensor) -> Tensor:
        return model.encode(x)

    student = start_from(teacher, 0.5, calibration=[(x, y)], criterion=F.cross_entropy, call=call)
    assert student.first.out_features < 16
    torch.testing.assert_close(student.encode(x).mean(0), teacher.encode(x).mean(0))
