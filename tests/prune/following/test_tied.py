"""Tensors of several names, as of an embedding and an output layer: pruned as one, still one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from pyg_stkd.prune import KDIS, Magnitude, Pruner, load_compact, save_compact

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0], [1, 2, 3, 4, 5, 6, 7, 0, 4]])


class Language(nn.Module):
    """What is read and what is said are of one table."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.conv = nn.Embedding(10, 16), GCNConv(16, 16)
        self.decoder = nn.Linear(16, 10)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.embedding(x)
        return self.decoder(x + self.conv(x, edge_index).relu())


class Raw(Language):
    """Takes the weight from either layer, and calls one of them alone."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.embedding(x)
        x = x + self.conv(x, edge_index).relu()
        return F.linear(x, self.decoder.weight, self.decoder.bias)


class Scores(Language):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = F.embedding(x, self.decoder.weight)
        return self.conv(h, edge_index).tanh() @ self.embedding.weight.t()


class Again(nn.Module):
    """Two square layers of one weight, and of biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(5, 12), nn.Linear(12, 3)
        self.a, self.b = nn.Linear(12, 12), nn.Linear(12, 12)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(self.first(x).relu()).relu()).relu())


class Alias(nn.Module):
    """A weight of a layer, which the model calls its own too."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.out = nn.Linear(5, 12), nn.Linear(12, 5)
        self.basis = self.lin.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lin(x).sigmoid()) + (x @ self.basis.t()) @ self.basis


class Shifted(nn.Module):
    """Two layers of one bias, and the running mean of one norm in another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 12), nn.Linear(5, 12), nn.Linear(12, 3)
        self.b.bias = self.a.bias
        self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in range(2))
        self.norms[1].running_mean = self.norms[0].running_mean

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norms[0](self.a(x)).relu() + self.norms[1](self.b(x)).tanh())


GRAPH, ROWS = (TOKENS, EDGES), (torch.randn(7, 5, generator=torch.Generator().manual_seed(0)),)
NETS: dict[str, tuple[Callable[[], nn.Module], Any, tuple[str, str]]] = {
    "language": (Language, GRAPH, ("embedding.weight", "decoder.weight")),
    "raw": (Raw, GRAPH, ("embedding.weight", "decoder.weight")),
    "scores": (Scores, GRAPH, ("embedding.weight", "decoder.weight")),
    "again": (Again, ROWS, ("a.weight", "b.weight")),
    "alias": (Alias, ROWS, ("basis", "lin.weight")),
    "shifted": (Shifted, ROWS, ("a.bias", "b.bias")),
}


def tensor_of(model: nn.Module, name: str) -> Tensor:
    prefix, _, key = name.rpartition(".")
    return model.get_submodule(prefix)._parameters[key]  # type: ignore[return-value]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_one_tensor_loses_the_same_by_all_names(name: str, train: bool) -> None:
    torch.manual_seed(0)
    build, example, (one, other) = NETS[name]
    model = build().double()
    example = tuple(t.double() if t.is_floating_point() else t for t in example)
    total = sum(p.numel() for p in model.parameters())
    pruner = Pruner(model, Magnitude(), keep=(0.6, 0.4), example=example, min_width=1, rho=0.1)
    for _ in range(2):
        report = pruner.step()
        small = pruner.compact()
        assert tensor_of(small, one) is tensor_of(small, other)
        assert sum(p.numel() for p in small.parameters()) == report.num_parameters < total
        masked = copy.deepcopy(pruner.model).train(train)
        torch.testing.assert_close(masked(*example), small.train(train)(*example))
    assert pruner.share == report.num_parameters / total


@pytest.mark.parametrize("name", ["language", "again"])
def test_what_is_shrunk_trains_on_as_one(name: str) -> None:
    torch.manual_seed(0)
    build, example, (one, other) = NETS[name]
    pruner = Pruner(build(), Magnitude(), keep=(0.7, 0.5), example=example, min_width=1, rho=0.1)
    pruner.step()
    pruner.shrink()
    optimizer = torch.optim.SGD(pruner.model.parameters(), lr=0.1)
    pruner.model(*example).square().mean().backward()
    optimizer.step()
    assert tensor_of(pruner.model, one) is tensor_of(pruner.model, other)
    pruner.step()
    small = pruner.compact()
    assert tensor_of(small, one) is tensor_of(small, other)
    torch.testing.assert_close(pruner.model.eval()(*example), small.eval()(*example))


def test_a_tensor_is_scored_once() -> None:
    torch.manual_seed(0)
    pruner = Pruner(Again(), KDIS(), keep=0.5, example=ROWS)
    weights = pruner._masked.weights()
    assert len({id(weight) for weight in weights.values()}) == len(weights) == 7
    pruner.step([pruner.model(*ROWS).square().mean()])
    assert "b.weight" in pruner.groups[0].members


def test_a_compact_file_has_it_once(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    torch.manual_seed(0)
    pruner = Pruner(Language(), Magnitude(), keep=0.5, example=GRAPH, min_width=1, rho=0.1)
    pruner.step()
    small = pruner.compact().eval()
    save_compact(small, tmp_path / "small.safetensors", example=GRAPH)
    again: Any = load_compact(tmp_path / "small.safetensors", Language).eval()
    assert again.decoder.weight is again.embedding.weight
    assert again.decoder.in_features == again.embedding.embedding_dim < 16
    assert torch.equal(again(*GRAPH), small(*GRAPH))


def test_masks_of_both_names_are_saved_and_loaded() -> None:
    torch.manual_seed(0)
    first = Pruner(Language(), Magnitude(), keep=0.5, example=GRAPH, min_width=1, rho=0.1)
    first.step()
    second = Pruner(Language(), Magnitude(), keep=0.5, example=GRAPH, min_width=1, rho=0.1)
    second.load_state_dict(first.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    assert torch.equal(first.model.eval()(*GRAPH), second.model.eval()(*GRAPH))
    assert torch.equal(first.compact()(*GRAPH), second.compact()(*GRAPH))


def test_what_a_layer_that_is_not_called_shares_is_kept_and_said() -> None:
    class Unused(Language):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(self.embedding(x), edge_index)

        def decode(self, x: Tensor) -> Tensor:
            return self.decoder(x)

    class Half(Unused):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(16, 8)
            self.conv = GCNConv(8, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(self.hidden(self.embedding(x)).relu(), edge_index)

    with pytest.raises(ValueError, match=r"embedding: their weights are decoder.weight too"):
        Pruner(Unused(), Magnitude(), keep=0.5, example=GRAPH)
    with pytest.warns(UserWarning, match="embedding .their weights are decoder.weight too"):
        pruner = Pruner(Half(), Magnitude(), keep=0.5, example=GRAPH)
    assert set(pruner.widths) == {"hidden"}
    (row,) = [row for row in pruner.explain() if row.name == "embedding"]
    assert row.freed_by == "parameters of its own"
    with pytest.warns(UserWarning, match="The floors"):
        pruner.step()
    small: Any = pruner.compact()
    assert small.decoder.weight is small.embedding.weight
    assert small.decoder(small.embedding(TOKENS)).shape == (8, 10)


def test_one_of_its_names_in_ignored_modules_keeps_it() -> None:
    model = Language()
    with pytest.raises(ValueError, match="must have channels that can be pruned"):
        Pruner(model, Magnitude(), keep=0.5, example=GRAPH, ignore=["decoder"])
