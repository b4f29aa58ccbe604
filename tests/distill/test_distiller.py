from __future__ import annotations

import copy
import gc
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import VGAE, GroupAddRev, SAGEConv

from pyg_stkd import Distiller, kernels
from pyg_stkd.distill import (
    ContrastiveLoss,
    DistillationLoss,
    HintLoss,
    LSPLoss,
    OutputLoss,
    SoftTargetLoss,
    TeacherCache,
    TeacherCaptures,
    until_epoch,
)
from pyg_stkd.functional import lsp
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


class InPlace(Net):
    """The activation after the layer writes to its output, or only does so when it is told to."""

    when = None

    def forward(self, x, edge_index=None):
        h = self.lin(x)
        if self.when in (None, self.training):
            return self.head(h.relu_())
        return self.head(h.relu())


@pytest.mark.parametrize("when", [None, True, False])
def test_layers_before_in_place_activations_are_captured_as_they_were(when):
    teacher, student, x = InPlace(4), InPlace(4), torch.randn(4, 3)
    teacher.when = student.when = when
    distiller = Distiller(teacher, student, [HintLoss("lin", "lin", projection=False)])
    for mode in (False, False, True, True):
        distiller.train(mode)
        out, losses = distiller(x, EDGES)
        expected = (student.lin(x) - teacher.lin(x)).square().mean()
        torch.testing.assert_close(losses["hint"], expected)
        total = losses["hint"] + out.sum()
        grads = torch.autograd.grad(total, [student.lin.weight, student.head.weight])
        h = student.lin(x)
        total = (h - teacher.lin(x)).square().mean() + student.head(h.relu()).sum()
        hand = torch.autograd.grad(total, [student.lin.weight, student.head.weight])
        torch.testing.assert_close(grads, hand)


def test_outputs_that_nothing_rewrites_are_not_copied():
    distiller = Distiller(Net(4), Net(4), [HintLoss("lin", "lin", projection=False)])
    kept = []
    distiller.student.lin.register_forward_hook(lambda module, args, output: kept.append(output))
    seen = []

    class Seen(DistillationLoss):
        def forward(self, student, teacher, target=None):
            seen.append(student.value)
            return student.value.sum()

    distiller.losses["hint"] = Seen("lin", "lin")
    for _ in range(2):
        distiller(torch.randn(4, 3), EDGES)
    assert all(a is b for a, b in zip(kept, seen, strict=True))


def test_rewriting_that_comes_late_is_refused_once():
    student = InPlace(4)
    student.when = "never"
    distiller = Distiller(Net(4), student, [HintLoss("lin", "lin", projection=False)])
    x = torch.randn(4, 3)
    distiller(x, EDGES)
    student.when = None
    with pytest.raises(
        RuntimeError, match=r"student layer 'lin' was rewritten in place.*once more"
    ):
        distiller(x, EDGES)
    _, losses = distiller(x, EDGES)
    expected = (student.lin(x) - distiller.teacher.lin(x)).square().mean()
    torch.testing.assert_close(losses["hint"], expected)


def test_layers_whose_output_is_freed_are_captured():
    class Reversible(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 8)
            self.block = GroupAddRev(SAGEConv(4, 4), num_groups=2)

        def forward(self, x, edge_index):
            return self.block(self.lin(x), edge_index)

    teacher, student, x = Reversible(), Reversible(), torch.randn(4, 3)
    losses = [HintLoss(layer, layer, name=layer, projection=False) for layer in ("lin", "block")]
    distiller = Distiller(teacher, student, losses)
    for _ in range(2):
        _, losses = distiller(x, EDGES)
        expected = (student.lin(x) - teacher.lin(x)).square().mean()
        torch.testing.assert_close(losses["lin"], expected)
        sum(losses.values()).backward()


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


