"""Several teachers: what holds for one must hold for them, and the weights of their losses."""

from __future__ import annotations

import copy
import io
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, MLP, GraphSAGE

from pyg_stkd import Distiller, Pruner, kernels
from pyg_stkd.distill import (
    Capture,
    ContrastiveLoss,
    DistillationLoss,
    HintLoss,
    LSPLoss,
    ResponseLoss,
    SoftTargetLoss,
    SpatialCorrelationLoss,
    TeacherCache,
    Teachers,
    until_epoch,
)
from pyg_stkd.functional import lsp
from pyg_stkd.graph import union_edges
from pyg_stkd.nn import STGCN
from pyg_stkd.prune import Magnitude, distill_and_prune

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is blind here"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # looked at in compiling
]

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
KERNEL = kernels.Cosine()


class Net(nn.Module):
    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.lin = nn.Linear(3, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor, edge_index: Any = None, times: int = 1) -> Tensor:
        for _ in range(times):
            h = self.lin(x)
            x = h.mean(dim=1, keepdim=True).sin() + x
        return self.head(self.dropout(h).relu())


def nets(count: int = 3) -> list[Net]:
    return [Net(5 + k, dropout=0.5).eval() for k in range(count)]


def build(
    *losses: DistillationLoss, count: int = 3, weights: Any = None, **kwargs: Any
) -> Distiller:
    losses = losses or (SoftTargetLoss(), HintLoss("lin", "lin"))
    return Distiller(Teachers(nets(count), weights, **kwargs), Net(4), losses)


def kd(s: Tensor, t: Tensor, temperature: float = 4.0) -> Tensor:
    s, t = (s / temperature).log_softmax(1), (t / temperature).softmax(1)
    return (t * (t.log() - s)).sum() / len(s) * temperature**2


def gated(errors: list[float]) -> list[float]:
    total = sum(math.exp(e) for e in errors)
    return [(1 - math.exp(e) / total) / (len(errors) - 1) for e in errors]


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        (None, [1 / 3, 1 / 3, 1 / 3]),
        ([1, 2, 5], [0.125, 0.25, 0.625]),
        (torch.tensor([3.0, 0.0, 1.0]), [0.75, 0.0, 0.25]),
    ],
)
def test_weighted_sums(weights: Any, shares: list[float]) -> None:
    x, hint = torch.randn(4, 3), HintLoss("lin", "lin", weight=3.0)
    distiller = build(SoftTargetLoss(weight=0.5), hint, weights=weights)
    out, losses = distiller(x)
    teachers, student = distiller.teacher, distiller.student
    assert sum(teachers.weights) == pytest.approx(1, abs=1e-15)
    expected = sum(w * kd(out, t(x)) for w, t in zip(shares, teachers, strict=True))
    close(losses["soft_target"], 0.5 * expected)
    projections = [hint.projection, *(part.projection for part in hint.of_teacher.values())]
    assert [p.out_features for p in projections] == [5, 6, 7]
    each = [
        (p(student.lin(x)) - t.lin(x)).square().mean()
        for p, t in zip(projections, teachers, strict=True)
    ]
    expected = 3.0 * sum(w * e for w, e in zip(shares, each, strict=True))
    close(losses["hint"], expected)
    parameters = list(distiller.parameters())
    assert {id(p) for p in hint.parameters()} <= {id(p) for p in parameters}
    ours, naive = (torch.autograd.grad(v, parameters, allow_unused=True, retain_graph=True)
                   for v in (losses["hint"], expected))  # fmt: skip
    for a, b in zip(ours, naive, strict=True):
        close(a, b)


