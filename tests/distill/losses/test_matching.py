from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv

from pyg_stkd import Distiller
from pyg_stkd.distill import (
    Capture,
    DistillationLoss,
    HintLoss,
    OutputLoss,
    SoftTargetLoss,
    TeacherCache,
    Teachers,
)
from pyg_stkd.distill.losses.matching import match

Named = namedtuple("Named", "paper author")


@dataclass
class Fields:
    paper: Tensor
    author: Tensor


# How two tensors are returned, and the keys they are then known by.
KINDS: dict[str, tuple[Any, Any]] = {
    "dict": (lambda p, a: {"paper": p, "author": a}, ("paper", "author")),
    "other order": (lambda p, a: {"author": a, "paper": p}, ("paper", "author")),
    "ordered": (lambda p, a: OrderedDict(paper=p, author=a), ("paper", "author")),
    "named": (Named, ("paper", "author")),
    "dataclass": (Fields, ("paper", "author")),
    "tuple": (lambda p, a: (p, a), (0, 1)),
    "list": (lambda p, a: [p, a], (0, 1)),
    "data": (lambda p, a: Data(paper=p, author=a), ("paper", "author")),
    "edge types": (
        lambda p, a: {("a", "to", "p"): p, ("p", "to", "a"): a},
        (("a", "to", "p"), ("p", "to", "a")),
    ),
    "nested": (lambda p, a: {"x": (p, None), "y": {"z": a}}, ("x.0", "y.z")),
    "with others": (
        lambda p, a: (p, torch.tensor([[0], [1]]), p.sum(), "name", a),
        (0, 4),
    ),
}


class Net(nn.Module):
    def __init__(self, wrap: Any, width: int = 4) -> None:
        super().__init__()
        self.paper, self.author, self.wrap = nn.Linear(6, width), nn.Linear(8, width), wrap

    def forward(self, paper: Tensor, author: Tensor) -> Any:
        return self.wrap(self.paper(paper), self.author(author))


ARGS = torch.randn(7, 6), torch.randn(5, 8)


def errors(teacher: Net, student: Net) -> tuple[Tensor, Tensor]:
    pairs = (("paper", ARGS[0]), ("author", ARGS[1]))
    paper, author = (
        (student.get_submodule(name)(x) - teacher.get_submodule(name)(x)).square().mean()
        for name, x in pairs
    )
    return paper, author


@pytest.mark.parametrize("kind", KINDS)
def test_all_parts_are_compared_by_key(kind: str) -> None:
    wrap, (first, second) = KINDS[kind]
    teacher, student = Net(wrap), Net(wrap)
    paper, author = errors(teacher, student)
    for options, expected in (
        ({}, (paper + author) / 2),
        ({"weights": {first: 1.0, second: 3.0}}, (paper + 3 * author) / 4),
        ({"weights": {first: 2.0}}, paper),
        ({"weights": {first: 1, second: 0}}, paper),
        ({"select": first}, paper),
        ({"select": second}, author),
    ):
        distiller = Distiller(teacher, student, [OutputLoss(**options)])
        _, losses = distiller(*ARGS)
        torch.testing.assert_close(losses["output"], expected)
        losses["output"].backward()
        _, losses = distiller(*ARGS, teacher=TeacherCache(distiller)(0, *ARGS))
        torch.testing.assert_close(losses["output"], expected)
    assert student.paper.weight.grad.any()
    assert student.author.weight.grad.any()


def test_keys_go_before_the_order() -> None:
    teacher, student = Net(KINDS["dict"][0]), Net(KINDS["other order"][0])
    _, losses = Distiller(teacher, student, [OutputLoss()])(*ARGS)
    torch.testing.assert_close(losses["output"], sum(errors(teacher, student)) / 2)


def test_one_is_chosen_on_either_side() -> None:
    teacher, student = Net(KINDS["nested"][0]), Net(lambda p, a: (a, p))
    paper, author = errors(teacher, student)
    for select, other, expected in (
        (1, "x.0", paper),
        (-1, "x.0", paper),
        (0, lambda out: out["y"]["z"], author),
        (lambda out: out[0] * 2, lambda out: out["y"]["z"] * 2, 4 * author),
    ):
        loss = OutputLoss(select=select, teacher_select=other)
        _, losses = Distiller(teacher, student, [loss])(*ARGS)
        torch.testing.assert_close(losses["output"], expected)


def test_a_tensor_stands_against_the_only_part() -> None:
    x = Capture(torch.ones(3, 2))
    for other in ({"a": x.value}, (x.value, x.value.sum()), [x.value]):
        assert len(match(DistillationLoss(), x, Capture(other))) == 1
        assert len(match(DistillationLoss(), Capture(other), x)) == 1
    with pytest.raises(ValueError, match=r"same parts \(got 'a' and 'b'\)"):
        match(DistillationLoss(), Capture({"a": x.value}), Capture({"b": x.value}))