def test_threads_may_share_a_teacher():
    x = [torch.randn(4, 3) for _ in range(2)]
    teacher = Net(8).eval()
    distillers = [Distiller(teacher, Net(4).eval(), [HintLoss("lin", "lin")]) for _ in range(2)]
    for distiller, own in zip(distillers, x, strict=True):
        distiller.eval()
        distiller.check(own, EDGES)
    expected = [d(own, EDGES)[1]["hint"].item() for d, own in zip(distillers, x, strict=True)]
    # Each thread waits inside the teacher until the other one is there too.
    barrier = threading.Barrier(2, timeout=10)
    teacher.dropout.register_forward_hook(lambda *args: [barrier.wait(), None][1])
    found = [[], []]

    def work(k):
        for _ in range(20):
            found[k].append(distillers[k](x[k], EDGES)[1]["hint"].item())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values, value in zip(found, expected, strict=True):
        assert values == [pytest.approx(value)] * 20


class Coder(nn.Module):
    """Link prediction: nodes are encoded, pairs of them decoded."""

    def __init__(self, width):
        super().__init__()
        self.a, self.b = SAGEConv(3, width), SAGEConv(width, 6)

    def encode(self, x, edge_index):
        return self.b(self.a(x, edge_index).relu(), edge_index)

    def decode(self, z, pairs):
        return (z[pairs[0]] * z[pairs[1]]).sum(-1)


def test_models_of_several_entry_points():
    def call(model, x, edge_index, pairs):
        return model.decode(model.encode(x, edge_index), pairs)

    teacher, student = Coder(8), Coder(4)
    pairs = torch.tensor([[0, 1, 3], [2, 2, 0]])
    losses = [
        OutputLoss(),
        HintLoss("b", "b", projection=False),
        LSPLoss("a", "a", kernels.Cosine()),
        SoftTargetLoss(multi_label=True),
    ]
    distiller = Distiller(teacher, student, losses, call=call)
    x = torch.randn(4, 3)
    out, losses = distiller(x, EDGES, pairs)
    s, t = student.encode(x, EDGES), teacher.encode(x, EDGES)
    assert torch.equal(out, student.decode(s, pairs))
    torch.testing.assert_close(losses["hint"], (s - t).square().mean())
    torch.testing.assert_close(losses["output"], (out - teacher.decode(t, pairs)).square().mean())
    expected = lsp(student.a(x, EDGES), teacher.a(x, EDGES), EDGES, kernels.Cosine())
    torch.testing.assert_close(losses["lsp"], expected)
    sum(losses.values()).backward()
    assert all(p.grad.any() for p in student.parameters())
    for bad in (3, (call,), (call, call, call), (call, 3)):
        with pytest.raises(TypeError, match=r"'call' must be a function \(model, \*args\)"):
            Distiller(teacher, student, [], call=bad)


def test_variational_autoencoders_have_their_terms_afterwards():
    def vgae(width):
        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = SAGEConv(3, width)
                self.mu, self.logstd = SAGEConv(width, 2), SAGEConv(width, 2)

            def forward(self, x, edge_index):
                h = self.conv(x, edge_index).relu()
                return self.mu(h, edge_index), self.logstd(h, edge_index)

        return VGAE(Encoder())

    teacher, student, x = vgae(8), vgae(4), torch.randn(4, 3)
    losses = [OutputLoss(teacher_layer="encoder", student_layer="encoder")]
    distiller = Distiller(teacher, student, losses, call=lambda model, x, e: model.encode(x, e))
    torch.manual_seed(0)
    z, losses = distiller(x, EDGES)
    s, t = student.encoder(x, EDGES), teacher.encoder(x, EDGES)
    expected = sum((a - b).square().mean() for a, b in zip(s, t, strict=True)) / 2
    torch.testing.assert_close(losses["output"], expected)
    (student.recon_loss(z, EDGES) + student.kl_loss() + losses["output"]).backward()
    assert student.encoder.logstd.lin_l.weight.grad.any()


