"""Each assertion holds for what is right, and fails for each thing that it says it compares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCN, GCNConv, global_mean_pool

from pyg_stkd.nn import GATConv
from pyg_stkd.nn import GCNConv as GCNConvOnSteps
from pyg_stkd.nn.conv.edge_conv import DynamicEdgeConv
from pyg_stkd.prune import Pruner, Random
from pyg_stkd.testing import (
    assert_exports,
    assert_masked_equals_compacted,
    assert_permutation_equivariant,
    assert_round_trips,
)

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 2]])


def nodes(width: int = 3) -> Tensor:
    return torch.randn(5, width, generator=torch.Generator().manual_seed(0))


def pruned(granularity: Any = "channel") -> Pruner:
    torch.manual_seed(0)
    model = GCN(3, 8, 3, 2, norm="batch_norm")
    pruner = Pruner(model, Random(0), granularity, keep=0.5)
    pruner.step()
    return pruner


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_masked_equals_compacted(granularity: str) -> None:
    pruner = pruned(granularity)
    before = copy.deepcopy(pruner.model.state_dict())
    small = assert_masked_equals_compacted(pruner, nodes(), EDGES, training=True)
    assert type(small) is GCN
    after = pruner.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_masked_equals_compacted_takes_names_and_another_call() -> None:
    assert_masked_equals_compacted(pruned(), nodes(), edge_index=EDGES)
    assert_masked_equals_compacted(pruned(), run=lambda model: [model(nodes(), EDGES), "y"])


def change(small: nn.Module, key: str) -> None:
    with torch.no_grad():
        small.state_dict()[key].flatten()[0] += 0.01


class Other(GCN):
    """A class of another name."""


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "weight": (lambda small: change(small, "convs.1.lin.weight"), "compacted model, in eval mode"),
    "bias": (lambda small: change(small, "convs.2.bias"), "compacted model, in eval mode"),
    "eps": (lambda small: setattr(small.norms[0].module, "eps", 0.1), "in eval mode"),
    "momentum": (
        lambda small: setattr(small.norms[0].module, "momentum", 0.9), "in eval mode differs",
    ),
    "class": (lambda small: setattr(small, "__class__", Other), "compacted to Other"),
    "buffer": (lambda small: small.register_buffer("mask", torch.ones(1)), "other entries"),
    "parameters": (lambda small: setattr(small.convs[2], "bias", None), "other entries"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_masked_equals_compacted_sees(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner, (spoil, text) = pruned(), FAULTS[fault]
    small = pruner.compact()
    spoil(small)
    monkeypatch.setattr(pruner, "compact", lambda: small)
    with pytest.raises(AssertionError, match=text):
        assert_masked_equals_compacted(pruner, nodes(), EDGES, training=True)


def test_masked_equals_compacted_sees_a_wrong_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pruner, "num_parameters", 7)
    with pytest.raises(AssertionError, match=r"\d+ parameters, not 7"):
        assert_masked_equals_compacted(pruned(), nodes(), EDGES)


def test_masked_equals_compacted_sees_other_gradients() -> None:
    class Wrapped(GCN):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:  # type: ignore[override]
            masked = any(key.endswith("_mask") for key in self.state_dict())
            return super().forward(x if masked else x.detach() + 0 * x, edge_index)

    pruner = pruned()
    pruner.model.__class__ = Wrapped
    with pytest.raises(AssertionError, match="the gradients of the inputs, in eval mode differs"):
        assert_masked_equals_compacted(pruner, nodes(), EDGES)


class Forgetful(nn.Module):
    """Keeps something that neither its state nor its copies carry."""

    def __init__(self, lost: str) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 2)
        self.lost = lost
        self.factor = torch.tensor(2.0)
        if lost == "nothing":
            del self.factor
            self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) * self.factor

    def __deepcopy__(self, memo: dict[int, Any]) -> Forgetful:
        new = Forgetful(self.lost)
        new.load_state_dict(self.state_dict())
        new.factor = self.factor * (3 if self.lost == "copy" else 1)
        return new

    def __reduce__(self) -> Any:
        build = _unpickled if self.lost == "pickle" else _copied
        return build, (self.lost, self.state_dict())


def _copied(lost: str, state: dict[str, Tensor]) -> Forgetful:
    new = Forgetful(lost)
    new.load_state_dict(state)
    return new


def _unpickled(lost: str, state: dict[str, Tensor]) -> Forgetful:
    new = _copied(lost, state)
    new.factor = new.factor * 3
    return new


def test_round_trips() -> None:
    for model in (pruned().model, pruned().compact()):
        assert_round_trips(model.train(), nodes(), EDGES)
        assert model.training
    assert_round_trips(Forgetful("nothing"), nodes())
    for lost in ("copy", "pickle"):
        with pytest.raises(AssertionError, match=f"the {lost} differs"):
            assert_round_trips(Forgetful(lost), nodes())


class Stateless(nn.Linear):
    """Leaves its bias out of its state."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return {"weight": self.weight.detach(), "bias": torch.zeros(2)}