def test_parts_that_one_side_lacks_are_an_error_with_both_lists() -> None:
    teacher, student = Net(KINDS["dict"][0]), Net(lambda p, a: {"paper": p, "venue": a})
    text = r"Loss 'output'.*same parts \(got 'paper', 'venue' and 'paper', 'author'\)"
    with pytest.raises(ValueError, match=rf"{text}: choose one with select=.*weights="):
        Distiller(teacher, student, [OutputLoss()])(*ARGS)
    both = r"have, which are 'paper', 'venue' and 'paper', 'author'"
    for part in ("author", "editor"):
        with pytest.raises(ValueError, match=rf"'weights' must name.*{both} \(got \['{part}'\]\)"):
            Distiller(teacher, student, [OutputLoss(weights={part: 1.0})])(*ARGS)
    Distiller(teacher, student, [OutputLoss(weights={"paper": 1.0})])(*ARGS)
    with pytest.raises(ValueError, match=r"'select' must be one of.*'paper', 'venue' \(got 'x'\)"):
        Distiller(teacher, student, [OutputLoss(select="x")])(*ARGS)
    plain = Net(lambda p, a: p)
    match = r"'select' must choose among parts.*'paper' for an output of Tensor.*teacher_select="
    with pytest.raises(ValueError, match=match):
        Distiller(plain, student, [OutputLoss(select="paper")])(*ARGS)
    loss = OutputLoss(select="paper", teacher_select=lambda out: out)
    Distiller(plain, student, [loss])(*ARGS)


def test_projections_need_to_know_the_parts() -> None:
    teacher, student = Net(KINDS["dict"][0]), Net(KINDS["dict"][0], 3)
    match = r"copy of them for each part.*'paper', 'author'.*weights={'paper': 1.0, 'author': 1.0}"
    with pytest.raises(ValueError, match=match):
        Distiller(teacher, student, [HintLoss("", "")])(*ARGS)
    Distiller(teacher, student, [HintLoss("", "", select="paper")])(*ARGS)


def test_nodes_and_labels_by_part() -> None:
    seen = []

    class Seen(DistillationLoss):
        def forward(self, student: Capture, teacher: Capture, target: Any = None) -> Tensor:
            seen.append((student.part, student.rows.size(0), teacher.rows.size(0), target))
            return student.rows.sum()

    distiller = Distiller(Net(KINDS["dict"][0]), Net(KINDS["dict"][0]), [Seen()])
    nodes = {"paper": [1, 2], "author": torch.tensor([True, False, False, False, True])}
    distiller(*ARGS, nodes=nodes, target={"paper": 1, "author": 2})
    assert seen == [("paper", 2, 2, 1), ("author", 2, 2, 2)]
    with pytest.raises(ValueError, match=r"'nodes' must be a dictionary by part.*'paper', 'auth"):
        distiller(*ARGS, nodes=torch.tensor([0]))
    with pytest.raises(ValueError, match=r"must name each part.*\['paper'\] without \['author'\]"):
        distiller(*ARGS, nodes={"paper": [0]})
    seen.clear()
    chosen = Seen(select="paper")
    Distiller(distiller.teacher, distiller.student, [chosen])(*ARGS, nodes=[3])
    assert seen == [("paper", 1, 1, None)]


def test_unlike_parts_without_names_are_told() -> None:
    net = nn.Linear(6, 4), nn.Linear(6, 4)
    calls = (lambda model, x: (model(x), x),) * 2
    distiller = Distiller(*net, [SoftTargetLoss()], call=calls)
    text = r"All parts of the student output.*\(0: \[7, 4\], 1: \[7, 6\]\).*select=0.*weights="
    with pytest.warns(UserWarning, match=text):
        distiller(ARGS[0])
    for options in ({"select": 0}, {"weights": {0: 1.0}}):
        Distiller(*net, [SoftTargetLoss(**options)], call=calls)(ARGS[0])


def test_layers_that_say_more_by_the_way() -> None:
    x, edges = torch.randn(7, 6), torch.randint(7, (2, 12))

    class Attends(nn.Module):
        def __init__(self, heads: int) -> None:
            super().__init__()
            self.conv, self.rnn = GATConv(6, 4, heads, concat=False), nn.GRU(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.conv(x, edges, return_attention_weights=True)
            return self.rnn(out)[0]

    losses = [HintLoss(name, name, name=name, projection=False) for name in ("conv", "rnn")]
    teacher, student = Attends(4), Attends(1)
    _, losses = Distiller(teacher, student, losses)(x)
    gap = student.conv(x, edges) - teacher.conv(x, edges)
    torch.testing.assert_close(losses["conv"], gap.square().mean())
    torch.testing.assert_close(losses["rnn"], (student(x) - teacher(x)).square().mean())


def test_confidence_needs_one_output() -> None:
    wrap = KINDS["dict"][0]
    teachers = Teachers([Net(wrap), Net(wrap)], weights="confidence")
    with pytest.raises(ValueError, match=r"needs teachers of one output \(got the parts \['paper'"):
        Distiller(teachers, Net(wrap), [OutputLoss()])(*ARGS)


@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        (["paper"], TypeError, r"'weights' must map parts of an output to numbers"),
        ({"paper": "1"}, TypeError, r"'weights' must be a number"),
        ({"paper": -1.0}, ValueError, r"'weights' must be.*at least 0"),
        ({"paper": 0.0}, ValueError, r"'weights' must not all be 0"),
        ({}, ValueError, r"'weights' must not all be 0"),
    ],
)
def test_bad_weights(weights: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        OutputLoss(weights=weights)
