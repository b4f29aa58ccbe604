from __future__ import annotations

import copy
import gc
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    ContrastiveLoss,
    DistillationLoss,
    HintLoss,
    LSPLoss,
    SoftTargetLoss,
    TeacherCache,
    TeacherCaptures,
    until_epoch,
)
from pyg_stkd.graph import Graph

# Small random features are nearly alike to most kernels, which is not the point here.
pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])


class Net(nn.Module):
    """One linear layer that sees its neighbours' mean, BatchNorm, dropout, and a head."""

    def __init__(self, width, dropout=0.5):
        super().__init__()
        self.lin = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)

    def forward(self, x, edge_index=None, scale=1.0):
        h = self.dropout(self.norm(self.lin(x * scale)))
        return self.head(h.relu())


def build(*losses, width=4):
    losses = losses or (SoftTargetLoss(), HintLoss("lin", "lin", in_channels=4, out_channels=8))
    return Distiller(Net(8), Net(width), losses)


def test_output_and_losses():
    teacher, student, x = Net(8), Net(4, dropout=0.0), torch.randn(4, 3)
    hint = HintLoss("lin", "lin", weight=3.0, in_channels=4, out_channels=8)
    distiller = Distiller(teacher, student, [hint, SoftTargetLoss(2.0, weight=0.5)])
    out, losses = distiller(x, EDGES)
    torch.testing.assert_close(out, student(x))
    assert list(losses) == ["hint", "soft_target"]
    projected = hint.projection(student.lin(x))
    expected = 3.0 * ((projected - teacher.lin(x)) ** 2).mean()
    torch.testing.assert_close(losses["hint"], expected)
    s, t = (out / 2).log_softmax(1), (teacher(x) / 2).softmax(1)
    kl = (t * (t.log() - s)).sum() / 4 * 4 * 0.5
    torch.testing.assert_close(losses["soft_target"], kl)


def test_gradients_reach_the_student_and_the_adapters_only():
    distiller = build()
    _, losses = distiller(torch.randn(4, 3), EDGES)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in [*distiller.student.lin.parameters()])
    assert all(p.grad.any() for p in distiller.losses["hint"].parameters())
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())


def test_teacher_is_never_in_train_mode():
    distiller = build()
    teacher = distiller.teacher
    buffers = {k: v.clone() for k, v in teacher.state_dict().items()}
    assert not any(m.training for m in teacher.modules())
    for put_in_train_mode in (distiller.train, teacher.train, teacher.dropout.train):
        put_in_train_mode()
        a, b = (distiller(torch.ones(4, 3), EDGES)[1]["soft_target"] for _ in range(2))
        assert a != b  # the student's dropout
        assert not any(m.training for m in teacher.modules())
        assert distiller.training
        assert distiller.student.training
    assert distiller.eval().training is False
    assert all(torch.equal(v, buffers[k]) for k, v in teacher.state_dict().items())


def test_teacher_is_in_no_list():
    distiller = build()
    own = {id(p) for p in distiller.teacher.parameters()}
    assert not own & {id(p) for p in distiller.parameters()}
    names = {
        *(name for name, _ in distiller.named_parameters()),
        *(name for name, _ in distiller.named_buffers()),
        *distiller.state_dict(),
    }
    assert {name.split(".")[0] for name in names} == {"student", "losses"}
    assert not any(m is distiller.teacher for m in distiller.modules())
    optimizer = torch.optim.SGD(distiller.parameters(), lr=1.0)
    before = copy.deepcopy(distiller.teacher.state_dict())
    sum(distiller(torch.randn(4, 3), EDGES)[1].values()).backward()
    optimizer.step()
    after = distiller.teacher.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_teacher_cannot_be_replaced():
    distiller = build()
    with pytest.raises(AttributeError, match="'teacher' cannot be replaced"):
        distiller.teacher = Net(8)
    assert not any("teacher" in name for name, _ in distiller.named_modules())


def test_student_cannot_be_replaced():
    distiller = build()
    student = distiller.student
    with pytest.raises(AttributeError, match="'student' cannot be replaced: build a new Distiller"):
        distiller.student = Net(4)
    assert distiller.student is student


