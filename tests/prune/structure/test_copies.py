"""Tests of pyg_stkd/prune/structure/copies.py: copies are those of copy.deepcopy, in less time."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch_geometric.nn import GAT, GCN, BatchNorm, GCNConv, to_hetero

from pyg_stkd.prune.structure.copies import copied, with_its_parameters

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])


class Twice(nn.Module):
    """Holds one layer under two names, and in each of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.same = self.layer
        self.blocks = nn.ModuleList(nn.Sequential(nn.Tanh(), self.layer) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.same(x)


class Child(nn.Linear):
    """Knows the model that it is in, though not as one of its modules."""

    parents: list[nn.Module]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.parents[0].factor


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor, self.child = 2.0, Child(3, 3)
        self.child.parents = [self]
        self.table = {"child": self.child, "sizes": [3, 3]}
        self.cache: Any = OrderedDict()
        self.also = self.cache  # two names of one thing

    def forward(self, x: Tensor) -> Tensor:
        return self.table["child"](x)


class OwnWay(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo: Any) -> Any:
        other = OwnWay(self.in_features, self.out_features)
        other.load_state_dict(self.state_dict())
        other.was_copied = True
        return other


def weight_norm() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(3, 3))


def hetero() -> nn.Module:
    kinds = (["a"], [("a", "to", "a")])
    return to_hetero(GCN(3, 4, 2, 2), kinds)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "shared": (Twice, (X,)),
    "knows its parent": (Parent, (X,)),
    "own way": (lambda: nn.Sequential(OwnWay(3, 3), nn.ReLU()), (X,)),
    "parametrized": (lambda: nn.Sequential(weight_norm()), (X,)),
    "recurrent": (lambda: nn.Sequential(nn.GRU(3, 4, 2)), (X,)),
    "layers of PyG": (lambda: GAT(3, 4, 2, 2, norm="batch_norm"), (X, EDGES)),
    "hetero": (hetero, ({"a": X}, {("a", "to", "a"): EDGES})),
    "traced": (lambda: torch.jit.trace(nn.Linear(3, 3), X), (X,)),
}


def outputs(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_copies_are_those_of_deepcopy(name: str) -> None:
    build, inputs = MODELS[name]
    model = build().eval()
    memo: dict[int, Any] = {}
    other, expected = copied(model, memo), copy.deepcopy(model)
    assert type(other).__qualname__ == type(expected).__qualname__
    assert [n for n, _ in other.named_modules()] == [n for n, _ in expected.named_modules()]
    modules = zip(model.modules(), other.modules(), expected.modules(), strict=True)
    for whole, mine, theirs in modules:
        assert mine is not whole
        assert type(mine).__qualname__ == type(theirs).__qualname__
        if name != "traced":
            assert set(vars(mine)) == set(vars(theirs))
    assert not {id(p) for p in model.parameters()} & {id(p) for p in other.parameters()}
    for key, value in expected.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
    torch.testing.assert_close(outputs(other(*inputs)), outputs(model(*inputs)))
    other.train()
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.testing.assert_close(outputs(model(*inputs)), outputs(expected(*inputs)))


def test_what_is_one_thing_stays_one() -> None:
    twice: Any = copied(Twice(), {})
    assert twice.layer is twice.same is twice.blocks[0][1] is twice.blocks[1][1]
    parent: Any = copied(Parent(), {})
    assert parent.child.parents == [parent]
    assert parent.table["child"] is parent.child
    assert parent.cache is parent.also
    own: Any = copied(nn.Sequential(OwnWay(3, 3)), {})
    assert own[0].was_copied


def test_what_stands_in_is_taken() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    bias, tanh = nn.Parameter(torch.zeros(2)), nn.ReLU()
    other = copied(model, {id(model[0].bias): bias, id(model[1]): tanh})
    assert other[0].bias is bias
    assert other[1] is tanh


def test_copies_share_parameters_and_nothing_that_a_run_changes() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = GCNConv(3, 3), BatchNorm(3)
            self.seen, self.cache = [0], OrderedDict[str, Any]()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            self.seen[0] += 1
            self.cache["x"] = x
            return self.conv(self.norm(x), edge_index)

    model = Counts()
    other = with_its_parameters(model)
    other.register_forward_hook(lambda *_: None)
    other(X, EDGES)
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert other.conv.inspector is not model.conv.inspector
    other.conv.inspector.remove_signature("message")  # as where messages are explained
    assert model.conv.inspector.implements("message")
    assert model.conv.inspector.get_signature("message").param_dict
    assert model.norm.module.num_batches_tracked == 0
    assert (model.seen, model.cache, len(model._forward_hooks)) == ([0], {}, 0)
    stands_in = nn.Parameter(torch.zeros(3))
    third = with_its_parameters(model, {model.conv.bias: stands_in})
    assert third.conv.bias is stands_in
    assert third.conv.lin.weight is model.conv.lin.weight
