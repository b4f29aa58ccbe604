"""What nets of one's own are held to, where their channels are followed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.follower import Follower
from pyg_stkd.prune.structure.ports import Ports


def prune_followed(model: nn.Module, example: Any, share: float = 0.5, **kwargs: Any) -> Pruner:
    """Prunes at random and compares masked with compacted, in both modes where they agree."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    pruner = Pruner(model, Random(0), keep=share, example=example, min_width=1, **kwargs)
    assert torch.equal(torch.get_rng_state(), state)
    assert modes == [module.training for module in model.modules()]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The floors")
        pruner.step()
    small = pruner.compact()
    assert type(small) is type(model)
    assert sum(p.numel() for p in small.parameters()) < sum(v.numel() for v in before.values())
    run = pruner._masked._example
    for inputs in (run, run.to(torch.float64)):
        dtype = torch.float32 if inputs is run else torch.float64
        a, b = copy.deepcopy(model).to(dtype).eval(), copy.deepcopy(small).to(dtype).eval()
        x, y = inputs.run(a), inputs.run(b)
        scale = 1.0 + x.abs().max().item()
        tolerance = 1e-5 if dtype == torch.float32 else 1e-10
        torch.testing.assert_close(x / scale, y / scale, rtol=0, atol=tolerance)
    return pruner


@pytest.fixture(name="prune_followed")
def _prune_followed() -> Callable[..., Pruner]:
    return prune_followed


@pytest.fixture
def unfollowed() -> Callable[..., Ports]:
    """Makes the ports of a model of which nothing is said yet."""
    return lambda model, heads=False: Ports(model, (), heads, follow=lambda ports, model: [])


class Coded(nn.Module):
    """Two parameters of one's own, and code that is given."""

    def __init__(self, code: Callable[[Any, Tensor], Any], **numbers: Any) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8, 3))
        vars(self).update(numbers)
        self.code = code

    def forward(self, x: Tensor) -> Any:
        return self.code(self, x)


@pytest.fixture(name="run")
def _run(unfollowed: Callable[..., Ports]) -> Callable[..., Follower]:
    """Runs the code of a net under a follower, which it returns."""

    def run(code: Callable[[Any, Tensor], Any], **numbers: Any) -> Follower:
        x = torch.randn(14, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        net = Coded(code, **numbers).double().eval()
        follower = Follower(unfollowed(net), net)
        with torch.no_grad(), follower.module_hooks(), follower:
            out = net(x)
        follower.returns(tensors_of(out))
        follower.mark_natural()
        follower.finish()
        return follower

    return run


def rows_of(run: Follower, name: str, dim: int) -> list[int]:
    return [*map(run.ports.find, run.ports.owned[name][dim])]


def whys_of(run: Follower) -> dict[str, str]:
    """Returns why the columns of the first matrix are kept, but for the nature of outputs."""
    columns = set(rows_of(run, "w", 1))
    return {
        reason.why: reason.kind
        for reason in run.reasons
        if not reason.is_natural and columns & set(map(run.ports.find, reason.channels))
    }


@pytest.fixture(name="rows")
def _rows() -> Callable[..., list[int]]:
    return rows_of


@pytest.fixture(name="whys")
def _whys() -> Callable[..., dict[str, str]]:
    """Returns why the columns of the first matrix are kept."""
    return whys_of