@pytest.mark.parametrize("weights", [None, [7.0], "confidence"])
def test_one_teacher_is_that_teacher(weights: Any) -> None:
    teacher, student, x = nets(1)[0], Net(4, dropout=0.5), torch.randn(4, 3)
    results = []
    for given in (teacher, Teachers([teacher], weights)):
        losses = [SoftTargetLoss(), HintLoss("lin", "lin"), LSPLoss("lin", "lin", KERNEL)]
        torch.manual_seed(1)
        distiller = Distiller(given, student, losses)
        report = distiller.check(x, EDGES)
        out, values = distiller(x, EDGES, nodes=[0, 2])
        assert distiller.teacher is given
        grads = torch.autograd.grad(sum(values.values()), list(distiller.parameters()))
        known = distiller.capture_teacher(x, EDGES)
        results.append((out, values, grads, str(report), list(known), list(distiller.state_dict())))
        distiller.remove_hooks()
    (out, values, grads, *words), (same, others, others_grads, *other_words) = results
    assert torch.equal(out, same)
    assert words == other_words
    for name, value in values.items():
        assert torch.equal(value, others[name])
    assert all(torch.equal(a, b) for a, b in zip(grads, others_grads, strict=True))


def test_weights_follow_the_labels() -> None:
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    distiller = build(SoftTargetLoss(), weights="confidence")
    out, losses = distiller(x, target=y)
    outputs = distiller.teacher(x)
    weights = gated([nn.functional.cross_entropy(t, y).item() for t in outputs])
    close(losses["soft_target"], sum(w * kd(out, t) for w, t in zip(weights, outputs, strict=True)))
    nodes = torch.tensor([False, True, True, False])
    out, losses = distiller(x, target=y, nodes=nodes)
    weights = gated([nn.functional.cross_entropy(t[1:3], y[1:3]).item() for t in outputs])
    each = [kd(out[1:3], t[1:3]) for t in outputs]
    close(losses["soft_target"], sum(w * e for w, e in zip(weights, each, strict=True)))
    out, losses = distiller(x)  # by their entropies
    entropies = [torch.distributions.Categorical(logits=t).entropy() for t in outputs]
    weights = gated([e.mean().item() for e in entropies])
    close(losses["soft_target"], sum(w * kd(out, t) for w, t in zip(weights, outputs, strict=True)))


def test_weights_follow_the_error_of_the_users() -> None:
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    hint = HintLoss("", "", projection=False)
    distiller = build(hint, weights="confidence", error=nn.functional.l1_loss)
    out, losses = distiller(x, target=y)
    outputs = distiller.teacher(x)
    weights = gated([(t - y).abs().mean().item() for t in outputs])
    expected = sum(w * (out - t).square().mean() for w, t in zip(weights, outputs, strict=True))
    close(losses["hint"], expected)


def test_the_worst_of_two_teachers_is_left_out() -> None:
    good, bad, student, x = Net(4), Net(4), Net(4), torch.randn(4, 3)
    with torch.no_grad():
        good.head.weight.zero_()
        good.head.bias.copy_(torch.tensor([50.0, -50.0]))
        bad.head.weight.zero_()
        bad.head.bias.copy_(torch.tensor([-50.0, 50.0]))
    losses = [SoftTargetLoss()]
    distiller = Distiller(Teachers([bad, good], weights="confidence"), student, losses)
    out, losses = distiller(x, target=torch.zeros(4).long())
    close(losses["soft_target"], kd(out, good(x)))
    weights = [t.weight for t in distiller.check(x, target=torch.zeros(4).long()).teachers]
    assert weights == [0.0, 1.0]


def test_no_gradients_flow_into_weights_or_teachers() -> None:
    distiller = build(SoftTargetLoss(), HintLoss("lin", "lin"), weights="confidence")
    x = torch.randn(4, 3, requires_grad=True)
    _, losses = distiller(x, target=torch.tensor([0, 1, 1, 0]))
    sum(losses.values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())
    assert all(p.grad is not None for p in distiller.parameters())  # as DDP expects


