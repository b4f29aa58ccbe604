"""Tests of pyg_stkd/prune/algorithm.py and its parts: Algorithm 1, end to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GIN, GCNConv, GraphSAGE

from pyg_stkd.distill import Distiller, HintLoss, LSPLoss, SoftTargetLoss, TeacherCache
from pyg_stkd.distill.training import unpack
from pyg_stkd.kernels import SquaredEuclidean
from pyg_stkd.nn import STGCN
from pyg_stkd.prune import KDIS, Magnitude, Pruner, distill_and_prune
from pyg_stkd.prune.algorithm.adapters import narrow_adapters
from pyg_stkd.prune.algorithm.compensate import add_means
from pyg_stkd.prune.algorithm.steps import measure, recalibrate
from pyg_stkd.prune.compaction.compact import plain_copy

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])


def make(seed: int = 0, keep: Any = (0.6, 0.3), **kwargs: Any) -> tuple[Distiller, Pruner]:
    torch.manual_seed(seed)
    teacher = GCN(4, 16, 2, 3)
    student = GCN(4, 16, 3, 3, norm="batch_norm")
    losses = [
        SoftTargetLoss(temperature=2.0),
        HintLoss("convs.0", "convs.1", in_channels=16, out_channels=16),
        LSPLoss("convs.0", "convs.0", kernel=SquaredEuclidean()),
    ]
    pruner = Pruner(student, KDIS(), keep=keep, rho=0.3, **kwargs)
    return Distiller(teacher, student, losses), pruner


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            2 * torch.randn(6, 4, generator=generator),
            EDGES,
            torch.randint(3, (6,), generator=generator),
        )
        for _ in range(2)
    ]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def run(distiller: Distiller, pruner: Pruner, **kwargs: Any) -> list[Any]:
    options: dict[str, Any] = {
        "optimizer": adam,
        "epochs": (1, 2),
    }
    torch.manual_seed(5)
    stages = distill_and_prune(
        distiller, pruner, batches(), F.cross_entropy, **{**options, **kwargs}
    )
    return list(stages)


def output(pruner: Pruner) -> Tensor:
    return pruner.model.eval()(batches()[0][0], EDGES).detach()


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_stages_prune_shrink_and_learn(granularity: Any) -> None:
    distiller, pruner = make(granularity=granularity, keep=(0.6, 0.4))
    student, seen = pruner.model, []
    total = sum(p.numel() for p in student.parameters())
    stages = run(distiller, pruner, validate=lambda model: seen.append(model) or len(seen))
    assert [stage.stage for stage in stages] == [1, 2]
    assert [stage.target for stage in stages] == [0.6, 0.4]
    assert [stage.metric for stage in stages] == [1.0, 2.0]
    assert set(seen) == {student}
    assert distiller.student is student
    for stage in stages:
        assert stage.share == stage.num_parameters / total <= stage.target
        assert set(stage.losses) == {"loss", "task", "soft_target", "hint", "lsp"}
        parts = sum(value for name, value in stage.losses.items() if name != "loss")
        assert stage.losses["loss"] == pytest.approx(parts, rel=1e-5)
        assert stage.seconds > 0
    left = sum(p.numel() for p in student.parameters())
    if granularity == "channel":
        assert left == stages[1].num_parameters
        assert not any("mask" in name for name in student.state_dict())
        assert stages[0].flops > stages[1].flops
        adapter = distiller.losses["hint"].projection
        assert adapter.in_features == adapter.weight.size(1) == student.convs[1].out_channels
    else:
        assert left == total
        assert stages[0].flops == stages[1].flops
    small = pruner.compact()
    assert not any(m._forward_hooks for m in small.modules())
    torch.testing.assert_close(small.eval()(batches()[0][0], EDGES), output(pruner))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_other_nodes_of_a_graph_are_its_unlabelled_part(unlabelled: bool) -> None:
    x, edge_index, y = batches()[0]
    mask = torch.tensor([True, False, True, True, False, False])
    data = Data(x=x, edge_index=edge_index, y=y.where(mask, -(10**9)), train_mask=mask)
    more = {"unlabelled": [data]} if unlabelled else {}
    losses = []
    for loader, criterion in (
        ([data], F.cross_entropy),
        ([(x, edge_index, y)], lambda out, y: F.cross_entropy(out[mask], y[mask])),
    ):
        if not isinstance(loader[0], Data) and unlabelled:
            more = {"unlabelled": [(x, edge_index)]}
        distiller, pruner = make()
        torch.manual_seed(5)
        stages = distill_and_prune(
            distiller, pruner, loader, criterion, optimizer=adam, epochs=2, **more
        )
        losses.append([(stage.losses, stage.unlabelled) for stage in stages])
    assert losses[0] == losses[1]


def test_nodes_of_a_mask_without_labels_are_refused() -> None:
    x, edge_index, y = batches()[0]
    data = Data(x=x, edge_index=edge_index, y=y[:5], train_mask=torch.ones(6, dtype=torch.bool))
    rule = r"must give Data with a y of one row for each of the 6 nodes.*\(got \[5\]\)"
    for more in ({}, {"unlabelled": [data]}):
        with pytest.raises(ValueError, match=rule):
            list(distill_and_prune(*make(), [data], F.cross_entropy, optimizer=adam, **more))


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_resumes_after_each_stage(tmp_path: Path, granularity: Any) -> None:
    options = {"granularity": granularity, "keep": (0.6, 0.4)}
    whole = make(**options)
    expected = run(*whole)
    path = tmp_path / "stages.pt"
    first = make(**options)
    torch.manual_seed(5)
    stages = distill_and_prune(
        *first, batches(), F.cross_entropy, optimizer=adam, epochs=(1, 2),
        checkpoint=path,
    )  # fmt: skip
    one = next(stages)
    stages.close()
    second = make(**options)
    resumed = run(*second, checkpoint=path)
    assert resumed[0] == one
    for a, b in zip(resumed, expected, strict=True):  # as if never interrupted
        assert replace(a, seconds=0.0) == replace(b, seconds=0.0)
    assert torch.equal(output(second[1]), output(whole[1]))
    third = make(**options)  # all is done: nothing is trained
    assert run(*third, checkpoint=path) == resumed
    assert torch.equal(output(third[1]), output(second[1]))
    assert third[0].state_dict().keys() == second[0].state_dict().keys()
    assert not path.with_name("stages.pt.part").exists()


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stages.pt"
    run(*make(), checkpoint=path)
    distiller, pruner = make(keep=(0.5, 0.3))
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    with pytest.raises(ValueError, match=r"'checkpoint' must have the first shares of 'keep'"):
        run(distiller, pruner, checkpoint=path)
    for name, value in distiller.state_dict().items():
        assert torch.equal(value, before[name])
    student = GCN(4, 12, 3, 3)
    other = Distiller(GCN(4, 8, 2, 3), student, [SoftTargetLoss()])
    with pytest.raises(ValueError, match="must be of a model with groups of these widths"):
        run(other, Pruner(student, KDIS(), keep=(0.6, 0.3)), checkpoint=path)
    distiller, pruner = make()
    fewer = Distiller(distiller.teacher, pruner.model, [SoftTargetLoss()])
    with pytest.raises(ValueError, match="must be of this distiller's student and losses"):
        run(fewer, pruner, checkpoint=path)
    assert pruner.stage == 0
    assert pruner.share == 1
    assert pruner.model.convs[0].out_channels == 16
    torch.save({"x": 1}, path)
    with pytest.raises(ValueError, match=r"must be a file of distill_and_prune \(got 'stages.pt'"):
        run(*make(), checkpoint=path)


def test_goes_back_halfway_if_the_metric_worsens() -> None:
    distiller, pruner = make(keep=(0.4,))
    metrics = iter([1.0, 2.0, 1.0, 1.0])  # before, 0.4 fails, sqrt(0.4), then 0.4 again
    stages = run(distiller, pruner, epochs=1, guard=0.1, validate=lambda model: next(metrics))
    assert stages[0].attempts == (0.4,)
    assert stages[0].share <= 0.4
    assert pruner.num_parameters == sum(p.numel() for p in pruner.model.parameters())
    metrics = iter([1.0, 2.0, float("nan"), 3.0, 0.0])
    distiller, pruner = make(keep=(0.4,))
    stages = run(
        distiller, pruner, epochs=1, guard=0.1, max_rollbacks=2, validate=lambda m: next(metrics)
    )
    assert stages[0].attempts == (0.4, pytest.approx(0.4**0.5))
    assert stages[0].metric == 0.0


def test_a_rollback_restores_everything() -> None:
    distiller, pruner = make(keep=(0.4,))
    from pyg_stkd.prune.algorithm.stage import Algorithm

    algorithm = Algorithm(
        distiller, pruner, batches(), F.cross_entropy, torch.optim.Adam, None, None, 0.1, 1, unpack
    )
    snapshot = algorithm._snapshot()
    algorithm._attempt(0.4, 1, shrink=False)
    assert pruner.share <= 0.4
    algorithm._restore(snapshot)
    assert pruner.share == 1
    assert list(distiller.state_dict()) == list(snapshot[1])
    for name, value in distiller.state_dict().items():
        assert torch.equal(value, snapshot[1][name])


def test_learns_what_the_losses_say() -> None:
    distiller, pruner = make(keep=(0.5,))
    stages = run(distiller, pruner, epochs=(1,))
    more = make(keep=(0.5,))
    assert run(*more, epochs=(25,))[0].losses["loss"] < stages[0].losses["loss"]


def test_calibration_batches_are_the_users_choice() -> None:
    seen: list[Tensor] = []

    def spy(batch: Any) -> Any:
        seen.append(batch[0])
        return unpack(batch)

    one = [batches()[1]]
    run(*make(keep=(0.5,)), epochs=(0,), calibration=one, unpack=spy)
    # Tried out, then means, scores, statistics.
    assert sum(bool(torch.equal(x, one[0][0])) for x in seen) == 4
    assert len(seen) == 5  # and a batch to measure


def test_dropped_means_go_into_the_bias() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x = torch.randn(20, 2).double()
    pruner = Pruner(model, Magnitude(), keep=1.0)
    hidden = model[:2](x).detach()
    weight, bias = model[2].weight.detach().clone(), model[2].bias.detach().clone()
    expected, before = model(x).mean(0), plain_copy(model)
    pruner.mask({"0": torch.tensor([1, 0, 0, 1])})
    add_means(model, before, lambda one: [one(part) for part in x.split(7)])  # type: ignore[arg-type, return-value]
    torch.testing.assert_close(model[2].bias, bias + weight[:, 1:3] @ hidden[:, 1:3].mean(0))
    torch.testing.assert_close(model(x).mean(0), expected)
    torch.testing.assert_close(pruner.compact()(x), model(x))
    assert model.training
    assert not any(m._forward_hooks for m in before.modules())


@pytest.mark.parametrize("granularity", ["channel", "weight"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: GCN(4, 8, 2, 3),
        lambda: GraphSAGE(4, 8, 2, 3, root_weight=False),
        lambda: GAT(4, 8, 2, 3, heads=2, dropout=0.5),
        lambda: GIN(4, 8, 1, 3),
    ],
)
def test_mean_outputs_stay_whatever_the_layer(build: Any, granularity: Any) -> None:
    torch.manual_seed(0)
    model, x = build().double(), torch.randn(6, 4).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    expected, before = model.eval()(x, EDGES).mean(0), plain_copy(model)
    pruner = Pruner(model, Magnitude(), granularity, keep=1.0)
    if granularity == "channel":
        group = pruner.groups[-1]
        pruner.mask({group.name: torch.arange(group.width) % 4 != 0})
    else:  # of the last layer, so that its inputs stay
        name = [n for n in pruner.widths if n.endswith("weight")][-1]
        shape = dict(before.named_parameters())[name].shape
        pruner.mask({name: torch.rand(shape) < 0.5})
    shift = (model(x, EDGES).mean(0) - expected).abs().max()
    add_means(model, before, lambda one: one(x, EDGES))
    # A dropped channel of GAT also moves the attention, and with it the channels that stay.
    tolerance = 0.05 * shift if isinstance(model, GAT) else 1e-12
    assert (model(x, EDGES).mean(0) - expected).abs().max() < tolerance < shift


@pytest.mark.parametrize("gate", ["glu", "gtu", "pgt", "relu"])
def test_means_stay_before_the_gate_and_on_the_graph(gate: Any) -> None:
    torch.manual_seed(0)
    model = STGCN(1, [(4, 4, 4)], 12, gate=gate).double()
    x = torch.randn(3, 12, 6, 1).double()
    before = plain_copy(model).eval()
    pruner = Pruner(model, Magnitude(), keep=1.0)
    pruner.mask({g.name: torch.arange(g.width) % 3 != 1 for g in pruner.groups})
    seen: dict[str, Any] = {}

    def note(name: str) -> Any:
        return lambda _, args, out: seen.update({name: (args, out)})

    names = ("blocks.0.conv", "blocks.0.temporal2.conv", "head_conv.conv")
    for name in names:
        before.get_submodule(name).register_forward_hook(note(name))
    add_means(model, before, lambda one: one(x, EDGES))
    for name in names:
        layer, (args, wanted) = model.get_submodule(name), seen[name]
        if name != "blocks.0.conv":  # gates of their own
            args, wanted = args[:1], before.get_submodule(name).before_gate(args[0])
        got = layer(*args)
        kept = layer.bias_mask.bool()
        assert not kept.all()
        mean = (0, 1, 2)
        torch.testing.assert_close(got.mean(mean)[kept], wanted.mean(mean)[kept])


def test_the_teacher_may_be_asked_once() -> None:
    expected = run(*make())
    distiller, pruner = make()
    recall, calls = TeacherCache(distiller), []
    distiller.teacher.register_forward_hook(lambda *_: calls.append(1))

    def unpack(batch: Any) -> Any:
        i, *inputs, y = batch
        return inputs, {"teacher": recall(i, *inputs), "nodes": range(6)}, y

    torch.manual_seed(5)
    numbered = [(i, *batch) for i, batch in enumerate(batches())]
    stages = distill_and_prune(
        distiller, pruner, numbered, F.cross_entropy, optimizer=adam, epochs=(1, 2), unpack=unpack
    )
    for a, b in zip(stages, expected, strict=True):
        assert a.losses == pytest.approx(b.losses, rel=1e-5)
        assert a.widths == b.widths
    assert len(calls) == len(numbered)


def test_batch_norms_are_estimated_anew() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    xs = [torch.randn(5, 2) for _ in range(3)]
    recalibrate(model, lambda: [model(x) for x in xs])  # type: ignore[arg-type, return-value]
    torch.testing.assert_close(model[0].running_mean, torch.stack([x.mean(0) for x in xs]).mean(0))
    torch.testing.assert_close(model[0].running_var, torch.stack([x.var(0) for x in xs]).mean(0))
    assert model[0].momentum == 0.1
    assert model.training


def test_adapters_give_the_same_before_and_after() -> None:
    distiller, pruner = make(keep=(0.5,))
    x = batches()[0][0]
    pruner.step([distiller(x, EDGES)[1]["hint"]])
    distiller.eval()
    before = distiller(x, EDGES)[1]["hint"]
    narrow_adapters(distiller, pruner)
    pruner.shrink()
    torch.testing.assert_close(distiller(x, EDGES)[1]["hint"], before)


def test_measures_products() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    flops, seconds = measure(model, ((torch.randn(7, 3),), {}, None))
    assert flops == 2 * 7 * (3 * 5 + 5 * 2)
    assert seconds >= 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"epochs": (1,)}, r"'epochs' must be a number, or one for each stage \(got \[1\]\)"),
        ({"epochs": (1, -1)}, r"'epochs' must be at least 0 \(got -1\)"),
        ({"guard": 0.1}, r"'guard' must come with 'validate' \(got 0.1\)"),
        ({"guard": -0.1, "validate": len}, r"'guard' must be finite and at least 0 \(got -0.1\)"),
        (
            {"guard": float("nan"), "validate": len},
            r"'guard' must be finite and at least 0 \(got nan\)",
        ),
        ({"max_rollbacks": -1}, r"'max_rollbacks' must be at least 0 \(got -1\)"),
    ],
)
def test_options_are_checked_at_once(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(*make(), **kwargs)


def test_the_pruner_must_be_one_of_the_student() -> None:
    make_optimizer: Callable[..., Any] = torch.optim.Adam
    with pytest.raises(ValueError, match="'pruner' must be one of the distiller's student"):
        distill_and_prune(make()[0], make()[1], [], F.cross_entropy, optimizer=make_optimizer)
    with pytest.raises(ValueError, match=r"'losses' must hold at least one loss \(got none\)"):
        next(distill_and_prune(*make(), [], F.cross_entropy, optimizer=make_optimizer))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75])
def test_unlabelled_batches_take_turns(share: float) -> None:
    distiller, pruner = make(keep=(0.6, 0.4))
    seen: list[str] = []
    more = [(0.5 * x, EDGES) for x, *_ in batches()]

    def watch(module: Any, args: Any) -> None:
        if module.student.training:
            seen.append("u" if any(args[0] is x for x, _ in more) else "l")

    distiller.register_forward_pre_hook(watch)
    asked: list[Any] = []

    def criterion(out: Tensor, y: Tensor) -> Tensor:
        asked.append(y)
        return F.cross_entropy(out, y)

    stages = [
        *distill_and_prune(
            distiller, pruner, batches(), criterion, optimizer=adam, epochs=2, unlabelled=more,
            share=share,
        )
    ]  # fmt: skip
    expected = {0.0: "ll", 0.5: "lulu", 0.75: "luuuluuu"}[share]
    assert "".join(seen) == expected * 4
    assert all(y is not None for y in asked)
    for stage in stages:
        assert "task" in stage.losses
        assert set(stage.unlabelled) == ({"loss", "soft_target", "hint", "lsp"} if share else set())


def test_unlabelled_batches_teach() -> None:
    plain, taught = make(keep=(0.6,)), make(keep=(0.6,))
    run(*plain, epochs=3)
    run(*taught, epochs=3, unlabelled=[(torch.rand(6, 4), EDGES)])
    assert not torch.equal(output(plain[1]), output(taught[1]))


def test_unlabelled_batches_are_unpacked_alike() -> None:
    def named(batch: Any) -> Any:
        return (batch["x"], batch["e"]), {}, batch.get("y")

    loader = [{"x": x, "e": e, "y": y} for x, e, y in batches()]
    more = [{"x": x, "e": e} for x, e, _ in batches()]
    distiller, pruner = make(keep=(0.6,))
    stages = distill_and_prune(
        distiller, pruner, loader, F.cross_entropy, optimizer=adam, epochs=1, unlabelled=more,
        unpack=named,
    )  # fmt: skip
    assert set(next(stages).unlabelled) == {"loss", "soft_target", "hint", "lsp"}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"unlabelled": []}, ValueError, r"'unlabelled' must give at least one batch \(got none\)"),
        ({"unlabelled": iter([1])}, TypeError, r"'unlabelled' must give its batches again"),
        (
            {"unlabelled": [Data(x=torch.ones(2, 4), edge_index=EDGES)]},
            ValueError,
            r"must give batches of one kind \(got tuple and Data\)",
        ),
        ({"unlabelled": [(1, 2, 3, 4)]}, ValueError, r"'unlabelled' must give tuples of 2 inputs"),
        ({"share": 1.0}, ValueError, r"'share' must be at least 0 and below 1 \(got 1.0\)"),
        ({"share": "x"}, TypeError, r"'share' must be a number"),
    ],
)
def test_unlabelled_batches_are_checked_at_once(kwargs: Any, error: Any, message: str) -> None:
    distiller, pruner = make()
    with pytest.raises(error, match=message):
        distill_and_prune(distiller, pruner, batches(), F.cross_entropy, optimizer=adam, **kwargs)
    assert pruner.share == 1


class Own(nn.Module):
    """A model without a rule, which joins its layers by code of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(4, width), GCNConv(width, width)
        self.norm, self.lin = nn.BatchNorm1d(width), nn.Linear(2 * width, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = self.norm(self.conv1(x, edge_index)).relu()
        return self.lin(torch.cat([first, self.conv2(first, edge_index).tanh()], dim=-1))


def test_models_of_ones_own(tmp_path: Path) -> None:
    def build() -> tuple[Distiller, Pruner]:
        torch.manual_seed(0)
        teacher, student = Own(24), Own(16)
        losses = [
            SoftTargetLoss(),
            HintLoss("conv1", "conv1", in_channels=16, out_channels=24),
            HintLoss("lin", "lin", name="logits", projection=False),
        ]
        example = batches()[0][:2]
        return Distiller(teacher, student, losses), Pruner(
            student, KDIS(), keep=(0.7, 0.4), rho=0.3, example=example
        )

    path = tmp_path / "stages.pt"
    distiller, pruner = build()
    stages = run(distiller, pruner, checkpoint=path)
    assert [stage.share <= stage.target for stage in stages] == [True, True]
    student = pruner.model
    assert distiller.losses["hint"].projection.in_features == student.conv1.out_channels < 16
    assert student.lin.in_features == student.conv1.out_channels + student.conv2.out_channels
    again = build()
    assert run(*again, checkpoint=path) == stages
    assert torch.equal(output(again[1]), output(pruner))


def test_wrapped_students_are_looked_through() -> None:
    torch.manual_seed(0)
    student = nn.DataParallel(GCN(4, 16, 2, 3))
    distiller = Distiller(GCN(4, 16, 2, 3), student, [SoftTargetLoss()])
    pruner = Pruner(student, Magnitude(), keep=0.5)
    assert pruner.model is student.module
    (stage,) = run(distiller, pruner, epochs=1)
    assert stage.share <= 0.5
    assert student.module.convs[0].out_channels < 16


def test_numbers_of_numpy_are_numbers() -> None:
    one, two = make(keep=(0.6, 0.4)), make(keep=(0.6, 0.4))
    expected = run(*one, epochs=1, calibration=1)
    stages = run(*two, epochs=np.int64(1), calibration=np.int32(1))
    assert [replace(a, seconds=0.0) for a in stages] == [replace(b, seconds=0.0) for b in expected]


class Pairs(nn.Module):
    """A model of several entry points, without a forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.lin = GCNConv(4, width), nn.Linear(width, 8)

    def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.conv(x, edge_index).relu())

    def decode(self, z: Tensor, pairs: Tensor) -> Tensor:
        return (z[pairs[0]] * z[pairs[1]]).sum(-1)


def test_models_of_several_entry_points() -> None:
    def call(model: Any, x: Tensor, edge_index: Tensor) -> Tensor:
        return model.decode(model.encode(x, edge_index), edge_index)

    torch.manual_seed(0)
    teacher, student = Pairs(24), Pairs(16)
    hint = HintLoss("conv", "conv", in_channels=16, out_channels=24)
    distiller = Distiller(teacher, student, [hint], call=call)
    example = batches()[0][:2]
    pruner = Pruner(student, KDIS(), keep=0.6, rho=0.2, example=example, call=call)
    loader = [(x, e, torch.ones(e.size(1))) for x, e, _ in batches()]
    (stage,) = distill_and_prune(
        distiller, pruner, loader, F.binary_cross_entropy_with_logits, optimizer=adam, epochs=1
    )
    assert stage.share <= 0.6
    assert stage.flops > 0
    assert hint.projection.in_features == student.conv.out_channels < 16
    assert call(pruner.compact(), *example).shape == (EDGES.size(1),)
