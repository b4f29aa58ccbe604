from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from pyg_stkd import Distiller
from pyg_stkd.distill import DistillationLoss, HintLoss, OutputLoss
from pyg_stkd.distill.recording.reading.arguments import Carried, own

EDGES = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
Pair = namedtuple("Pair", "x more")


@dataclass
class Inputs:
    x: torch.Tensor
    more: list = field(default_factory=list)


def data() -> Data:
    return Data(x=torch.randn(4, 3), edge_index=EDGES)


def hetero() -> HeteroData:
    out = HeteroData()
    out["a"].x = torch.randn(4, 3)
    out["a", "to", "a"].edge_index = EDGES
    return out


# What a model is given, and how it rewrites it: the next model must not see it.
def set_data(given: Any) -> torch.Tensor:
    given.x = given.x + 1
    return given.x


def set_hetero(given: Any) -> torch.Tensor:
    given["a"].x = given["a"].x + 1
    return given["a"].x


def set_key(given: Any) -> torch.Tensor:
    given["x"] = given["x"] + 1
    return given["x"]


def set_first(given: Any) -> torch.Tensor:
    given[0] = given[0] + 1
    return given[0]


def set_inner(given: Any) -> torch.Tensor:
    given[0]["x"] = given[0]["x"] + 1
    return given[0]["x"]


def set_deep(given: Any) -> torch.Tensor:
    parts = given["in"] if isinstance(given, dict) else given.more
    parts[0]["x"] = parts[0]["x"] + 1
    return parts[0]["x"]


class Own(OrderedDict):
    pass


class Listed(list):
    pass


def deep() -> Any:
    return Listed([defaultdict(list, x=torch.randn(4, 3))])


KINDS = {
    "data": (data, set_data),
    "batch": (lambda: Batch.from_data_list([data(), data()]), set_data),
    "hetero": (hetero, set_hetero),
    "dict": (lambda: {"x": torch.randn(4, 3)}, set_key),
    "list": (lambda: [torch.randn(4, 3)], set_first),
    "nested": (lambda: ({"x": torch.randn(4, 3)}, None), set_inner),
    "named": (lambda: Pair({"x": torch.randn(4, 3)}, 0), set_inner),
    "dataclass": (lambda: Inputs(torch.randn(4, 3)), set_data),
    "dictionary of a class of its own": (lambda: Own({"in": deep()}), set_deep),
    "in a dataclass": (lambda: Inputs(torch.ones(1), deep()), set_deep),
    "in data": (lambda: Data(more=deep()), set_deep),
}


