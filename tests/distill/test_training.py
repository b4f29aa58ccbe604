"""Tests of pyg_stkd/distill/training.py: what a batch is made of, and the full loss."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from pyg_stkd.distill import Distiller, SoftTargetLoss
from pyg_stkd.distill.training import (
    OnRows,
    batches_of,
    of_data,
    of_models,
    task_loss,
    total_loss,
    unpack,
)


def test_batches_of_tuples_and_data() -> None:
    x, edge_index, y = torch.rand(3, 2), torch.tensor([[0], [1]]), torch.zeros(3)
    for batch in ((x, edge_index, y), Data(x=x, edge_index=edge_index, y=y)):
        args, kwargs, target = unpack(batch)
        assert [a is b for a, b in zip(args, (x, edge_index), strict=True)] == [True, True]
        assert kwargs == {}
        assert target is y
    with pytest.raises(TypeError, match=r"'loader' must give tuples .* \(got Tensor\)"):
        unpack(x)


@pytest.mark.parametrize("name", ["edge_weight", "edge_attr", "edge_label_index"])
def test_nothing_of_a_batch_is_left_out_unsaid(name: str) -> None:
    data = Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0], [1]]), y=torch.zeros(3))
    args, kwargs, target = unpack(data)
    assert args[0] is data.x
    assert args[1] is data.edge_index
    assert (kwargs, target is data.y) == ({}, True)
    assert unpack(Batch.from_data_list([data, data]))[0][0].shape == (6, 2)
    data[name] = torch.ones(1)
    with pytest.raises(ValueError, match=rf"'loader' must give Data .* \(got {name} too\)"):
        unpack(data)


def test_nodes_of_a_mask_count_alone_in_the_tasks_loss() -> None:
    torch.manual_seed(0)
    distiller = Distiller(nn.Linear(2, 3), nn.Linear(2, 3), [SoftTargetLoss()], call=_of_x)
    x, edge_index, mask = torch.rand(3, 2), torch.tensor([[0], [1]]), torch.tensor([1, 0, 1]).bool()
    y = torch.tensor([0, -(10**9), 2])  # would be refused by the criterion
    batch = unpack(Data(x=x, edge_index=edge_index, y=y, train_mask=mask))
    _, terms = total_loss(distiller, batch, F.cross_entropy)
    out, losses = distiller(x, edge_index)
    assert torch.equal(terms["task"], F.cross_entropy(out[mask], y[mask]))
    assert torch.equal(terms["soft_target"], losses["soft_target"])  # of all nodes


def test_seeds_of_a_sampled_neighbourhood_count_alone_in_all_losses() -> None:
    torch.manual_seed(0)
    distiller = Distiller(nn.Linear(2, 3), nn.Linear(2, 3), [SoftTargetLoss()], call=_of_x)
    x, edge_index, y = torch.rand(5, 2), torch.tensor([[4], [1]]), torch.tensor([0, 2, 1, 1, 1])
    mask = torch.zeros(5).bool()  # that of the whole graph, cut: it does not count
    data = Data(x=x, edge_index=edge_index, y=y, train_mask=mask, input_id=torch.tensor([8, 3]))
    data.batch_size = 2
    _, terms = total_loss(distiller, unpack(data), F.cross_entropy)
    out, losses = distiller(x[:2], edge_index)
    torch.testing.assert_close(terms["task"], F.cross_entropy(out, y[:2]))
    torch.testing.assert_close(terms["soft_target"], losses["soft_target"])


def _of_x(model: nn.Module, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = model(x)
    return out


def test_labels_that_losses_are_given_are_those_of_all_rows() -> None:
    seen = []

    def distiller(x, target):
        seen.append(target)
        return x, {"a": torch.tensor(5.0)}

    y = torch.arange(3.0)
    batch = ((torch.ones(3),), {}, OnRows(y, torch.tensor([2])))
    loss, _ = total_loss(distiller, batch, lambda out, target: (out * target).sum())
    assert (loss.item(), seen[0] is y) == (5 + 2, True)


def test_rows_of_a_task_need_a_tensor() -> None:
    target = OnRows(torch.ones(2), torch.tensor([0]))
    with pytest.raises(TypeError, match=r"a student that returns a tensor.*\(got tuple\)"):
        task_loss(lambda out, y: out.sum(), (torch.ones(2),), target)
    with pytest.raises(TypeError, match=r"'criterion' must return a tensor \(got float\)"):
        task_loss(lambda out, y: 1.0, torch.ones(2), target)


MASK = torch.tensor([True, False, True])


@pytest.mark.parametrize(
    ("y", "got"),
    [
        (torch.zeros(2), r"\[2\]"),
        (torch.zeros(4, 1), r"\[4, 1\]"),
        (torch.tensor(1), r"\[\]"),
        ([0, 1, 2], "list"),
    ],
    ids=["short", "long", "scalar", "list"],
)
def test_every_node_of_a_mask_has_its_label(y: object, got: str) -> None:
    data = Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0], [1]]), y=y, train_mask=MASK)
    rule = "'loader' must give Data with a y of one row for each of the 3 nodes, as its train_mask"
    with pytest.raises(ValueError, match=rf"^{rule} has \(got {got}\)$"):
        unpack(data)
    args, _, target = of_data("x", data, labelled=False)  # no label is looked at
    assert (args[0] is data.x, target) == (True, None)


def test_a_mask_has_the_rows_of_the_features() -> None:
    data = Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0], [1]]), y=torch.zeros(4))
    data.num_nodes, data.train_mask = 4, torch.ones(4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"train_mask \[N\] .*\(got 4 of shape \[4\] .* 3 nodes"):
        unpack(data)


def test_every_seed_has_its_label() -> None:
    data = Data(x=torch.rand(5, 2), edge_index=torch.tensor([[4], [1]]), y=torch.zeros(2))
    data.input_id, data.batch_size = torch.tensor([8, 3]), 2
    assert unpack(data)[-1].target is data.y  # cut to the seeds already
    data.y = data.y[:1]
    rule = "'loader' must give Data with a y of one row for each of the 2 sampled seeds"
    with pytest.raises(ValueError, match=rf"^{rule} \(got \[1\]\)$"):
        unpack(data)


@pytest.mark.parametrize(
    ("rows", "of"),
    [(MASK, "3 nodes, as its train_mask has"), (torch.arange(3), "3 sampled seeds")],
    ids=["mask", "seeds"],
)
def test_the_output_has_the_rows_that_count(rows: torch.Tensor, of: str) -> None:
    rule = f"'distiller' must have a student that returns one row for each of the {of}, or"
    for out in (torch.zeros(1, 3), torch.zeros(2, 3), torch.tensor(0.0)):  # of a graph, say
        got = re.escape(f"(got {list(out.shape)})")
        with pytest.raises(ValueError, match=f"^{rule} unpack=.*{got}$"):
            task_loss(F.mse_loss, out, OnRows(torch.zeros(3, 3), rows))
    assert task_loss(F.mse_loss, torch.ones(3), OnRows(torch.zeros(3), rows)) == 1


def test_batches_are_counted() -> None:
    seen: list[int] = []

    def loader():
        for i in range(5):
            seen.append(i)
            yield (i, i)

    assert [target for *_, target in batches_of(loader(), unpack, count=2)] == [0, 1]
    assert len([*batches_of(loader(), unpack)]) == 5


def test_the_total_is_the_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    distiller = Distiller(nn.Linear(2, 3), nn.Linear(2, 3), [SoftTargetLoss(weight=0.5)])
    x, y = torch.rand(4, 2), torch.tensor([0, 1, 2, 0])
    loss, terms = total_loss(distiller, ((x,), {}, y), F.cross_entropy)
    out, losses = distiller(x)
    assert list(terms) == ["task", "soft_target"]
    assert torch.equal(terms["task"], F.cross_entropy(out, y))
    assert torch.equal(loss, terms["task"] + losses["soft_target"])


def test_what_the_distiller_takes_is_not_the_models() -> None:
    signature = inspect.signature(Distiller.forward).parameters.values()
    own = [p.name for p in signature if p.kind is p.KEYWORD_ONLY]
    assert {"target", "nodes", "teacher", "teacher_args"} <= set(own)
    assert of_models({**dict.fromkeys(own), "x": 1, "self": 2, "args": 3}) == {
        "x": 1, "self": 2, "args": 3,
    }  # fmt: skip


@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
def test_alpha_shares_the_loss_between_labels_and_teacher(alpha):
    task, taught = torch.tensor(3.0), torch.tensor(5.0)
    looked = []

    def criterion(out, target):
        looked.append(target)
        return task

    def distiller(x, target):
        return x, {"a": taught, "b": 2 * taught}

    loss, terms = total_loss(distiller, ((1,), {}, 2), criterion, alpha)
    parts = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)
    assert loss == parts[0] * 3 + parts[1] * 15
    assert list(terms) == (["a", "b"] if alpha == 1 else ["task", "a", "b"])
    assert looked == ([] if alpha == 1 else [2])


def test_without_labels_the_teacher_alone_teaches():
    def distiller(x, target):
        return x, {"a": torch.tensor(5.0)}

    loss, terms = total_loss(distiller, ((1,), {}, None), None)
    assert (loss, list(terms)) == (5, ["a"])
    with pytest.raises(ValueError, match="'losses' of the distiller must not be empty"):
        total_loss(lambda x, target: (x, {}), ((1,), {}, None), None)
    with pytest.raises(ValueError, match=r"'alpha' must be at least 0 and at most 1 \(got 2\)"):
        total_loss(distiller, ((1,), {}, None), None, alpha=2)


def test_a_criterion_is_an_object() -> None:
    with pytest.raises(
        TypeError, match=r"^'criterion' must be an object, MSELoss\(\) \(got MSELoss\)$"
    ):
        task_loss(nn.MSELoss, torch.ones(3), torch.ones(3))
