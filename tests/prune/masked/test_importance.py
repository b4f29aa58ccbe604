"""Tests of pyg_stkd/prune/importance.py: against formulas and the true change of the loss."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GCN

from pyg_stkd.distill import Distiller, SoftTargetLoss
from pyg_stkd.prune import KDIS, Importance, Magnitude, Pruner, Random

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])


def quadratic() -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
    w = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    xs = [torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[-1.0, 0.5]]).double()]
    losses = [(x @ w).square().sum() for x in xs]
    grads = [2 * x.t() @ (x @ w.detach()) for x in xs]  # by hand
    return {"w": w}, losses, grads


@pytest.mark.parametrize("kind", ["plain", "signed", "squared"])
def test_kdis_is_weight_times_gradient(kind: str) -> None:
    weights, losses, grads = quadratic()
    w = weights["w"].detach()
    expected = {
        "plain": sum((w * g).abs() for g in grads) / 2,
        "squared": sum((w * g) ** 2 for g in grads) / 2,
        "signed": sum(w * g for g in grads) / 2,
    }[kind]
    importance = KDIS(signed=kind == "signed", squared=kind == "squared")
    score = importance.score(weights, losses)["w"]
    torch.testing.assert_close(score, expected)
    torch.testing.assert_close(importance.finish(score), score.abs())


def test_gradients_of_parameters_are_left_alone() -> None:
    weights, losses, _ = quadratic()
    KDIS().score(weights, losses)
    assert weights["w"].grad is None


def test_unused_and_frozen_weights_score_zero() -> None:
    w, v, u = (torch.ones(2, requires_grad=i != 1) for i in range(3))
    scores = KDIS().score({"w": w, "v": v, "u": u}, [(w * v).sum()])
    assert (scores["v"].tolist(), scores["u"].tolist()) == ([0, 0], [0, 0])


def small_world() -> tuple[GCN, Distiller, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    teacher, student = GCN(4, 16, 2, 3).double(), GCN(4, 12, 3, 3).double()
    batches = [(torch.randn(6, 4).double(), torch.randint(3, (6,))) for _ in range(4)]
    distiller = Distiller(teacher, student, [SoftTargetLoss(temperature=2.0)])
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    for _ in range(30):
        for x, y in batches:
            optimizer.zero_grad()
            full_loss(distiller, x, y).backward()
            optimizer.step()
    return student, distiller, batches


def full_loss(distiller: Distiller, x: Tensor, y: Tensor) -> Tensor:
    out, losses = distiller(x, EDGES)
    return F.cross_entropy(out, y) + sum(losses.values())


def test_signed_scores_are_the_first_order_change_of_the_full_loss() -> None:
    student, distiller, batches = small_world()
    pruner = Pruner(student, KDIS(signed=True), keep=0.5)
    layout = pruner._masked.layout  # type: ignore[attr-defined]
    scores = KDIS(signed=True).score(
        pruner._masked.weights(), (full_loss(distiller, x, y) for x, y in batches)
    )
    reduced = KDIS(signed=True).reduce(layout, scores)
    state = copy.deepcopy(student.state_dict())
    for unit in layout.groups[0].units[:4]:
        kept = torch.ones(len(layout.units)).bool()
        kept[unit] = False
        changes = []
        for sign in (1, -1):  # central differences along the direction of the group
            with torch.no_grad():
                for name, parameter in student.named_parameters():
                    step = 1e-5 * sign * (1 - layout.mask(name, kept).double())
                    parameter.mul_(1 + step)
                changes.append(sum(float(full_loss(distiller, x, y)) for x, y in batches) / 4)
            student.load_state_dict(state)
        slope = (changes[0] - changes[1]) / 2e-5
        assert reduced[unit].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


def spearman(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def test_kdis_agrees_better_than_magnitude_with_the_true_change() -> None:
    student, distiller, batches = small_world()
    pruner = Pruner(student, Random(), keep=0.5)
    layout = pruner._masked.layout  # type: ignore[attr-defined]
    units = [unit for group in layout.groups for unit in group.units]

    def loss() -> float:
        with torch.no_grad():
            return sum(float(full_loss(distiller, x, y)) for x, y in batches)

    before, state, changes = loss(), copy.deepcopy(student.state_dict()), []
    for unit in units:
        kept = torch.ones(len(layout.units)).bool()
        kept[unit] = False
        with torch.no_grad():
            for name, parameter in student.named_parameters():
                if name in layout.slices:
                    parameter.mul_(layout.mask(name, kept))
        changes.append(loss() - before)
        student.load_state_dict(state)
    true = torch.tensor(changes)
    weights = pruner._masked.weights()
    agreement = {}
    for importance in (KDIS(), Magnitude()):
        losses = (full_loss(distiller, x, y) for x, y in batches)
        scores = importance.reduce(layout, importance.score(weights, losses))
        agreement[type(importance)] = spearman(scores[units], true)
    assert agreement[KDIS] > agreement[Magnitude]
    assert agreement[KDIS] > 0.5


def test_magnitude() -> None:
    w = torch.tensor([1.0, -2.0, 0.0])
    assert Magnitude().score({"w": w}, None)["w"].tolist() == [1, 2, 0]
    assert Magnitude(2).score({"w": w}, None)["w"].tolist() == [1, 4, 0]
    with pytest.raises(ValueError, match=r"'p' must be finite and above 0 \(got 0\)"):
        Magnitude(0)


def test_random_is_uniform_over_channels_and_repeats() -> None:
    model = GCN(2, 200, 2, 2)
    layout = Pruner(model, Random())._masked.layout  # type: ignore[attr-defined]
    a, b = (Random(seed=3).reduce(layout, {}) for _ in range(2))
    assert torch.equal(a, b)
    assert abs(float(a.mean()) - 0.5) < 0.1
    assert 0 <= float(a.min()) < float(a.max()) < 1


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (None, "'losses' must hold a scalar loss for each batch"),
        ([], r"'losses' must hold at least one loss \(got none\)"),
        ([torch.ones(())], r"must depend on the model's parameters \(got one without grad\)"),
        ([torch.ones((), requires_grad=True) * 2], r"\(got one that does not\)"),
        ([torch.ones(2, requires_grad=True) * 2], r"must hold scalars.*\(got \[2\]\)"),
        ([3.0], r"must hold scalars.*\(got float\)"),
        ([torch.tensor(float("nan"), requires_grad=True) * 2], r"must be finite \(got nan\)"),
    ],
)
def test_bad_losses_leave_the_model_as_it_was(losses: object, message: str) -> None:
    model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1))
    state = copy.deepcopy(model.state_dict())
    pruner = Pruner(model, KDIS(), keep=0.5)
    with pytest.raises(ValueError, match=message):
        pruner.step(losses)  # type: ignore[arg-type]
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert pruner.stage == 0


def test_kdis_of_a_frozen_model_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1)).requires_grad_(False)
    x = torch.ones(3, 2, requires_grad=True)
    with pytest.raises(ValueError, match=r"'weights' must hold some that require .*\(got none\)"):
        Pruner(model, KDIS(), keep=0.5).step([model(x).sum()])
    assert not hasattr(model[0], "weight_mask")
    model[1].requires_grad_(True)  # what is frozen has no score
    scores = KDIS().score(dict(model.named_parameters()), [model(x).sum()])
    assert not scores["0.weight"].any()
    torch.testing.assert_close(scores["1.bias"], 3 * model[1].bias.detach().abs())


def test_scores_must_be_finite() -> None:
    class Broken(Importance):
        def score(self, weights, losses):  # type: ignore[no-untyped-def]
            return {name: weight * float("nan") for name, weight in weights.items()}

    model = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"must give finite scores \(got NaN for '0.weight'\)"):
        Pruner(model, Broken(), keep=0.5).step()
    assert not hasattr(model[0], "weight_mask")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="'signed' and 'squared' must not both be set"):
        KDIS(signed=True, squared=True)


def test_squares_of_small_terms_keep_their_order() -> None:
    w = torch.full((8,), 1e-20).requires_grad_()
    score = KDIS(squared=True).score({"w": w}, [(w * torch.arange(1.0, 9) * 1e-3).sum()])["w"]
    assert (score > 0).all()
    assert (score.diff() > 0).all()