def test_hooks_go_with_the_distiller():
    teacher, student, x = Net(8), Net(4), torch.randn(4, 3)

    def hooks():
        gc.collect()
        return sum(len(m._forward_hooks) for n in (teacher, student) for m in n.modules())

    distiller = Distiller(teacher, student, [SoftTargetLoss(), LSPLoss("lin", "lin")])
    assert hooks() == 2
    shallow = copy.copy(distiller)
    deep = copy.deepcopy(distiller)
    del distiller
    assert hooks() == 2
    assert list(shallow(x, EDGES)[1]) == ["soft_target", "lsp"]
    del shallow
    assert hooks() == 0
    assert list(deep(x, EDGES)[1]) == ["soft_target", "lsp"]


def test_checkpoint_goes_round():
    old, new = build(), build()
    file = io.BytesIO()
    torch.save(old.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for (name, a), b in zip(old.named_parameters(), new.parameters(), strict=True):
        assert torch.equal(a, b), name
    new.student.load_state_dict(old.student.state_dict())  # hooks leave no keys


def test_casts_move_the_teacher():
    distiller = build().double()
    assert all(p.dtype == torch.float64 for p in distiller.teacher.parameters())
    _, losses = distiller(torch.randn(4, 3).double(), EDGES)
    assert {v.dtype for v in losses.values()} == {torch.float64}
    distiller.to(torch.bfloat16)
    assert distiller.teacher.lin.weight.dtype == torch.bfloat16
    _, losses = distiller(torch.randn(4, 3).bfloat16(), EDGES)
    assert {v.dtype for v in losses.values()} == {torch.float32}
    assert distiller.to("meta").teacher.lin.weight.is_meta


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_work_by_themselves(copied):
    distiller, x = build(LSPLoss("lin", "lin", kernels.Cosine()), SoftTargetLoss()), torch.eye(4, 3)
    _, losses = distiller.eval()(x, EDGES)
    other = copied(distiller)
    _, same = other(x, EDGES)
    assert {k: v.item() for k, v in same.items()} == {k: v.item() for k, v in losses.items()}
    assert other.student is not distiller.student
    assert other.teacher is not distiller.teacher
    with torch.no_grad():
        other.student.lin.weight.zero_()
    assert distiller(x, EDGES)[1]["lsp"] == losses["lsp"]
    assert other(x, EDGES)[1]["lsp"] != losses["lsp"]
    assert not other.teacher.training


def test_copies_after_a_failed_forward():
    distiller = build()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        distiller(torch.randn(4, 5, requires_grad=True), EDGES)
    copy.deepcopy(distiller)
    distiller(torch.randn(4, 3), EDGES)


def test_nothing_is_kept_between_forwards():
    distiller = build()

    def tensors():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    distiller(torch.randn(4, 3), EDGES)
    before = tensors()
    distiller(torch.randn(4, 3), EDGES)
    assert tensors() <= before  # less, where an earlier test left something


def test_student_alone_leaves_no_trace():
    distiller = build()
    distiller.student(torch.randn(4, 3))
    assert distiller._student_recorder.stop() == {"lin": []}
    distiller.remove_hooks()
    for model in (distiller.student, distiller.teacher):
        assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError, match="hooks of this distiller were removed"):
        distiller(torch.randn(4, 3))


def count_runs(model):
    runs = []
    model.register_forward_hook(lambda *args: runs.append(1))
    return runs


def test_known_teacher_does_not_run():
    distiller, x = build(LSPLoss("lin", "lin", kernels.Cosine()), SoftTargetLoss()), torch.eye(4, 3)
    distiller.eval()
    runs = count_runs(distiller.teacher)
    _, live = distiller(x, EDGES)
    known = distiller.capture_teacher(x, EDGES)
    assert len(runs) == 2
    assert isinstance(known, TeacherCaptures)
    for edges in (EDGES, EDGES.clone(), Graph(EDGES)):
        _, losses = distiller(x, edges, teacher=known)
        for name, value in live.items():
            torch.testing.assert_close(losses[name], value)
    assert len(runs) == 2
    with pytest.raises(ValueError, match="'teacher_args' must not be given with 'teacher'"):
        distiller(x, teacher=known, teacher_args=(x,))