def test_frozen_quiet_and_in_no_list() -> None:
    distiller = build(weights="confidence")
    distiller.check(torch.randn(4, 3))
    teachers = list(distiller.teacher)
    own = {id(p) for t in teachers for p in t.parameters()}
    assert not own & {id(p) for p in distiller.parameters()}
    assert {name.split(".")[0] for name in distiller.state_dict()} == {"student", "losses"}
    assert "losses.hint.of_teacher.2.projection.weight" in distiller.state_dict()
    assert not any(m in [*teachers, distiller.teacher] for m in distiller.modules())
    for train in (distiller.train, distiller.teacher.train, teachers[1].dropout.train):
        train()
        a, b = (distiller(torch.ones(4, 3))[1]["soft_target"] for _ in range(2))
        assert a == b
        assert not any(m.training for m in distiller.teacher.modules())
    distiller.double()
    assert all(p.dtype == torch.float64 for t in teachers for p in t.parameters())
    assert distiller(torch.ones(4, 3).double())[1]["hint"].dtype == torch.float64
    distiller.remove_hooks()
    assert not any(m._forward_hooks for t in teachers for m in t.modules())
    with pytest.raises(RuntimeError, match="hooks of this distiller were removed"):
        distiller(torch.ones(4, 3).double())
    assert repr(distiller).startswith("Distiller(\n  teacher=Net, Net, Net, frozen")
    assert repr(distiller.teacher).startswith("Teachers(\n  weights='confidence'")


