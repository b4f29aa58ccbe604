from __future__ import annotations

import copy
import itertools
import math
from importlib.util import find_spec

import pytest
import torch
from torch.nn.functional import cross_entropy, l1_loss, mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN, MLP, global_mean_pool

from pyg_stkd.distill import (
    Distiller,
    Epoch,
    HintLoss,
    LogitLoss,
    OutputLoss,
    ResponseLoss,
    TeacherCache,
    fit,
    until_epoch,
)
from pyg_stkd.nn import DGCNN, STGCN

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


def graph(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), EDGES, torch.arange(n) % 3


def models(dropout=0.0):
    torch.manual_seed(0)
    return GCN(4, 16, 2, 3), GCN(4, 8, 2, 3, dropout=dropout, norm="batch_norm")


def run(epochs):
    return list(epochs)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.state_dict().values()])


def options(**more):
    return {"criterion": cross_entropy, "validate": None, "steps": 7, "every": 3, **more}


def test_is_the_loop_that_it_says():
    teacher, student = models()
    other = copy.deepcopy(student)
    labelled, unlabelled = [graph(0)], [graph(1)[:2]]
    torch.manual_seed(5)
    epochs = run(fit(Distiller(teacher, student), labelled, unlabelled, **options()))

    optimizer = torch.optim.Adam(other.parameters(), lr=0.005)
    losses = []
    for step in range(7):
        for group in optimizer.param_groups:
            group["lr"] = 0.005 * (1 + math.cos(math.pi * step / 7)) / 2
        x, edge_index, *y = (unlabelled if step % 2 else labelled)[0]
        out = other.train()(x, edge_index)
        loss = mse_loss(out, teacher.eval()(x, edge_index).detach())
        losses.append(loss.item())
        if y:
            loss = loss + cross_entropy(out, y[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    torch.testing.assert_close(weights(student), weights(other), rtol=1e-5, atol=1e-6)
    assert [(e.epoch, e.step) for e in epochs] == [(1, 3), (2, 6), (3, 7)]
    assert epochs[0].losses["output"] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-4)
    assert epochs[0].unlabelled == pytest.approx({"output": losses[1], "loss": losses[1]}, rel=1e-4)
    assert all(isinstance(epoch, Epoch) and epoch.metric is None for epoch in epochs)
    assert epochs[2].lr == pytest.approx(0.005 * (1 + math.cos(math.pi * 6 / 7)) / 2)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 5), (0.5, 10), (1.0, 20)])
def test_steps_are_fixed_whatever_the_share(share, expected):
    teacher, student = models()
    seen = []
    student.register_forward_pre_hook(lambda _, args: seen.append(args[0].size(0)))
    other = (torch.randn(5, 4), EDGES[:, :4])
    epochs = run(
        fit(Distiller(teacher, student), [graph(0)], [other], **options(steps=20, share=share))
    )
    taken = seen[2 if share else 1 :]  # after the looks before the first step
    assert (len(taken), taken.count(5)) == (20, expected)
    assert epochs[-1].step == 20


def test_the_best_weights_stay_whatever_comes_after():
    for mode, sign in (("min", 1.0), ("max", -1.0)):
        teacher, student = models()
        metrics = itertools.chain([9.0, 3.0, 1.0, 1.0, 2.0, math.nan], itertools.repeat(4.0))
        kept = []

        def validate(model, metrics=metrics, kept=kept, sign=sign):
            assert not model.training
            assert not torch.is_grad_enabled()
            kept.append(weights(model))
            return sign * next(metrics)

        epochs = run(
            fit(
                Distiller(teacher, student), [graph(0)], mode=mode,
                **options(steps=16, every=2, validate=validate),
            )
        )  # fmt: skip
        assert [epoch.best for epoch in epochs] == [True, True, True, *[False] * 5]
        assert torch.equal(weights(student), kept[3])