def test_teacher_rests_while_all_losses_do():
    hint = HintLoss("lin", "lin", schedule=until_epoch(1), in_channels=4, out_channels=8)
    distiller = build(SoftTargetLoss(schedule=until_epoch(2)), hint)
    runs = count_runs(distiller.teacher)
    values = []
    for epoch in range(3):
        distiller.set_epoch(epoch)
        out, losses = distiller(torch.randn(4, 3), EDGES)
        values.append([value.item() != 0 for value in losses.values()])
        (out.sum() + sum(losses.values())).backward()
    assert values == [[True, True], [True, False], [False, False]]
    assert len(runs) == 2
    assert all(p.grad is not None for p in hint.parameters())  # 0, where DDP expects one
    with pytest.raises(ValueError, match=r"'epoch' must be at least 0 \(got -1\)"):
        distiller.set_epoch(-1)
    for bad in ("a", None, 1.0, float("nan"), True):
        with pytest.raises(TypeError, match=rf"'epoch' must be an integer \(got {bad!r}\)"):
            distiller.set_epoch(bad)
    assert distiller.epoch == 2


def test_no_losses():
    out, losses = Distiller(Net(8), Net(4), [])(torch.randn(4, 3))
    assert out.shape == (4, 2)
    assert losses == {}


def test_teacher_may_have_its_own_arguments():
    distiller, x, y = build(SoftTargetLoss()).eval(), torch.randn(4, 3), torch.randn(4, 3)
    expected = distiller(x, EDGES, teacher=distiller.capture_teacher(y, scale=2.0))[1]
    for own in ((y, None, 2.0), [y, None, 2.0], {"x": y, "scale": 2.0}):
        _, losses = distiller(x, EDGES, teacher_args=own)
        assert torch.equal(losses["soft_target"], expected["soft_target"])
    _, shared = distiller(x, EDGES, scale=2.0)  # keyword arguments go to both
    _, twice = distiller(x, EDGES, scale=2.0, teacher_args={"x": x, "scale": 2.0})
    assert torch.equal(shared["soft_target"], twice["soft_target"])


def test_target_and_nodes_reach_the_losses():
    class Seen(DistillationLoss):
        def forward(self, student, teacher, target=None):
            assert student.rows.shape == teacher.rows.shape == (2, 2)
            return (student.rows - target).square().mean()

    distiller, x, y = build(Seen()).eval(), torch.randn(4, 3), torch.randn(2, 2)
    for nodes in ([3, 1], torch.tensor([3, 1])):
        out, losses = distiller(x, EDGES, target=y, nodes=nodes)
        torch.testing.assert_close(losses["seen"], (out[[3, 1]] - y).square().mean())
    mask = torch.tensor([False, True, False, True])
    out, losses = distiller(x, EDGES, target=y, nodes=mask)
    torch.testing.assert_close(losses["seen"], (out[mask] - y).square().mean())


def test_rewritten_features_are_refused():
    class InPlace(Net):
        def forward(self, x, edge_index=None):
            return self.head(self.lin(x).relu_())

    distiller = Distiller(InPlace(4), Net(4), [HintLoss("lin", "lin", projection=False)])
    with pytest.raises(RuntimeError, match=r"teacher layer 'lin' was rewritten in place"):
        distiller(torch.randn(4, 3), EDGES)
    distiller = Distiller(Net(4), InPlace(4), [HintLoss("lin", "lin", projection=False)])
    with pytest.raises(RuntimeError, match=r"student layer 'lin' was rewritten in place"):
        distiller(torch.randn(4, 3), EDGES)


def test_different_numbers_of_nodes():
    match = r"Loss 'hint'.*same nodes, row by row \(got shapes \[4, 4\] and \[5, 8\]\)"
    with pytest.raises(ValueError, match=match):
        build(HintLoss("lin", "lin"))(torch.ones(4, 3), teacher_args=(torch.ones(5, 3),))


def test_lazy_adapter_learns_in_an_optimizer_built_first():
    distiller = build(HintLoss("lin", "lin", weight=1.0))
    optimizer = torch.optim.Adam(distiller.parameters(), lr=0.05)
    x = torch.randn(4, 3)
    values = []
    for _ in range(40):
        _, losses = distiller(x, EDGES)
        optimizer.zero_grad()
        losses["hint"].backward()
        optimizer.step()
        values.append(losses["hint"].item())
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_losses_in_single_precision(dtype):
    distiller, x = build().eval(), torch.randn(4, 3)
    _, exact = distiller(x, EDGES)
    with torch.autocast("cpu", dtype):
        out, losses = distiller(x, EDGES)
    assert out.dtype == dtype
    for name, value in losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.01)
    sum(losses.values()).backward()