def test_checkpoint_goes_round() -> None:
    old, new, x = build(), build(), torch.randn(4, 3)
    old.check(x)
    file = io.BytesIO()
    torch.save(old.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True))  # sizes the lazy copies
    for (name, a), b in zip(old.named_parameters(), new.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_work_by_themselves(copied: Any) -> None:
    distiller, x = build(weights="confidence"), torch.randn(4, 3)
    distiller.check(x)
    _, losses = distiller(x)
    other = copied(distiller)
    _, same = other(x)
    assert {k: v.item() for k, v in same.items()} == {k: v.item() for k, v in losses.items()}
    assert not {id(t) for t in other.teacher} & {id(t) for t in distiller.teacher}
    with torch.no_grad():
        other.teacher[2].head.bias.add_(torch.tensor([3.0, -3.0]))
    assert other(x)[1]["soft_target"] != losses["soft_target"]
    assert torch.equal(distiller(x)[1]["soft_target"], losses["soft_target"])


def count_runs(models: Any) -> list[int]:
    runs: list[int] = []
    for model in models:
        model.register_forward_hook(lambda *args: runs.append(1))
    return runs


def test_known_teachers_do_not_run() -> None:
    losses = SoftTargetLoss(), HintLoss("lin", "lin"), LSPLoss("lin", "lin", KERNEL)
    distiller, x, y = build(*losses, weights="confidence"), torch.randn(4, 3), torch.zeros(4).long()
    distiller.check(x, EDGES)
    runs = count_runs(distiller.teacher)
    _, live = distiller(x, EDGES, target=y)
    cache = TeacherCache(distiller)
    for _ in range(3):
        _, known = distiller(x, EDGES, target=y, teacher=cache("train", x, EDGES))
        for name, value in live.items():
            close(known[name], value)
    assert len(runs) == 6
    captures = cache("train", x, EDGES)
    assert list(captures) == ["0", "0.lin", "1", "1.lin", "2", "2.lin"]
    assert captures["1.lin"][0].where == "teacher layer '1.lin'"
    assert distiller.check(x, EDGES, teacher=captures.to("cpu")).ok


def test_plain_tensors_stand_for_teachers() -> None:
    distiller, x = build(SoftTargetLoss(), count=2), torch.randn(4, 3)
    t = torch.randn(2, 4, 2)
    out, losses = distiller(x, teacher={"0": t[0], "1": t[1]})
    close(losses["soft_target"], (kd(out, t[0]) + kd(out, t[1])) / 2)
    match = r"no capture of the teacher layer '1', which loss 'soft_target' needs \(got \['0'\]\)"
    with pytest.raises(ValueError, match=match):
        distiller(x, teacher={"0": t[0]})
    distiller = build(HintLoss("lin", "lin"), count=2, weights="confidence")
    match = r"no capture of the teacher layer '0', which weights='confidence' needs"
    with pytest.raises(ValueError, match=match):
        distiller(x, teacher={"0.lin": t[0], "1.lin": t[1]})


def test_teachers_may_have_their_own_arguments() -> None:
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    models = [MLP([3, 8, 2], norm=None), GCN(3, 8, 2, 2)]
    distiller = Distiller(Teachers(models), Net(4), [SoftTargetLoss()])
    own: list[Any] = [(y,), {"x": x, "edge_index": EDGES}]
    out, losses = distiller(x, teacher_args=own)
    mlp, gcn = models[0](y), models[1](x, EDGES)
    close(losses["soft_target"], (kd(out, mlp) + kd(out, gcn)) / 2)
    _, losses = distiller(x, EDGES, teacher_args=[(y,), None])
    close(losses["soft_target"], (kd(out, mlp) + kd(out, gcn)) / 2)
    known = distiller.capture_teacher(teacher_args=own)
    close(distiller(x, teacher=known)[1]["soft_target"], losses["soft_target"])
    same = Distiller(Teachers(nets(2)), Net(4), [SoftTargetLoss()])
    out, losses = same(x, teacher_args=(y,))
    each = [kd(out, t) for t in same.teacher(y)]
    close(losses["soft_target"], sum(each) / 2)
    with pytest.raises(ValueError, match=r"'teacher_args' as a list.*2 teachers \(got 1\)"):
        distiller(x, teacher_args=[(x,)])


def test_each_teacher_has_its_own_graph() -> None:
    x, nets = torch.randn(4, 3), [GCN(3, 8, 2, 2), GraphSAGE(3, 6, 2, 2)]
    edges = [EDGES, torch.tensor([[3, 2, 1], [0, 1, 3]]), torch.tensor([[1, 3, 0], [0, 1, 3]])]
    student = GCN(3, 4, 2, 2)
    losses = [LSPLoss("convs.1", "convs.0", KERNEL, graph="union", normalize="l2")]
    distiller = Distiller(Teachers(nets, weights=[1, 3]), student, losses)
    own: list[Any] = [(x, edges[1]), (x, edges[2])]
    _, losses = distiller(x, edges[0], teacher_args=own)
    z = student.convs[0](x, edges[0])
    each = []
    for net, e in zip(nets, edges[1:], strict=True):
        t = net.convs[1](net.convs[0](x, e).relu(), e)
        each.append(lsp(z, t, union_edges(edges[0], e, 4), KERNEL, normalize="l2"))
    close(losses["lsp"], each[0] / 4 + each[1] * 3 / 4)
    known = distiller.capture_teacher(teacher_args=own)
    for _ in range(2):  # the second time, the structures are known
        close(distiller(x, edges[0], teacher=known)[1]["lsp"], losses["lsp"])


@pytest.mark.parametrize("call", ["last", "all", 0, -2])
def test_which_call(call: Any) -> None:
    x = torch.randn(4, 3)
    distiller = build(HintLoss("lin", "lin", in_channels=4, out_channels=5, call=call), count=1)
    pair = Distiller(
        Teachers([copy.deepcopy(distiller.teacher[0]) for _ in range(2)]),
        copy.deepcopy(distiller.student),
        [copy.deepcopy(distiller.losses["hint"])],
    )
    close(pair(x, times=3)[1]["hint"], distiller(x, times=3)[1]["hint"])
    if call == "all":
        match = r"called equally often.*\(got 3 calls by the student and 2 by the teacher\)"
        with pytest.raises(ValueError, match=match):
            pair(x, times=3, teacher_args=[None, (x, None, 2)])


def test_schedules() -> None:
    hint = HintLoss("lin", "lin", schedule=until_epoch(1))
    distiller, x = build(SoftTargetLoss(schedule=until_epoch(2)), hint), torch.randn(4, 3)
    runs = count_runs(distiller.teacher)
    distiller.check(x)
    runs.clear()
    values = []
    for epoch in range(3):
        distiller.set_epoch(epoch)
        out, losses = distiller(x)
        distiller.zero_grad()
        (out.sum() + sum(losses.values())).backward()
        values.append([value.item() != 0 for value in losses.values()])
        assert all(p.grad is not None for p in hint.parameters())
    assert values == [[True, True], [True, False], [False, False]]
    assert len(runs) == 6


def test_adapters_learn_in_an_optimizer_built_first() -> None:
    distiller, x = build(HintLoss("lin", "lin")), torch.randn(4, 3)
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.05)
    values = []
    for _ in range(40):
        _, losses = distiller(x)
        optimizer.zero_grad()
        losses["hint"].backward()
        optimizer.step()
        values.append(losses["hint"].item())
    assert values[-1] < 0.1 * values[0]


