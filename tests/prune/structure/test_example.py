"""Inputs on which a model is run, the copies that are run, and what is looked through."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCNConv

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.example import (
    Example,
    evaluating,
    random_state,
    unwrap,
)

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(3, 12), GCNConv(12, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


class Echo(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


class Named(nn.Module):
    def forward(self, x: Any, y: Any = None) -> Any:
        return x, y


def test_tuples_are_arguments_mappings_names_and_all_else_one_argument() -> None:
    args, kwargs = Example((X, EDGES)).run(Echo())
    assert torch.equal(args[0], X)
    assert torch.equal(args[1], EDGES)
    assert kwargs == {}
    assert set(Example({"x": X}).run(Echo())[1]) == {"x"}
    assert Example({"x": X, "y": 2}).run(Named())[1] == 2
    whole, none = Example({"paper": X}).run(Named())  # features by type of node
    assert set(whole) == {"paper"}
    assert none is None
    assert isinstance(Example(Pair(X, X)).run(Named())[0], Pair)
    for data in (Data(x=X), HeteroData(paper={"x": X})):
        assert type(Example(data).run(Named())[0]) is type(data)


def test_a_model_may_write_to_its_inputs() -> None:
    class Writes(nn.Module):
        def forward(self, data: Data, others: list[Tensor]) -> Tensor:
            data.x += 1.0
            data.new = others.pop()
            return data.x

    data, others = Data(x=X.clone()), [X.clone()]
    example = Example((data, others))
    assert torch.equal(example.run(Writes()), example.run(Writes()))
    assert torch.equal(data.x, X)
    assert "new" not in data
    assert len(others) == 1


def test_types_change_of_floating_point_numbers_alone() -> None:
    args, _ = Example((X, EDGES, Data(x=X))).to(torch.float64).run(Echo())
    assert args[0].dtype == args[2].x.dtype == torch.float64
    assert args[1].dtype == torch.int64


def test_call_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="'call' must be a function of the model and the example"):
        Example((X,), call="encode")  # type: ignore[arg-type]
    assert Example((X,), lambda model, x: model).run(model := Echo()) is model


def test_random_states_are_put_back() -> None:
    def draw() -> tuple[Any, ...]:
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    for block in (random_state, evaluating):
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
        with block():
            draw()
            assert torch.is_grad_enabled() is (block is random_state)
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1] == random.getstate()
        assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Any] = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "distributed": nn.parallel.DistributedDataParallel,
    "compiled, distributed": lambda m: torch.compile(nn.parallel.DistributedDataParallel(m)),
    "distributed, compiled": lambda m: nn.parallel.DistributedDataParallel(torch.compile(m)),
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_models_are_pruned_where_they_are(name: str) -> None:
    model = Net()
    wrapped = WRAPPERS[name](model)
    assert unwrap(wrapped) is model
    pruner = Pruner(wrapped, Random(0), keep=0.6, example=(X, EDGES))
    pruner.step()
    assert pruner.model is model
    small = pruner.compact()
    assert type(small) is Net
    assert small.conv1.out_channels == pruner.widths["conv1"] < 12
    torch.testing.assert_close(small(X, EDGES), model(X, EDGES))


def test_a_model_with_a_part_called_module_is_no_wrapper() -> None:
    model = Net()
    model.module = nn.Linear(1, 1)
    assert unwrap(model) is model


def test_the_average_of_models_is_looked_through() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(Net())
    pruner = Pruner(averaged, Random(0), keep=0.6, example=(X, EDGES))
    pruner.step()
    assert pruner.model is averaged.module
    assert pruner.compact().conv1.out_channels == pruner.widths["conv1"] < 12


def test_what_fabric_sets_up_is_looked_through() -> None:
    lightning = pytest.importorskip("lightning")
    model = Net()
    wrapped = lightning.Fabric(accelerator="cpu").setup(model)
    assert unwrap(wrapped) is model
    pruner = Pruner(wrapped, Random(0), keep=0.6, example=(X, EDGES))
    pruner.step()
    assert pruner.compact().conv1.out_channels == pruner.widths["conv1"] < 12


def test_lightning_modules_are_models_of_their_own() -> None:
    lightning = pytest.importorskip("lightning")

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.net(x, edge_index)

        def training_step(self, batch: Any) -> Tensor:
            return self(*batch).square().mean()

    lit = Lit()
    pruner = Pruner(lit, Random(0), keep=0.6, example=(X, EDGES))
    pruner.step()
    small = pruner.compact()
    assert type(small) is Lit
    assert small.net.conv1.out_channels == pruner.widths["net.conv1"] < 12
    torch.testing.assert_close(small(X, EDGES), lit(X, EDGES))
    small.training_step((X, EDGES)).backward()
