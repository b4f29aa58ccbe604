"""Tests of pyg_stkd/prune/algorithm/adapters.py: what of a loss follows, and what stays."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_stkd.distill import ContrastiveLoss, Distiller, HintLoss, Teachers
from pyg_stkd.distill.losses.base import DistillationLoss
from pyg_stkd.distill.losses.projection import Projection
from pyg_stkd.prune import Magnitude, Pruner, distill_and_prune
from pyg_stkd.prune.algorithm.adapters import check_adapters, narrow_adapters

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def mlp(width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def make(*losses: DistillationLoss, teacher: Any = None) -> tuple[Distiller, Pruner]:
    student = mlp()
    distiller = Distiller(mlp() if teacher is None else teacher, student, list(losses))
    return distiller, Pruner(student, Magnitude(), keep=(0.6, 0.4), rho=0.2)


def widths(module: nn.Module) -> list[tuple[int, int]]:
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    assert all(m.weight.shape == (m.out_features, m.in_features) for m in linears)
    return [(m.in_features, m.out_features) for m in linears]


def chain(*sizes: int, norm: bool = False) -> nn.Sequential:
    steps: list[nn.Module] = []
    for a, b in pairwise(sizes):
        steps += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*steps[: -2 if norm else -1])


class Own(DistillationLoss):
    """Compares by modules that are given to it; those called `theirs` take the teacher's."""

    def __init__(self, student: Any, **modules: nn.Module) -> None:
        super().__init__("0", "0")
        self.student = student
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, student: Any, teacher: Any, target: Any = None) -> Tensor:
        t = teacher.features
        for name, module in self.named_children():
            t = module(t) if name == "theirs" else t
        return F.mse_loss(self.student(self, student.features), t)


class Told(Own):
    """Says which of them take the student's."""

    def __init__(self, student: Any, names: list[str], **modules: nn.Module) -> None:
        super().__init__(student, **modules)
        self.names = names

    def student_maps(self) -> list[nn.Module]:
        return [getattr(self, name) for name in self.names]


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        (chain(16, 16), [(5, 16)]),
        (chain(16, 16, 16), [(5, 16), (16, 16)]),
        (chain(16, 24, 16), [(5, 24), (24, 16)]),
        (chain(16, 24, 16, norm=True), [(5, 24), (24, 16)]),
        (nn.Sequential(nn.ReLU(), chain(16, 16, 16)), [(5, 16), (16, 16)]),
    ],
)
def test_the_first_map_of_a_chain_follows(projection: nn.Module, expected: Any) -> None:
    distiller, pruner = make(HintLoss("0", "0", projection=projection))
    kept = torch.arange(16) % 3 == 1
    pruner.mask({"0": kept})
    first = next(m for m in projection.modules() if isinstance(m, nn.Linear))
    columns = first.weight[:, kept].detach().clone()
    distiller.eval()
    before = distiller(X)[1]["hint"]
    narrow_adapters(distiller, pruner)
    pruner.shrink()
    assert widths(projection) == expected
    assert torch.equal(first.weight, columns)
    torch.testing.assert_close(distiller(X)[1]["hint"], before)


def test_maps_of_the_teacher_stay() -> None:
    loss = ContrastiveLoss("0", "0", channels=16, in_channels=(16, 16))
    distiller, pruner = make(loss)
    distiller(X)
    pruner.step(share=0.5)
    distiller.eval()
    before = distiller(X)[1]["contrastive"]
    narrow_adapters(distiller, pruner)
    pruner.shrink()
    assert widths(loss.teacher_head) == [(16, 16)]
    assert widths(loss.student_head) == [(pruner.widths["0"], 16)]
    torch.testing.assert_close(distiller(X)[1]["contrastive"], before)


@pytest.mark.parametrize("layer", ["0", "2"])
def test_all_stages_with_a_contrastive_loss(layer: str) -> None:
    loss = ContrastiveLoss(layer, layer, channels=12)
    distiller, pruner = make(loss)
    loader = [(X, torch.arange(12) % 3)]
    stages = [
        *distill_and_prune(
            distiller, pruner, loader, F.cross_entropy, optimizer=torch.optim.Adam, epochs=1
        )
    ]
    assert [stage.share <= stage.target for stage in stages] == [True, True]
    width = pruner.widths["0"]
    assert widths(loss.student_head) == [(width if layer == "0" else 3, 12)]
    assert widths(loss.teacher_head) == [(16 if layer == "0" else 3, 12)]


def test_copies_for_further_teachers_follow() -> None:
    loss = HintLoss("0", "0", projection=chain(16, 16, 16))
    distiller, pruner = make(loss, teacher=Teachers([mlp(), mlp()]))
    pruner.mask({"0": torch.arange(16) < 5})
    narrow_adapters(distiller, pruner)
    assert widths(loss) == [(5, 16), (16, 16)] * 2


