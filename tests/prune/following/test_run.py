"""Tests of pyg_stkd/prune/following/run.py: one run, and what it leaves behind."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.following import follow
from pyg_stkd.prune.structure.example import Example
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import Reason

X = torch.randn(14, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two layers between a number that it remembers and a random one."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.a, self.b = 8, nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        return self.b(self.a(x).relu().view(-1, self.hidden))


def ports_of(model: nn.Module, heads: bool = False) -> tuple[Ports, list[Reason]]:
    """Returns the ports of a model that is run, and what the run returned."""
    found: list[Reason] = []

    def run(ports: Ports, model: nn.Module) -> list[Reason]:
        found.extend(follow(ports, model, Example((X,))))
        return found

    return Ports(model, heads=heads, follow=run), found


def test_what_belongs_to_what_is_written_down() -> None:
    model = Net()
    ports, reasons = ports_of(model)
    owned, find = ports.owned, ports.find
    rows = [*map(find, owned["a.weight"][0])]
    assert rows == [*map(find, owned["a.bias"][0])] == [*map(find, owned["b.weight"][1])]
    assert len(set(rows)) == 8
    assert ports.is_free(owned["a.weight"][0])
    assert not ports.is_free(owned["a.weight"][1])  # the inputs
    assert not ports.is_free(owned["b.weight"][0])  # the outputs
    # What the layers make, and the columns of the first, which none makes.
    assert [(n, len(line)) for n, line in ports.axes] == [("a", 8), ("b", 3), ("a", 6)]
    assert [(place, name) for place, name, _ in ports.attributes if place == ""] == [("", "hidden")]
    assert {(reason.why, reason.kind) for reason in reasons} == {
        ("the model returns them", "natural")
    }
    assert ports.reasons == reasons


def test_where_heads_are_pruned_channels_are_kept() -> None:
    ports, reasons = ports_of(Net(), heads=True)
    assert not any(ports.is_free(channels) for _, channels in ports.axes)
    assert ("channels are kept where heads are pruned", "natural") in {
        (reason.why, reason.kind) for reason in reasons
    }


def test_a_run_is_without_gradients_and_leaves_neither_hooks_nor_random_numbers() -> None:
    seen: list[tuple[bool, bool]] = []

    class Watched(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    model, state = Watched().train(), torch.get_rng_state()
    ports_of(model)
    # Once, and once more as its code asks for the mode, of which nothing comes.
    assert seen == [(False, False), (True, False)]
    assert not any(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def einops_of_ones_own() -> Any:
    """Returns a module in whose cache sizes are looked up by their numbers."""

    @functools.lru_cache
    def shapes(shape: Any, heads: int) -> Any:
        return [*shape[:-1], heads, shape[-1] // heads]

    einops = types.ModuleType("einops.einops")
    vars(einops)["_reconstruct_from_shape"] = shapes
    return einops


@pytest.fixture
def einops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module = einops_of_ones_own()
    monkeypatch.setitem(sys.modules, "einops.einops", module)
    cached = module._reconstruct_from_shape
    yield module
    assert module._reconstruct_from_shape is cached  # whatever happened


def test_shapes_that_einops_looks_up_keep_their_widths(einops: Any, prune_followed: Any) -> None:
    """It caches sizes by their numbers, and would give those of another tensor."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            found = []
            for lin in (self.a, self.b):
                y = lin(x)
                y = y.reshape(einops._reconstruct_from_shape(y.shape, 2))
                found.append(y.transpose(1, 2).flatten(1))
            return self.c(torch.cat(found, dim=-1))

    model, example = Heads(), (X,)
    model(*example)  # numbers are in the cache
    pruner = prune_followed(model, example)
    assert set(pruner.widths) == {"a", "b"}


def test_a_run_that_fails_puts_everything_back(einops: Any) -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Tensor:
            assert not hasattr(einops._reconstruct_from_shape, "cache_info")
            raise RuntimeError(f"after {self.a(x).size(0)} nodes")

    model = Broken()
    with pytest.raises(RuntimeError, match="after 14 nodes"):
        ports_of(model)
    assert hasattr(einops._reconstruct_from_shape, "cache_info")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_other_versions_of_einops_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = einops_of_ones_own()
    plain = vars(module)["_reconstruct_from_shape"] = len  # without a cache
    monkeypatch.setitem(sys.modules, "einops.einops", module)
    ports, _ = ports_of(Net())
    assert ports.is_free(ports.owned["a.weight"][0])
    assert module._reconstruct_from_shape is plain