def test_heads_of_several_layers_are_fitted_to_each_teacher() -> None:
    loss = ContrastiveLoss("lin", "lin", channels=8)
    distiller, x = build(loss), torch.randn(4, 3)
    distiller.check(x)
    heads = [loss, *loss.of_teacher.values()]
    assert [head.teacher_head[0].in_features for head in heads] == [5, 6, 7]
    _, losses = distiller(x)
    each = [
        part(Capture(distiller.student.lin(x)), Capture(t.lin(x)))
        for part, t in zip(heads, distiller.teacher, strict=True)
    ]
    close(losses["contrastive"], sum(each) / 3)


def test_fixed_widths_fit_one_teacher_only() -> None:
    distiller = build(HintLoss("lin", "lin", in_channels=4, out_channels=5), count=2)
    match = (
        r"teacher layer '1.lin': The projected.*\(got \[4, 5\] and \[4, 6\]\): loss 'hint' needs"
    )
    with pytest.raises(ValueError, match=match):
        distiller(torch.randn(4, 3))


def test_a_loss_keeps_its_copies_in_another_distiller() -> None:
    distiller, x = build(HintLoss("lin", "lin")), torch.randn(4, 3)
    distiller.check(x)
    loss = distiller.losses["hint"]
    copies = dict(loss.of_teacher.items())
    again = Distiller(distiller.teacher, distiller.student, [loss])
    assert dict(loss.of_teacher.items()) == copies
    assert torch.equal(again(x)[1]["hint"], distiller(x)[1]["hint"])
    assert not any("of_teacher" in name for c in copies.values() for name in c.state_dict())


def test_report_names_each_teacher() -> None:
    models = [GAT(3, 8, 2, 5, heads=2), GCN(3, 6, 2, 5)]
    losses = [HintLoss("convs.0", "convs.0"), SoftTargetLoss()]
    distiller = Distiller(Teachers(models, weights=[1, 3]), GCN(3, 4, 2, 5), losses)
    lines = str(distiller.check(torch.randn(4, 3), EDGES)).splitlines()
    assert lines[:7] == [
        "tap                 shape   dtype    finite  losses",
        "teacher 0.convs.0   [4, 8]  float32  yes     hint",
        "teacher 0 (output)  [4, 5]  float32  yes     soft_target",
        "teacher 1.convs.0   [4, 6]  float32  yes     hint",
        "teacher 1 (output)  [4, 5]  float32  yes     soft_target",
        "student convs.0     [4, 4]  float32  yes     hint",
        "student (output)    [4, 5]  float32  yes     soft_target",
    ]
    assert lines[-3:] == [
        "teacher  model  weight",
        "0        GAT    0.25",
        "1        GCN    0.75",
    ]