def test_weights_that_it_came_with_may_be_the_best_and_leaving_early_gives_the_best():
    teacher, student = models()
    before, calls = weights(student), itertools.count()
    epochs = fit(Distiller(teacher, student), [graph(0)], **options(validate=lambda _: next(calls)))
    next(epochs)
    assert not torch.equal(weights(student), before)
    epochs.close()
    assert torch.equal(weights(student), before)


@pytest.mark.parametrize(
    ("mode", "metrics", "words"),
    [
        (
            "min",
            [0.5, 0.75, 1.0],
            r"mode='min': 0.5 before, 1 at the end.*a score.*needs mode='max'",
        ),
        (
            "max",
            [1.0, 0.75, 0.5],
            r"mode='max': 1 before, 0.5 at the end.*an error.*needs mode='min'",
        ),
    ],
)
def test_weights_that_are_lost_are_told_of(mode, metrics, words):
    teacher, student = models()
    before, given = weights(student), iter(metrics)
    epochs = fit(
        Distiller(teacher, student), [graph(0)], mode=mode,
        **options(steps=2, every=1, validate=lambda _: next(given)),
    )  # fmt: skip
    with pytest.warns(UserWarning, match=words) as told:
        run(epochs)
    assert len(told) == 1
    assert told[0].filename == __file__  # where the loop is
    assert torch.equal(weights(student), before)


def test_alpha_weighs_labels_and_teacher():
    for alpha in (0.0, 0.3, 1.0):
        teacher, student = models()
        x, edge_index, y = graph(0)
        out = copy.deepcopy(student).train()(x, edge_index)
        task, taught = cross_entropy(out, y), mse_loss(out, teacher.eval()(x, edge_index))
        (epoch,) = fit(
            Distiller(teacher, student), [(x, edge_index, y)], alpha=alpha, **options(steps=1)
        )
        expected = ((1 - alpha) * task + alpha * taught).item()
        assert epoch.losses["loss"] == pytest.approx(expected, rel=1e-5)


def test_without_labels_no_label_is_looked_at():
    teacher, student = models()
    x, edge_index, _ = graph(0)
    nothing = torch.full((6,), -(10**9))
    (epoch, *_) = fit(
        Distiller(teacher, student), [(x, edge_index, nothing)], alpha=1, **options(criterion=None)
    )
    assert sorted(epoch.losses) == ["loss", "output"]


def test_other_nodes_of_a_graph_are_its_unlabelled_part():
    teacher, student = models()
    x, edge_index, y = graph(0)
    mask = torch.tensor([True, True, False, False, True, False])
    wrong = y.where(mask, -(10**9))  # would be refused by the criterion
    data = Data(x=x, edge_index=edge_index, y=wrong, train_mask=mask)
    out = copy.deepcopy(student).train()(x, edge_index)
    (epoch,) = fit(Distiller(teacher, student), [data], **options(steps=1))
    assert epoch.losses == pytest.approx(
        {
            "task": cross_entropy(out[mask], y[mask]).item(),
            "output": mse_loss(out, teacher.eval()(x, edge_index)).item(),
            "loss": sum(epoch.losses[k] for k in ("task", "output")),
        },
        rel=1e-5,
    )


def test_seeds_of_sampled_neighbourhoods_count_alone():
    teacher, student = models()
    x, edge_index, y = graph(0)
    data = Data(x=x, edge_index=edge_index, y=y, input_id=torch.tensor([7, 8]), batch_size=2)
    out = copy.deepcopy(student).train()(x, edge_index)
    known = teacher.eval()(x, edge_index)
    (epoch, *_) = fit(Distiller(teacher, student), [data], [data], **options(steps=2, every=2))
    assert epoch.losses["task"] == pytest.approx(cross_entropy(out[:2], y[:2]).item(), rel=1e-5)
    expected = mse_loss(out[:2], known[:2]).item()
    assert epoch.losses["output"] == pytest.approx(expected, rel=1e-5)