def test_each_model_may_be_run_in_a_way_of_its_own():
    teacher, student, x = Coder(8), Net(4, dropout=0.0), torch.randn(4, 3)
    calls = (lambda model, x, e: model.encode(x, e)[:, :2], None)
    distiller = Distiller(teacher, student, [OutputLoss()], call=calls)
    out, losses, said = distiller(x, EDGES, return_teacher=True)
    assert torch.equal(said, teacher.encode(x, EDGES)[:, :2])
    torch.testing.assert_close(losses["output"], (out - said).square().mean())


def test_the_teachers_output_on_request():
    distiller, x = build(SoftTargetLoss(schedule=until_epoch(1))).eval(), torch.randn(4, 3)
    runs = count_runs(distiller.teacher)
    _, _, said = distiller(x, EDGES, return_teacher=True)
    assert torch.equal(said, distiller.teacher(x))
    assert not said.requires_grad
    runs.clear()
    distiller.set_epoch(1)  # no loss needs the teacher, but somebody asks
    assert torch.equal(distiller(x, EDGES, return_teacher=True)[2], said)
    assert len(runs) == 1
    known = distiller.capture_teacher(x, EDGES)
    assert torch.equal(distiller(x, EDGES, teacher=known, return_teacher=True)[2], said)


class Recurrent(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.cell, self.lin = nn.GRUCell(3, width), nn.Linear(width, 2)

    def forward(self, x, h=None):
        h = self.cell(x, h)
        return self.lin(h), h


def by_hand(model, sequence):
    outputs, h = [], None
    for x in sequence:
        out, h = model(x, h)
        outputs.append(out)
    return torch.stack(outputs)


@pytest.mark.parametrize("widths", [(6, 4), (4, 4)])
def test_unrolled_models_keep_their_states(widths):
    teacher, student = (Recurrent(width) for width in widths)
    hint = HintLoss("cell", "cell", in_channels=4, out_channels=widths[0], call="all")
    distiller = Distiller(teacher, student, [OutputLoss(), hint])
    sequence = torch.randn(5, 7, 3)
    expected = by_hand(student, sequence), by_hand(teacher, sequence)

    def step(model, x, h):
        return model(x, h)

    for given in (sequence, list(sequence), iter(sequence)):
        out, losses, said = distiller.unroll(step, given, return_teacher=True)
        torch.testing.assert_close(out, expected[0])
        torch.testing.assert_close(said, expected[1])
        torch.testing.assert_close(losses["output"], (out - said).square().mean())
    sum(losses.values()).backward()
    assert student.cell.weight_hh.grad.any()
    # Step by step, each with its own state, it is the same.
    states, values = (None, None), []
    for x in sequence:
        (_, ours), losses, (_, theirs) = Distiller(teacher, student, [OutputLoss(select=0)])(
            x, states[0], teacher_args=(x, states[1]), return_teacher=True
        )
        states = ours, theirs
        values.append(losses["output"])
    torch.testing.assert_close(torch.stack(values).mean(), (out - said).square().mean())


def test_steps_of_other_shapes_are_a_list():
    distiller = Distiller(nn.Linear(2, 3), nn.Linear(2, 3), [OutputLoss()])
    sequence = [torch.randn(4, 2), torch.randn(6, 2)]
    out, losses = distiller.unroll(lambda model, x, h: (model(x), None), sequence)
    assert [x.shape for x in out] == [(4, 3), (6, 3)]
    each = [(distiller.student(x) - distiller.teacher(x)).square().mean() for x in sequence]
    torch.testing.assert_close(losses["output"], sum(each) / 2)


def test_teachers_that_draw_are_no_constants():
    class Draws(Net):
        def forward(self, x, edge_index=None):
            return super().forward(x[torch.randperm(len(x))])

    distiller = Distiller(Draws(4), Net(4), [SoftTargetLoss()])
    with pytest.warns(UserWarning, match="The teacher draws random numbers"):
        distiller.capture_teacher(torch.randn(4, 3), EDGES)