def test_slices_and_forecasts() -> None:
    class Forecaster(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.block = nn.Linear(2, width)
            self.head = nn.Linear(width, 1)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.head(self.block(x).relu()).squeeze(-1)  # [B, T, N]

    x, y = torch.randn(2, 3, 4, 2), torch.randn(2, 3, 4)
    models = [Forecaster(5), Forecaster(6)]
    loss = SpatialCorrelationLoss("block", "block", KERNEL)
    distiller = Distiller(Teachers(models, weights="confidence"), Forecaster(3), [loss])
    nodes = [3, 1]
    _, losses = distiller(x, EDGES, target=y, nodes=nodes)
    each = [
        Distiller(model, distiller.student, [copy.deepcopy(loss)])(x, EDGES, nodes=nodes)[1]
        for model in models
    ]
    gap = [(model(x, EDGES) - y)[..., nodes] for model in models]
    weights = gated([g.square().mean().item() for g in gap])
    expected = sum(w * e["spatial_correlation"] for w, e in zip(weights, each, strict=True))
    close(losses["spatial_correlation"], expected)


def test_pruning_narrows_the_adapters_of_all_teachers(tmp_path: Path) -> None:
    def make() -> tuple[Distiller, Pruner]:
        torch.manual_seed(3)
        teachers = Teachers([GCN(3, 8, 2, 3), GCN(3, 6, 2, 3)], weights="confidence")
        student = GCN(3, 32, 2, 3)
        distiller = Distiller(teachers, student, [HintLoss("convs.0", "convs.0")])
        distiller.check(torch.randn(4, 3), EDGES)
        return distiller, Pruner(student, Magnitude(), keep=(0.5,))

    def stages(distiller: Distiller, pruner: Pruner) -> list[Any]:
        loader = [(torch.ones(4, 3), EDGES, torch.tensor([0, 1, 2, 0]))]
        path = tmp_path / "stages.pt"
        options = {"optimizer": torch.optim.Adam, "epochs": 1, "checkpoint": path}
        return list(
            distill_and_prune(distiller, pruner, loader, nn.functional.cross_entropy, **options)
        )

    distiller, pruner = make()
    first = stages(distiller, pruner)
    width = distiller.student.convs[0].out_channels
    assert width < 32
    loss = distiller.losses["hint"]
    assert loss.projection.weight.shape == (8, width)
    assert loss.of_teacher["1"].projection.weight.shape == (6, width)
    again, pruner = make()
    teachers = list(again.teacher)
    assert stages(again, pruner) == first  # from the checkpoint, teachers untouched
    assert all(a is b for a, b in zip(again.teacher, teachers, strict=True))
    for (name, a), b in zip(again.named_parameters(), distiller.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("weights", [[1.0, 3.0], "confidence"])
def test_compiled_equals_eager(weights: Any) -> None:
    torch._dynamo.reset()
    distiller = build(SoftTargetLoss(), HintLoss("lin", "lin"), count=2, weights=weights)
    distiller.check(torch.randn(4, 3), EDGES)
    compiled = torch.compile(distiller, backend="eager")
    for _ in range(2):
        x = torch.randn(4, 3)
        (out, values), (same, others) = distiller(x, EDGES), compiled(x, EDGES)
        close(same, out)
        close(others, values)
    torch._dynamo.reset()


def test_container() -> None:
    models = nets(3)
    teachers = Teachers(nn.ModuleList(models), weights=[2, 1, 1])
    assert len(teachers) == 3
    assert list(teachers) == models
    assert teachers[0] is models[0]
    assert teachers[-1] is models[2]
    assert [name for name, _ in teachers.named_children()] == ["0", "1", "2"]
    assert teachers.weights == (0.5, 0.25, 0.25)
    x = torch.randn(4, 3)
    for output, model in zip(teachers(x), models, strict=True):
        assert torch.equal(output, model(x))


@pytest.mark.parametrize(
    ("teachers", "error", "match"),
    [
        ([], ValueError, r"'teachers' must hold at least one teacher \(got \[\]\)"),
        (nn.Sequential(nn.Linear(1, 1)), TypeError, r"'teachers' must be a list.*got Sequential"),
        (3, TypeError, r"'teachers' must be a list of torch.nn.Module \(got int\)"),
        ("gat", TypeError, r"'teachers' must be a list of torch.nn.Module \(got str\)"),
        ([nn.Linear], TypeError, r"'teachers' must hold trained models \(got type\)"),
        ([Teachers([nn.Identity()])], TypeError, r"hold trained models \(got Teachers\)"),
    ],
)
def test_teachers_are_checked(teachers: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Teachers(teachers)


def test_a_teacher_is_given_once_and_is_not_the_student() -> None:
    a, b = nets(2)
    with pytest.raises(ValueError, match=r"each teacher once \(got number 2, Net, twice\)"):
        Teachers([a, b, a])
    with pytest.raises(ValueError, match=r"'student' must share nothing.*the very same model"):
        Distiller(Teachers([a, b]), b, [])
    student = nn.Sequential(nn.Linear(3, 5), b.head)
    with pytest.raises(ValueError, match=r"'student' must share nothing.*got its module '1'"):
        Distiller(Teachers([a, b]), student, [])


RULE = r"'weights' must be None, 'confidence' or a list of one number for each teacher"


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        ("best", ValueError, rf"{RULE} \(got 'best'\)"),
        ([1, 2, 3], ValueError, rf"{RULE}, of which there are 2 \(got 3\)"),
        ([1, -1], ValueError, r"finite, not negative and not all 0 \(got \[1.0, -1.0\]\)"),
        ([1, math.nan], ValueError, r"finite, not negative and not all 0 \(got \[1.0, nan\]\)"),
        ([1, math.inf], ValueError, r"finite, not negative and not all 0 \(got \[1.0, inf\]\)"),
        ([0, 0.0], ValueError, r"finite, not negative and not all 0 \(got \[0.0, 0.0\]\)"),
        (0.5, TypeError, rf"{RULE} \(got 0.5\)"),
        (["a", "b"], TypeError, rf"{RULE} \(got \['a', 'b'\]\)"),
    ],
)
def test_weights_are_checked(weights: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Teachers(nets(2), weights)


def test_error_is_checked() -> None:
    with pytest.raises(TypeError, match=r"'error' must be a function.*\(got 'mse'\)"):
        Teachers(nets(2), "confidence", error="mse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'error' must come with weights='confidence' \(got None"):
        Teachers(nets(2), error=nn.functional.mse_loss)


def test_every_teacher_must_have_the_layer() -> None:
    teachers = Teachers([Net(4), nn.Sequential(nn.Linear(3, 2))])
    match = (
        r"'teacher_layer' of loss 'hint' in teacher 1 \(Sequential\) must name a module of the "
        r"model, '' for its output; valid names: '0' \(got 'lin'\)"
    )
    with pytest.raises(ValueError, match=match):
        Distiller(teachers, Net(4), [HintLoss("lin", "lin")])
    assert all(p.requires_grad for p in teachers.parameters())
    assert not any(m._forward_hooks for m in teachers.modules())


def test_forecasts_of_several_teachers_are_outputs_as_that_of_one_is() -> None:
    torch.manual_seed(0)
    sizes = {"temporal_channels": 4, "head_channels": 4}
    models = [STGCN(1, 2, 3, **sizes) for _ in range(3)]
    x, edges, y = (
        torch.randn(2, 12, 5, 1),
        torch.tensor([[0, 1, 2], [1, 2, 3]]),
        torch.randn(2, 3, 5),
    )
    losses = [ResponseLoss(0.3), SpatialCorrelationLoss("blocks.1", "blocks.1")]
    alone = [Distiller(teacher, models[2], losses)(x, edges, target=y)[1] for teacher in models[:2]]
    _, both = Distiller(Teachers(models[:2]), models[2], losses)(x, edges, target=y)
    for name, value in both.items():  # five nodes, which are the last axis of [B, T, N]
        close(value, (alone[0][name] + alone[1][name]) / 2)