def test_a_teacher_runs_once_on_each_batch_of_a_list_and_says_the_same():
    seen = {}
    for cache in (True, False):
        teacher, student = models()
        calls = []
        teacher.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(1)
        data = [graph(i) for i in range(2)], [graph(2)[:2]]
        run(fit(Distiller(teacher, student), *data, cache=cache, **options(steps=20)))
        seen[cache] = len(calls), weights(student)
    assert seen[True][0] == 2 + 3  # two looks before the first step
    assert seen[False][0] == 2 + 20
    assert torch.equal(seen[True][1], seen[False][1])


def test_a_cache_may_be_a_folder_or_serve_several_students(tmp_path):
    data = [graph(i) for i in range(2)], [graph(2)[:2]]
    ends, calls = [], []
    kept = [True, TeacherCache, TeacherCache]
    if find_spec("safetensors") is not None:
        kept += [tmp_path / "kept", str(tmp_path / "kept")]
    teacher, _ = models()
    teacher.register_forward_hook(lambda *_: calls.append(1))
    own = TeacherCache(
        Distiller(teacher, models()[1], [OutputLoss(), HintLoss("convs.0", "convs.0")])
    )
    asked = []
    for cache in kept:
        _, student = models()
        torch.manual_seed(1)
        calls.clear()
        cache = own if cache is TeacherCache else cache
        run(fit(Distiller(teacher, student), *data, cache=cache, **options(steps=20)))
        ends.append(weights(student))
        asked.append(len(calls))
    assert asked == [2 + 3, 2 + 3, 2, 2 + 3, 2][: len(kept)]  # two looks before the first step
    assert all(torch.equal(ends[0], end) for end in ends[1:])


def test_a_cache_of_something_else_is_refused():
    teacher, student = models()
    distiller = Distiller(teacher, student)
    other = TeacherCache(Distiller(models()[0], student))
    refused(ValueError, "'cache' must keep what", [graph(0)], distiller=distiller, cache=other)
    deeper = Distiller(teacher, student, [HintLoss("convs.0", "convs.0")])
    shallow = TeacherCache(distiller)
    assert shallow.serves(distiller)
    assert not shallow.serves(deeper)
    refused(ValueError, "'cache' must keep what", [graph(0)], distiller=deeper, cache=shallow)
    refused(TypeError, "'cache' must be a bool, a folder or", [graph(0)], cache=3)


def test_several_processes_need_a_loop_of_their_own():
    class Wrapped(DistributedDataParallel):
        def __init__(self):
            torch.nn.Module.__init__(self)

    match = "one process.*examples/distributed.py"
    refused(TypeError, match, [graph(0)], distiller=Wrapped())


def test_schedules_of_losses_are_told_the_epoch():
    teacher, student = models()
    losses = [OutputLoss(), LogitLoss(schedule=until_epoch(2))]
    epochs = run(fit(Distiller(teacher, student, losses), [graph(0)], **options(steps=9)))
    assert [epoch.losses["logit"] > 0 for epoch in epochs] == [True, True, False]


def test_adapters_are_trained_too():
    teacher, student = models()
    distiller = Distiller(teacher, student, [HintLoss("convs.0", "convs.0")])
    epochs = fit(distiller, [graph(0)], **options(steps=60))
    first, *_, last = epochs
    assert last.losses["hint"] < first.losses["hint"]
    assert len(list(distiller.losses.parameters())) > 0


class Pooled(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gnn = GCN(4, width, 2, 3)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.gnn(x, edge_index), batch)


def test_graphs():
    graphs = [Data(x=graph(i)[0], edge_index=EDGES, y=torch.tensor([i % 3])) for i in range(6)]
    loader = [Batch.from_data_list(graphs[:3]), Batch.from_data_list(graphs[3:])]
    epochs = fit(
        Distiller(Pooled(8), Pooled(4)), loader, loader,
        unpack=lambda data: ((data.x, data.edge_index, data.batch), {}, data.y), **options(),
    )  # fmt: skip
    assert run(epochs)[-1].step == 7