def test_inference_mode():
    distiller, x = build().eval(), torch.randn(4, 3)
    with torch.no_grad():
        _, expected = distiller(x, EDGES)
    with torch.inference_mode():
        _, losses = distiller(x, EDGES)
    assert {k: v.item() for k, v in losses.items()} == {k: v.item() for k, v in expected.items()}


def test_captures_and_widths_of_inference_mode_serve_training():
    losses = [HintLoss("lin", "lin"), ContrastiveLoss("lin", "lin", channels=3), SoftTargetLoss()]
    distiller, x = build(*losses), torch.randn(4, 3)
    cache = TeacherCache(distiller)
    with torch.inference_mode():
        distiller.check(x, EDGES)
        distiller(x, EDGES, teacher=cache(0, x, EDGES))
        own = {"lin": distiller.teacher.lin(x), "": distiller.teacher(x)}
    assert not any(p.is_inference() for p in distiller.parameters())
    for known in (cache(0, x, EDGES), cache(0, x, EDGES).to("cpu"), own, None):
        distiller.zero_grad()
        _, values = distiller(x, EDGES, teacher=known)
        sum(values.values()).backward()
        assert distiller.losses["hint"].projection.weight.grad.any()
        assert all(p.grad is not None for p in distiller.losses.parameters())


@pytest.mark.parametrize("call", ["last", 0, "all"])
def test_layers_without_gradients_are_refused(call):
    class Checkpointed(Net):
        reentrant = True

        def forward(self, x, edge_index=None):
            return self.head(checkpoint(self.lin, x, use_reentrant=self.reentrant).relu())

    student, x = Checkpointed(4), torch.randn(4, 3, requires_grad=True)
    loss = HintLoss("lin", "lin", in_channels=4, out_channels=8, call=call)
    distiller = Distiller(Net(8), student, [loss])
    match = r"student layer 'lin', which loss 'hint' needs, must run with gr.*use_reentrant=False"
    with pytest.raises(ValueError, match=match):
        distiller(x)
    with torch.no_grad():
        expected = distiller(x)[1]["hint"]
    student.reentrant = False
    _, losses = distiller(x)
    assert losses["hint"] == expected
    losses["hint"].backward()
    assert student.lin.weight.grad.any()


def test_a_call_without_gradients_that_no_loss_looks_at():
    class Twice(Net):
        def forward(self, x, edge_index=None):
            with torch.no_grad():
                self.lin(x)
            return self.head(self.lin(x))

    distiller = Distiller(Net(4), Twice(4), [HintLoss("lin", "lin", projection=False)])
    _, losses = distiller(torch.randn(4, 3))
    losses["hint"].backward()
    assert distiller.student.lin.weight.grad.any()


def test_double_backward_and_functional_grad():
    distiller = build(SoftTargetLoss()).double()
    x = torch.randn(4, 3).double().requires_grad_()
    _, losses = distiller.eval()(x, EDGES)
    (grad,) = torch.autograd.grad(losses["soft_target"], x, create_graph=True)
    grad.square().sum().backward()
    assert x.grad.isfinite().all()


def test_two_distillers_on_one_student():
    student, x = Net(4), torch.randn(4, 3)
    a, b = (Distiller(Net(8), student, [SoftTargetLoss()]).eval() for _ in range(2))
    first = a(x)[1]["soft_target"]
    assert b(x)[1]["soft_target"] != first
    assert a(x)[1]["soft_target"] == first


def test_device(device):
    distiller = build(SoftTargetLoss(), HintLoss("lin", "lin"), LSPLoss("lin", "lin", graph=EDGES))
    x = torch.eye(4, 3) * 9
    distiller.losses["lsp"].kernel = kernels.Cosine()
    _, expected = distiller.eval()(x, EDGES)
    _, losses = distiller.to(device)(x.to(device), EDGES.to(device), nodes=[0, 1, 2, 3])
    for name, value in losses.items():
        assert value.device.type == device.type
        torch.testing.assert_close(value.cpu(), expected[name], rtol=1e-4, atol=1e-5)


def test_repr_names_the_teacher():
    assert repr(build()).startswith("Distiller(\n  teacher=Net, frozen")