class Rewrites(nn.Module):
    def __init__(self, rewrite: Any) -> None:
        super().__init__()
        self.lin, self.rewrite = nn.Linear(3, 2), rewrite

    def forward(self, given: Any) -> torch.Tensor:
        return self.lin(self.rewrite(given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_name", [False, True])
def test_each_model_has_arguments_of_its_own(kind: str, by_name: bool) -> None:
    make, rewrite = KINDS[kind]
    given, model = make(), Rewrites(rewrite)
    teacher = copy.deepcopy(model)
    expected = model(copy.deepcopy(given))
    distiller = Distiller(teacher, model, [OutputLoss()])
    for _ in range(2):  # the given arguments stay as they are, too
        args, kwargs = ((), {"given": given}) if by_name else ((given,), {})
        out, losses = distiller(*args, **kwargs)
        assert torch.equal(out, expected)
        assert losses["output"] == 0


def test_tensors_are_not_copied() -> None:
    given = data()
    assert own((given, given.x))[0].x is given.x is own((given.x,))[0]
    assert own({"a": [given.x]})["a"][0] is given.x


@pytest.mark.parametrize("own_args", [False, True])
def test_teachers_that_write_to_tensors_are_refused(own_args: bool) -> None:
    class Writes(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.add_(1))

    distiller, x = Distiller(Writes(2, 2), nn.Linear(2, 2), [OutputLoss()]), torch.zeros(3, 2)
    if own_args:
        distiller(x, teacher_args=(x.clone(),))
        assert not x.any()
        return
    match = r"'teacher' must not write to the tensors.*\(got 1 rewritten\).*teacher_args"
    with pytest.raises(ValueError, match=match):
        distiller(x)


class Held:
    """An object of a class of one's own, which nobody copies."""

    def __init__(self) -> None:
        self.x, self.seen = torch.zeros(3, 2), 0


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_teachers_that_write_to_objects_are_refused(in_place: bool, deep: bool) -> None:
    class Writes(nn.Linear):
        def forward(self, given: Any) -> torch.Tensor:
            held = given["in"] if deep else given
            held.x = held.x.add_(1) if in_place else held.x + 1
            return super().forward(held.x)

    distiller = Distiller(Writes(2, 2), Writes(2, 2), [OutputLoss()])
    given = {"in": Held()} if deep else Held()
    with pytest.raises(ValueError, match=r"'teacher' must not write to the .*\(got 1 rewritten\)"):
        distiller(given)
    distiller(given, teacher_args=({"in": Held()} if deep else Held(),))


def test_objects_may_count_and_keep_what_they_computed() -> None:
    class Reads(nn.Linear):
        def forward(self, held: Any) -> torch.Tensor:
            held.seen += 1
            held.twice = held.x * 2
            return super().forward(held.twice)

    held = Held()
    Distiller(Reads(2, 2), Reads(2, 2), [OutputLoss()])(held)
    assert held.seen == 2


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.lin = nn.GRUCell(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> Any:
        h = self.cell(x, h)
        return self.lin(h), h


@pytest.mark.parametrize("carry", [lambda h: h, lambda h: h.detach(), lambda h: h[:]])
def test_states_of_the_student_are_noticed_at_the_teacher(carry: Any) -> None:
    distiller = Distiller(Cell(), Cell(), [OutputLoss(select=0)])
    (_, h), _ = distiller(torch.randn(5, 4))
    with pytest.warns(UserWarning, match=r"its hidden state.*teacher_args=.*distiller.unroll"):
        distiller(torch.randn(5, 4), carry(h))
    (_, h), _, (_, theirs) = distiller(torch.randn(5, 4), return_teacher=True)
    distiller(torch.randn(5, 4), carry(h), teacher_args=(torch.randn(5, 4), theirs))


def test_what_was_given_may_be_given_again() -> None:
    class Passes(Cell):
        def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> Any:
            return super().forward(x)[0], x

    x = torch.randn(5, 4)
    distiller = Distiller(Passes(), Passes(), [OutputLoss(select=0)])
    for _ in range(3):
        (_, same), _ = distiller(x)
        assert same is x


def test_nothing_is_kept_alive() -> None:
    carried, state = Carried(), torch.ones(3)
    carried.remember(state, ())
    assert carried.returns(state[1:])
    del state  # its memory may well be taken by one of these
    fresh = [torch.ones(3) for _ in range(50)]
    assert not any(carried.returns(x) for x in fresh)
    assert not pickle.loads(pickle.dumps(carried)).returns(fresh)


def test_custom_losses_see_the_given_arguments() -> None:
    given = data()

    class Seen(DistillationLoss):
        def forward(self, student: Any, teacher: Any, target: Any = None) -> torch.Tensor:
            assert student.context["given"].x is teacher.context["given"].x is given.x
            return student.value.sum()

    Distiller(Rewrites(set_data), Rewrites(set_data), [Seen()])(given)


class Sampled(nn.Module):
    """Takes half of the rows at random, after dropout or before it."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.lin, self.drop, self.first = nn.Linear(3, 3), nn.Dropout(0.5), first

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.drop(x)
        x = x[torch.randperm(x.size(0))[: x.size(0) // 2]]
        return self.lin(x if self.first else self.drop(x))


@pytest.mark.parametrize("first", [True, False])
def test_the_student_is_bit_for_bit_what_it_is_alone(first: bool) -> None:
    student, teacher = Sampled(first), nn.Sequential(nn.Linear(3, 3), nn.Dropout())
    distiller = Distiller(teacher, student, [OutputLoss()], call=(lambda m, x: m(x)[:4], None))
    x = torch.randn(8, 3)
    for seed in range(3):
        torch.manual_seed(seed)
        expected = student(x)
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(distiller(x)[0], expected)
        assert torch.equal(torch.get_rng_state(), after)


class Chosen(nn.Module):
    """Takes some of a graph's nodes at random, behind dropout or before it."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.lin, self.drop, self.first = nn.Linear(3, 3), nn.Dropout(0.5), first

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.drop(x) if self.first else x
        out = self.lin(x[torch.randperm(x.size(0))[:5]])
        return (out if self.first else self.drop(out)).mean(dim=0, keepdim=True)


def test_a_sample_is_compared_where_both_models_took_the_same_and_else_refused() -> None:
    """A student's dropout draws numbers, which that of a teacher, in eval mode, does not."""
    x, edge_index = torch.randn(8, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])

    def distiller(first: bool) -> Distiller:
        return Distiller(Chosen(first), Chosen(first), [HintLoss("lin", "lin", projection=False)])

    after = distiller(first=False)
    torch.manual_seed(1)
    (value,) = after(x, edge_index)[1].values()
    torch.manual_seed(1)
    rows = x[torch.randperm(8)[:5]]
    expected = (after.student.lin(rows) - after.teacher.lin(rows)).square().mean()
    torch.testing.assert_close(value, expected)
    before = distiller(first=True)
    with pytest.raises(ValueError, match="a sampling of its own, row i is another node"):
        before(x, edge_index)
    assert before.eval()(x, edge_index)[1]["hint"] > 0  # no dropout: the same sample again