def test_nothing_is_changed_where_one_is_refused() -> None:
    first = HintLoss("0", "0", name="first", projection=nn.Linear(16, 16))
    norm = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 16))
    distiller, pruner = make(first, HintLoss("0", "0", projection=norm))
    narrow_adapters(distiller, pruner)  # all channels are kept
    pruner.mask({"0": torch.arange(16) < 5})
    for function in (check_adapters, narrow_adapters):
        with pytest.raises(ValueError, match=r"loss 'hint' \(BatchNorm1d\) follow .* layer '0'"):
            function(distiller, pruner)
    assert widths(first) == [(16, 16)]
    distiller(X)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            Told(
                lambda loss, x: loss.a(x) + loss.b(x),
                ["a", "b"],
                a=nn.Linear(16, 8),
                b=nn.Linear(16, 8),
                theirs=nn.Linear(16, 8),
            ),
            [(5, 8), (5, 8), (16, 8)],
        ),
        (
            Told(
                lambda loss, x: loss.ours(x),
                ["ours"],
                ours=nn.Linear(16, 16),
                theirs=nn.Linear(16, 16),
            ),
            [(5, 16), (16, 16)],
        ),
        (
            Told(
                lambda loss, x: loss.b(loss.a(x)),
                ["a"],
                a=nn.Linear(16, 16),
                b=nn.Linear(16, 16),
            ),
            [(5, 16), (16, 16)],
        ),
        (  # the only one of the width
            Own(lambda loss, x: loss.b(loss.a(x)), a=nn.Linear(16, 24), b=nn.Linear(24, 16)),
            [(5, 24), (24, 16)],
        ),
    ],
)
def test_losses_of_the_user(loss: Own, expected: Any) -> None:
    loss.name = "own"
    distiller, pruner = make(loss)
    pruner.mask({"0": torch.arange(16) < 5})
    before = distiller(X)[1]["own"]
    check_adapters(distiller, pruner)
    narrow_adapters(distiller, pruner)
    pruner.shrink()
    assert widths(loss) == expected
    torch.testing.assert_close(distiller(X)[1]["own"], before)


def test_all_stages_with_maps_of_any_name() -> None:
    loss = Told(
        lambda loss, x: loss.ours(x), ["ours"], ours=nn.Linear(16, 12), theirs=nn.Linear(16, 12)
    )
    distiller, pruner = make(loss)
    loader = [(X, torch.arange(12) % 3)]
    adam = torch.optim.Adam
    assert len([*distill_and_prune(distiller, pruner, loader, F.cross_entropy, optimizer=adam)])
    assert widths(loss) == [(pruner.widths["0"], 12), (16, 12)]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"ours": nn.Linear(16, 16), "theirs": nn.Linear(16, 16)},
            r"Loss 'own' must say which .* override student_maps\(\) \(got \[Linear",
        ),
        (
            {"ours": Projection(), "theirs": Projection()},
            r"Loss 'own' must say which .* override student_maps",
        ),
        (
            {"a": nn.Sequential(nn.LayerNorm(16, elementwise_affine=False), nn.Linear(16, 16))},
            r"weights of loss 'own' \(LayerNorm\) follow",
        ),
        (
            {"a": nn.Sequential(nn.BatchNorm1d(16, affine=False), nn.Linear(16, 16))},
            r"weights of loss 'own' \(BatchNorm1d\) follow",
        ),
    ],
)
def test_what_cannot_be_told_is_refused(modules: Any, message: str) -> None:
    distiller, pruner = make(Own(lambda loss, x: x, **modules))
    with pytest.raises(ValueError, match=message):
        check_adapters(distiller, pruner)
    with pytest.raises(ValueError, match=message):  # before the first stage, too
        distill_and_prune(distiller, pruner, [], F.cross_entropy, optimizer=torch.optim.Adam)
    assert pruner.share == 1


def test_weights_of_the_loss_itself_are_refused() -> None:
    loss = Own(lambda loss, x: x * loss.scale)
    loss.scale = nn.Parameter(torch.ones(16))
    with pytest.raises(ValueError, match=r"weights of loss 'own' \(Own\) follow"):
        check_adapters(*make(loss))


def test_maps_of_another_width_are_refused() -> None:
    loss = Told(lambda loss, x: loss.a(x), ["a"], a=nn.Linear(8, 16))
    with pytest.raises(ValueError, match=r"'student_maps' of loss 'told' must .* 16 channels"):
        check_adapters(*make(loss))


def test_a_map_of_two_layers_is_refused() -> None:
    shared = nn.Linear(16, 16)
    student = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 3))
    losses = [HintLoss("0", layer, name=layer, projection=shared) for layer in ("0", "2")]
    distiller = Distiller(mlp(), student, losses)
    pruner = Pruner(student, Magnitude(), keep=0.5)
    pruner.mask({"0": torch.arange(16) < 5, "2": torch.arange(16) > 5})
    with pytest.raises(ValueError, match=r"must not share a linear map of two layers \(got '2'\)"):
        narrow_adapters(distiller, pruner)
    assert widths(shared) == [(16, 16)]