def test_sequences():
    torch.manual_seed(0)
    teacher, student = (STGCN(1, 4, 2, temporal_channels=c) for c in (8, 4))
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    windows = [(torch.randn(2, 12, 3, 1), edge_index, torch.randn(2, 2, 3)) for _ in range(3)]
    epochs = fit(
        Distiller(teacher, student, [OutputLoss("mae")]), windows[:1], windows[1:],
        **options(criterion=l1_loss, validate=lambda m: l1_loss(m(*windows[0][:2]), windows[0][2])),
    )  # fmt: skip
    last = run(epochs)[-1]
    assert last.step == 7
    assert last.metric > 0


def test_shapes():
    torch.manual_seed(0)
    teacher, student = (DGCNN(3, 4, (c, c, 8), (8,), k=3) for c in (6, 4))
    clouds = [(torch.randn(24, 3), torch.arange(24) // 8, torch.tensor([0, 1, 2])) for _ in "123"]
    epochs = fit(
        Distiller(teacher, student, [LogitLoss()]), clouds[:1], [c[:2] for c in clouds[1:]],
        **options(),
    )  # fmt: skip
    assert sorted(run(epochs)[0].unlabelled) == ["logit", "loss"]


def test_a_student_without_edges():
    torch.manual_seed(0)
    teacher, student = GCN(4, 8, 2, 3), MLP([4, 8, 3], norm=None)
    x, edge_index, y = graph(0)

    def unpack(batch):
        x, edge_index, y = batch
        return (x,), {"teacher_args": (x, edge_index)}, y

    before = mse_loss(student(x), teacher.eval()(x, edge_index))
    epochs = run(
        fit(
            Distiller(teacher, student), [(x, edge_index, y)], alpha=1, unpack=unpack,
            optimizer=lambda p: torch.optim.Adam(p, lr=0.05), **options(criterion=None, steps=50),
        )
    )  # fmt: skip
    assert epochs[-1].losses["output"] < 0.3 * before


def test_an_optimizer_may_be_given():
    teacher, student = models()
    before = weights(student)
    distiller = Distiller(teacher, student)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.0)
    for given in (optimizer, lambda parameters: torch.optim.SGD(parameters, lr=0.0)):
        run(
            fit(
                distiller, [graph(0)], optimizer=given,
                scheduler=lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
                **options(validate=lambda _: 1.0),
            )
        )  # fmt: skip
        moved = [name for name, _ in student.named_parameters()]
        assert all("running" not in name for name in moved)
    parameters = torch.cat([p.detach().flatten() for p in student.parameters()])
    assert set(parameters.tolist()) <= set(before.tolist())
    with pytest.raises(ValueError, match="'optimizer' must have parameters of the distiller"):
        fit(
            distiller, [graph(0)], **options(),
            optimizer=torch.optim.SGD(torch.nn.Linear(2, 2).parameters()),
        )  # fmt: skip


def resumable(kind, path, validate=None):
    """Return a student with dropout and batch norm, and a fit of it, made anew each time."""
    teacher, student = models(dropout=0.5)
    losses = [LogitLoss(), HintLoss("convs.0", "convs.0")]
    graphs, more = [graph(i) for i in range(5)], [graph(i)[:2] for i in range(5, 8)]
    labelled = {
        "list": graphs,
        "loader": DataLoader(graphs, batch_size=None, shuffle=True),
    }[kind]
    scores = itertools.cycle([3.0, 1.0, 2.0])
    torch.manual_seed(17)
    return student, fit(
        Distiller(teacher, student, losses), labelled, more, checkpoint=path,
        **options(
            steps=23, every=4,
            validate=lambda model: float(weights(model).double().sum().cos()) + next(scores) * 0,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["list", "loader"])
def test_resume_is_exact(kind, tmp_path):
    student, epochs = resumable(kind, None)
    whole = run(epochs)
    path = tmp_path / "fit.pt"
    for taken in (1, 3):  # interrupted twice
        _, epochs = resumable(kind, path)
        assert list(itertools.islice(epochs, taken)) == whole[:taken]
        epochs.close()
    other, epochs = resumable(kind, path)
    assert run(epochs) == whole
    assert torch.equal(weights(student), weights(other))
    _, epochs = resumable(kind, path)
    assert run(epochs) == whole  # done: nothing is left to do
    assert [p.name for p in tmp_path.iterdir()] == ["fit.pt"]


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    path = tmp_path / "fit.pt"
    path.write_bytes(b"nothing")
    _, epochs = resumable("list", path)
    with pytest.raises(ValueError, match=r"'checkpoint' must be a file of fit \(got 'fit.pt'\)"):
        next(epochs)
    torch.save({"a": 1}, path)
    _, epochs = resumable("list", path)
    with pytest.raises(ValueError, match="'checkpoint' must be a file of fit"):
        next(epochs)
    path.unlink()
    run(resumable("list", path)[1])
    teacher, student = models()
    epochs = fit(Distiller(teacher, student), [graph(0)], checkpoint=path, **options())
    with pytest.raises(ValueError, match=r"'checkpoint' must be of the same plan .*'steps': 7"):
        next(epochs)
    epochs = fit(
        Distiller(teacher, GCN(4, 3, 2, 3)), [graph(0)], [graph(0)], checkpoint=path,
        **options(steps=23, every=4),
    )  # fmt: skip
    with pytest.raises(ValueError, match="'checkpoint' must be of this student"):
        next(epochs)


def refused(error, match, *args, distiller=None, **more):
    with pytest.raises(error, match=match):
        fit(Distiller(*models()) if distiller is None else distiller, *args, **options(**more))


def test_options_out_of_range():
    one = [graph(0)]
    for steps in (0, -1):
        refused(ValueError, rf"'steps' must be at least 1 \(got {steps}\)", one, steps=steps)
    refused(TypeError, "'steps' must be an integer", one, steps=1.5)
    refused(ValueError, "'every' must be at least 1", one, every=0)
    for name in ("share", "alpha"):
        for value in (-0.1, 1.1, math.nan):
            refused(ValueError, f"'{name}' must be at least 0", one, [graph(1)], **{name: value})
    refused(ValueError, "'mode' must be one of 'min', 'max'", one, mode="lower")
    refused(ValueError, "'criterion' must be given unless alpha=1", one, criterion=None)
    refused(TypeError, "'validate' must be callable", one, validate=3)
    refused(TypeError, "'distiller' must be a Distiller", one, distiller=torch.nn.Linear(2, 2))


def test_loaders_that_do_not_fit():
    x, edge_index, y = graph(0)
    data = Data(x=x, edge_index=edge_index, y=y)
    refused(ValueError, "'labelled' must give at least one batch", [])
    refused(ValueError, "'unlabelled' must give at least one batch", [graph(0)], [])
    refused(TypeError, "'labelled' must give its batches again", iter([graph(0)]))
    refused(ValueError, r"of one kind \(got tuple and Data\)", [graph(0)], [data])
    refused(ValueError, r"of one kind \(got Data and tuple\)", [data], [graph(0)])
    refused(ValueError, "tuples of 2 inputs and the target, which may be", [graph(0)], [(x,)])
    refused(ValueError, "must give the same inputs", [graph(0)], [(edge_index, edge_index)])
    refused(TypeError, "'labelled' must give tuples .*got int", [3])
    refused(ValueError, "got edge_weight too", [Data(**data.to_dict(), edge_weight=x[:, 0])])
    refused(ValueError, "got no y", [Data(x=x, edge_index=edge_index)])
    empty = Data(**data.to_dict(), train_mask=torch.zeros(6, dtype=torch.bool))
    refused(ValueError, "train_mask .* of at least one node", [empty])
    for wrong, got in (
        (lambda batch: batch[0], "Tensor"),
        (lambda batch: batch[:2], r"\(Tensor, Tensor\)"),
        (lambda batch: (batch[0], {}, batch[2]), r"\(Tensor, dict, Tensor\)"),
        (lambda batch: (batch[:2], None, batch[2]), r"\(tuple, NoneType, Tensor\)"),
    ):
        refused(TypeError, rf"'unpack' must return .*got {got}", [graph(0)], unpack=wrong)
    short, pairs = torch.ones(5, dtype=torch.bool), torch.ones(6, 2, dtype=torch.bool)
    for mask in (short, pairs, torch.ones(6)):
        refused(ValueError, "train_mask", [Data(**data.to_dict(), train_mask=mask)])
    short = Data(x=x, edge_index=edge_index, y=y[:5], train_mask=torch.ones(6, dtype=torch.bool))
    refused(ValueError, "a y of one row for each of the 6 nodes, as its train_mask", [short])
    links = Data(**data.to_dict(), input_id=torch.arange(2), edge_label_index=edge_index)
    refused(ValueError, "got edge_label_index too", [links])  # rows are pairs, no nodes


class PerGraph(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gcn = GCN(4, width, 2, 3)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.gcn(x, edge_index), batch)


def test_models_of_other_inputs_are_told_to_give_unpack():
    x, edge_index, _ = graph(0)
    loader = [Batch.from_data_list([Data(x=x, edge_index=edge_index, y=torch.tensor([1]))] * 3)]
    pair = Distiller(PerGraph(8), PerGraph(4))
    refused(TypeError, "x and edge_index of the Data, or unpack=.*'batch'", loader, distiller=pair)
    read = {"unpack": lambda data: ((data.x, data.edge_index, data.batch), {}, data.y)}
    assert len(run(fit(pair, loader, **options(**read)))) == 3


@pytest.mark.parametrize("kind", ["Data", "tuple"])
def test_without_labels_none_need_be_there(kind):
    results = []
    for labels in (True, False):
        x, edge_index, y = graph(0)
        y = y if labels else None
        batch = Data(x=x, edge_index=edge_index, y=y) if kind == "Data" else (x, edge_index, y)
        teacher, student = models()
        run(fit(Distiller(teacher, student), [batch], alpha=1, **options(criterion=None)))
        results.append(weights(student))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("steps", "share", "expected"),
    [(7, 0.5, 2), (7, 0.0, 1), (7, 1.0, 1), (1, 0.5, 1), (20, 0.3, 4), (20, 0.75, 4),
     (20, 0.05, 1), (500, 0.5, 10)],
)  # fmt: skip
def test_epochs_have_steps_of_both_kinds(steps, share, expected):
    given = {"criterion": cross_entropy, "steps": steps, "share": share}
    epochs = run(fit(Distiller(*models()), [graph(0)], [graph(1)], **given))
    assert epochs[0].step == expected
    if expected > 1:
        assert epochs[0].losses
        assert epochs[0].unlabelled


def test_models_and_losses_that_do_not_fit():
    teacher, _ = models()
    other = Distiller(teacher, GCN(4, 8, 2, 2))
    refused(ValueError, r"must have the same shape \(got \[6, 2\] and", [graph(0)], distiller=other)
    wide = (torch.randn(6, 5), EDGES)
    refused(
        ValueError, "^The models must take the first 2 of .*cannot be mult", [(*wide, graph(0)[2])]
    )  # the model says so
    refused(ValueError, "'unlabelled' must give what .*be multiplied", [graph(0)], [wide])
    needs = Distiller(*models(), [ResponseLoss()])
    target = (*graph(0)[:2], torch.randn(6, 3))
    refused(
        ValueError, "labels must be given", [target], [target], distiller=needs, criterion=mse_loss
    )
    refused(ValueError, "'losses' .* must not be empty", [graph(0)], [graph(0)],
            distiller=Distiller(*models(), []))  # fmt: skip
    for value, error, got in (
        (torch.ones(6, 3), ValueError, r"must return a scalar \(got task \[6, 3\], output \[\]\)$"),
        (1.0, TypeError, r"must return a tensor \(got float\)"),
        (None, TypeError, r"must return a tensor \(got NoneType\)"),
    ):
        refused(error, f"'criterion' {got}", [graph(0)], criterion=lambda *_, value=value: value)


def test_optimizers_and_schedulers_that_do_not_fit():
    one = [graph(0)]
    for wrong, got in (("adam", "str"), (lambda _: None, "NoneType")):
        refused(TypeError, f"'optimizer' must be an optimizer, .*got {got}", one, optimizer=wrong)
    for wrong, got in (
        (lambda _: None, "NoneType"),
        (torch.optim.lr_scheduler.ReduceLROnPlateau, "ReduceLROnPlateau"),  # it needs a metric
    ):
        refused(TypeError, f"'scheduler' must make .*got {got}", one, scheduler=wrong)
    teacher, student = models()
    frozen = Distiller(teacher, student.requires_grad_(False))
    refused(ValueError, "parameters that require gradients", one, distiller=frozen)


def test_a_cache_that_would_keep_nothing_is_refused(tmp_path):
    loader = DataLoader([graph(0)], batch_size=None)
    for cache in (tmp_path / "a", TeacherCache(Distiller(*models()))):
        given = Distiller(*models())
        cache = TeacherCache(given) if isinstance(cache, TeacherCache) else cache
        refused(ValueError, "'cache' must be given with batches in lists: .*DataLoader", loader,
                cache=cache, distiller=given)  # fmt: skip
    run(fit(Distiller(*models()), loader, [graph(1)], **options(cache=tmp_path / "b")))
    assert len(list((tmp_path / "b").glob("*.safetensors"))) == 1  # the listed one


def test_what_is_not_finite():
    for value in (math.nan, math.inf):
        refused(
            ValueError,
            "'validate' must return a finite number",
            [graph(0)],
            validate=lambda _, value=value: value,
        )
    refused(TypeError, "'validate' must return a number", [graph(0)], validate=lambda _: "good")
    x, edge_index, y = graph(0)
    bad = (x / 0, edge_index, y)
    refused(ValueError, "The loss must be finite at step 1", [bad])
    teacher, student = models()
    loader = [graph(0)]
    epochs = fit(Distiller(teacher, student), loader, cache=False, **options())
    loader[0] = bad
    with pytest.raises(FloatingPointError, match="The loss must be finite at step"):
        run(epochs)


def test_looking_changes_nothing():
    teacher, student = models(dropout=0.5)
    student.train()
    before, random = weights(student), torch.get_rng_state()
    fit(Distiller(teacher, student), [graph(0)], [graph(1)], **options(validate=lambda _: 1.0))
    assert torch.equal(weights(student), before)
    assert torch.equal(torch.get_rng_state(), random)


def test_batches_that_are_read_otherwise_than_they_are_meant_say_so():
    """Such as windows of a series (x, y, mask), whose roads the loader does not know."""
    teacher, student = models()
    x, edges, y = graph(0)
    with pytest.raises(
        ValueError,
        match=r"take the first 2 of the 3 entries of a tuple, or unpack=batch.*given \(got \w+",
    ):
        fit(Distiller(teacher, student), [(x, torch.ones(3, 5), y)], **options())
    with pytest.raises(TypeError, match=r"take the first 1 of the 2 entries.*'edge_index'"):
        fit(Distiller(teacher, student), [(x, y)], **options())
    with pytest.raises(ValueError, match=r"take x and edge_index of the Data.*given \(got \w+"):
        fit(Distiller(teacher, student), [Data(x=x[:, :3], edge_index=edges, y=y)], **options())
    # An error of the criterion is none of reading, and is left as it is.
    with pytest.raises(RuntimeError, match=r"^expected scalar type"):
        fit(Distiller(teacher, student), [(x, edges, y)], **options(criterion=wrong))


def wrong(out, target):
    raise RuntimeError("expected scalar type")
