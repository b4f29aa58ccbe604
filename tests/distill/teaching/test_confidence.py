"""The errors of teachers' outputs and the weights that follow, against the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyg_stkd.distill import Capture
from pyg_stkd.distill.teaching.confidence import confidence, error_of


def output(value: Tensor, nodes: Tensor | None = None) -> Capture:
    return Capture(value, layer="1", owner="teacher", nodes=nodes)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.double().exp() / logits.double().exp().sum(-1, keepdim=True)
    return -sum(p[i, y].log() for i, y in enumerate(labels.tolist())) / len(labels)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    p = 1 / (1 + (-logits.double()).exp())
    y = labels.double()
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected.double())


def test_weights_are_those_of_the_paper() -> None:
    errors = torch.tensor([0.3, 1.2, 0.1, 2.5], dtype=torch.float64)
    total = sum(math.exp(e) for e in errors.tolist())
    expected = [(1 - math.exp(e) / total) / 3 for e in errors.tolist()]
    weights = confidence(errors)
    assert weights.tolist() == pytest.approx(expected, abs=1e-14)
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
    assert confidence(torch.tensor([2.0, 2.0])).tolist() == [0.5, 0.5]
    assert confidence(torch.tensor([1e4, 0.0])).tolist() == [0.0, 1.0]  # no overflow


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_classes(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    close(error_of(output(logits), labels.to(dtype)), cross_entropy(logits, labels))
    assert error_of(output(logits.bfloat16()), labels).dtype == torch.float32


def test_classes_of_batches_and_unlabelled_nodes() -> None:
    logits, labels = torch.randn(2, 3, 4), torch.tensor([[0, 3, -100], [-100, 1, 2]])
    known = labels != -100
    close(error_of(output(logits), labels), cross_entropy(logits[known], labels[known]))
    assert error_of(output(logits), torch.full((2, 3), -100)) == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_labels_of_zero_and_one(dtype: torch.dtype) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    expected = binary_cross_entropy(logits, labels)
    close(error_of(output(logits), labels.to(dtype)), expected)
    close(error_of(output(logits[:, 0]), labels[:, 0].to(dtype)),
          binary_cross_entropy(logits[:, 0], labels[:, 0]))  # fmt: skip


def test_values() -> None:
    value, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    close(error_of(output(value), target), (value - target).square().mean())
    close(error_of(output(value), target.double()), (value - target).square().mean())


@pytest.mark.parametrize("target", [torch.tensor([1.0, 0.0]), torch.tensor([1.5, 0.5])])
def test_missing_labels_do_not_count(target: Tensor) -> None:
    value, missing = torch.tensor([0.3, -0.7, 5.0]), torch.tensor([math.nan])
    expected = error_of(output(value[:2]), target)
    close(error_of(output(value), torch.cat([target, missing])), expected)
    assert error_of(output(value[2:]), missing) == 0


def test_entropy_without_a_target() -> None:
    logits = torch.randn(4, 3)
    p = logits.double().exp() / logits.double().exp().sum(-1, keepdim=True)
    close(error_of(output(logits)), -(p * p.log()).sum(-1).mean())
    nodes = torch.tensor([2, 0])
    close(error_of(output(logits, nodes)), -(p * p.log()).sum(-1)[nodes].mean())
    assert error_of(output(torch.tensor([[0.0, -math.inf]]))) == 0  # a class ruled out


@pytest.mark.parametrize("nodes", [torch.tensor([3, 1]), torch.tensor([False, True, False, True])])
def test_chosen_nodes(nodes: Tensor) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = cross_entropy(logits[nodes], labels[nodes])
    close(error_of(output(logits, nodes), labels), expected)
    close(error_of(output(logits, nodes), labels[nodes]), expected)  # of these nodes alone
    many = torch.randint(2, (2, 4, 3))
    logits = torch.randn(2, 4, 3)
    expected = binary_cross_entropy(logits[:, nodes], many[:, nodes])
    close(error_of(output(logits, nodes), many.float()), expected)


@pytest.mark.parametrize("nodes", [torch.tensor([4, 1]), torch.arange(5) > 2])
def test_chosen_nodes_of_forecasts_are_last(nodes: Tensor) -> None:
    value, target = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    expected = (value - target)[..., nodes].square().mean()
    close(error_of(output(value, nodes), target), expected)
    close(error_of(output(value, nodes), target[..., nodes]), expected)
    with pytest.raises(IndexError, match=r"'nodes' must be below the 5 rows .*\(got 7\)"):
        error_of(output(value, torch.tensor([7])), target)


def test_an_error_of_the_users() -> None:
    value, target = torch.randn(4, 2), torch.randn(4, 2)
    nodes = torch.tensor([3, 1])
    expected = (value - target)[nodes].abs().max()
    assert error_of(output(value, nodes), target, lambda y, t: (y - t).abs().max()) == expected
    with pytest.raises(TypeError, match=r"'error' must return a scalar \(got tensor"):
        error_of(output(value), target, lambda y, t: (y - t).abs())
    with pytest.raises(ValueError, match=r"'error' needs the labels.*\(got None\)"):
        error_of(output(value), None, lambda y, t: y.sum())


@pytest.mark.parametrize(
    ("value", "target", "got"),
    [
        (torch.ones(3, 2), torch.ones(3), r"\[3\] of torch.float32 for an output \[3, 2\]"),
        (torch.ones(3, 1), torch.arange(3), r"\[3\] of torch.int64 for an output \[3, 1\]"),
        (torch.ones(3, 2), torch.full((3, 2), 7), r"\[3, 2\] of torch.int64"),
        (torch.ones(3, 2), torch.zeros(4).long(), r"\[4\] of torch.int64"),
    ],
)
def test_targets_that_tell_of_no_error(value: Tensor, target: Tensor, got: str) -> None:
    match = rf"of the teacher layer '1' \(got shape {got}.*else give Teachers the error"
    with pytest.raises(ValueError, match=match):
        error_of(output(value), target)


def test_outputs_that_tell_of_no_entropy() -> None:
    for value, got in ((torch.ones(3, 1), r"\[3, 1\]"), (torch.ones(3), r"\[3\]")):
        with pytest.raises(ValueError, match=rf"less than two classes \(got shape {got}\)"):
            error_of(output(value))
    with pytest.raises(TypeError, match=r"'target' must be a tensor of labels \(got list\)"):
        error_of(output(torch.ones(3, 2)), [1, 0, 1])