def test_round_trips_sees_what_the_state_lacks() -> None:
    with pytest.raises(AssertionError, match="the state differs"):
        assert_round_trips(Stateless(3, 2), nodes())


def test_permutation_equivariant() -> None:
    weight = torch.rand(7, generator=torch.Generator().manual_seed(0))
    assert_permutation_equivariant(GATConv(3, 4), nodes(), EDGES)
    assert_permutation_equivariant(GATConv(3, 4, edge_dim=2), nodes(), EDGES, edge_attr=None)
    assert_permutation_equivariant(GCNConv(3, 4), nodes(), EDGES, weight)
    steps = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    assert_permutation_equivariant(GCNConvOnSteps(3, 4), steps, EDGES, weight)
    torch.manual_seed(0)
    assert_permutation_equivariant(DynamicEdgeConv(nn.Linear(6, 4), k=2), nodes())

    def pooled(x: Tensor, edge_index: Tensor) -> Tensor:
        return global_mean_pool(x + edge_index.sum() * 0, None)

    assert_permutation_equivariant(pooled, nodes(), EDGES, invariant=True)
    assert_permutation_equivariant(lambda x: x.sum(-1), torch.randn(2, 5, 3), node_dim=1)


def test_permutation_equivariant_sees() -> None:
    place = torch.arange(5.0)[:, None]
    weight = torch.arange(7.0)
    faults: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (lambda x: x + place, (), {}),
        (lambda x: x.mean(0), (), {"invariant": False, "node_dim": 0}),
        (lambda x: x[0], (), {"invariant": True}),
        (lambda x, edge_index: x + edge_index[0, 0], (EDGES,), {}),
        (lambda x, edge_index, w: x * w[0], (EDGES, weight), {}),
        (lambda x: {"x": x, "first": (x * place)}, (), {}),
    ]
    for layer, given, options in faults:
        with pytest.raises((AssertionError, IndexError)):
            assert_permutation_equivariant(layer, nodes(), *given, **options)


class Fixed(nn.Module):
    """Takes the number of nodes of the example for every number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.shape[0] if not torch.compiler.is_compiling() else x * 5


class Sorted(nn.Module):
    """Gives integers beside numbers."""

    def forward(self, x: Tensor) -> Any:
        value, order = x.sort(0)
        return {"value": value, "order": order}


def test_exports() -> None:
    for model in (nn.Linear(3, 2), Sorted()):
        shapes = ({0: torch.export.Dim("N")},)
        program = assert_exports(model, (nodes(),), (torch.randn(7, 3),), dynamic_shapes=shapes)
        assert isinstance(program, torch.export.ExportedProgram)


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="needs torch 2.7")
def test_exports_sees_what_differs() -> None:
    shapes = ({0: torch.export.Dim("N")},)
    assert_exports(Fixed(), (nodes(),), dynamic_shapes=shapes)
    with pytest.raises(AssertionError, match=r"for inputs of shapes \[\[7, 3\]\] differs"):
        assert_exports(Fixed(), (nodes(),), (torch.randn(7, 3),), dynamic_shapes=shapes)


def test_exports_sees_operators_of_others() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.pyg_stkd.knn_graph(x, 2, None, False) * 1.0

    with pytest.raises(AssertionError, match=r"that only this process has: \['pyg_stkd.knn_graph"):
        assert_exports(Own(), (nodes(),))


def test_outputs_of_other_kinds_are_no_rounding() -> None:
    x = nodes()
    pairs: list[tuple[Any, Any, str]] = [
        (x, x[:, :1], "has shape"),
        (x, x.double(), "is of torch.float64"),
        (x, [x], "another structure"),
        ((x, 1), (x, 2), "gives 2, not 1"),
        (x.long(), x.long() + 1, "differs"),
    ]
    for *outputs, text in pairs:
        calls = iter(outputs)
        with pytest.raises(AssertionError, match=text):
            assert_permutation_equivariant(lambda x: next(calls), x, invariant=True)  # noqa: B023


def test_outputs_are_compared_relative_to_the_largest_entry() -> None:
    def compare(found: Tensor, expected: Tensor) -> None:
        calls = iter((expected, found))
        assert_permutation_equivariant(lambda x: next(calls), nodes(), invariant=True)

    small, large = torch.tensor([0.0, 0.5]), torch.tensor([0.0, 1e6])
    compare(small + 0.9e-5, small)  # in single precision 1e-5 of the largest, or of 1
    compare(large + 9, large)
    compare(torch.empty(0), torch.empty(0))
    compare(torch.tensor([torch.nan, torch.inf, 1.0]), torch.tensor([torch.nan, torch.inf, 1.0]))
    for found, expected in (
        (small + 1.5e-5, small),
        (large + 15, large),
        (torch.tensor([torch.nan, 1.5e-5]), torch.tensor([torch.nan, 0.0])),
        (torch.tensor([0.0]), torch.tensor([torch.nan])),
    ):
        with pytest.raises(AssertionError, match="differs"):
            compare(found, expected)
