"""Tests of pyg_stkd/prune/structure/parametrized.py: weights that are computed from others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch_geometric.nn import GCN

from pyg_stkd.prune import KDIS, Magnitude, Pruner
from pyg_stkd.prune.structure.parametrized import parts_of, unmasked_dims

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 2, 0]])

NORMS: dict[str, Any] = {
    "weight norm": parametrizations.weight_norm,
    "of columns": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "of all": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "spectral norm": parametrizations.spectral_norm,
}


def chain(norm: Any) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(6, 12), nn.ReLU(), norm(nn.Linear(12, 8)), nn.ReLU(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("name", NORMS)
def test_masked_equals_compacted(check_rule: Any, name: str) -> None:
    for seed, share in ((0, 0.5), (1, 0.001)):
        pruner = check_rule(lambda: chain(NORMS[name]), lambda m: m(X), seed, share)
        assert pruner.compact()[2].weight.shape == (pruner.widths["2"], pruner.widths["0"])


@pytest.mark.parametrize("name", NORMS)
def test_trains_under_masks_and_goes_on_small(name: str) -> None:
    model = chain(NORMS[name])
    pruner = Pruner(model, KDIS(), keep=(0.6, 0.4), rho=0.1)
    for _ in range(2):
        pruner.step([F.mse_loss(model(X), X[:, :3])])
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.mse_loss(model.train()(X), X[:, :3]).backward()
            optimizer.step()
        assert all(bool(p.isfinite().all()) for p in model.parameters())
        small = pruner.compact()
        torch.testing.assert_close(small.eval()(X), model.eval()(X))
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(X), model(X))
    pruner.shrink()
    torch.testing.assert_close(model(X), small(X))
    other = copy.deepcopy(small)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))
    assert pruner.num_parameters == sum(p.numel() for p in model.parameters())


def test_layers_of_models() -> None:
    model = GCN(6, 16, 3, 2).double()
    parametrizations.weight_norm(model.convs[1].lin)
    pruner = Pruner(model, Magnitude(), keep=0.5)
    pruner.step()
    small = pruner.compact()
    torch.testing.assert_close(small(X[:6], EDGES), model(X[:6], EDGES))
    assert small.convs[1].lin.weight.size(0) < 16


def test_others_are_refused_by_name_or_left() -> None:
    class Double(nn.Module):
        def forward(self, x: Any) -> Any:
            return 2 * x

    def twice(layer: nn.Module) -> nn.Module:
        parametrizations.weight_norm(layer)
        return parametrize.register_parametrization(layer, "weight", Double())

    for norm, names in (
        (parametrizations.orthogonal, "_Orthogonal"),
        (twice, "_WeightNorm, Double"),
        (lambda layer: parametrize.register_parametrization(layer, "weight", Double()), "Double"),
    ):
        with pytest.raises(ValueError, match=rf"ignore=\[layer\].*parametrization by {names}\)"):
            Pruner(chain(norm), Magnitude(), keep=0.5)


def test_ignored_layers_keep_what_they_take_and_give() -> None:
    model = nn.Sequential(
        nn.Linear(6, 12), nn.Linear(12, 8), parametrizations.orthogonal(nn.Linear(8, 8)),
        nn.Linear(8, 9), nn.Linear(9, 2),
    ).double()  # fmt: skip
    pruner = Pruner(model, Magnitude(), keep=0.8, ignore=["2"])
    pruner.step()
    assert set(pruner.widths) == {"0", "3"}
    torch.testing.assert_close(pruner.compact()(X), model(X))


def test_convolutions_under_spectral_norm_are_refused() -> None:
    conv = parametrizations.spectral_norm(nn.Conv2d(2, 3, 2))
    with pytest.raises(ValueError, match=r"two dimensions, spectral_norm, .*by _SpectralNorm"):
        parts_of(conv, "weight", 0)


def test_convolutions_under_weight_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Conv1d(2, 6, 3)), nn.ReLU(), nn.Conv1d(6, 3, 1)
    ).double()
    assert unmasked_dims(model) == {("0.parametrizations.weight.original1", 0)}
    pruner = Pruner(model, Magnitude(), keep=0.7, rho=0.1)
    pruner.step()
    x = torch.randn(4, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(pruner.compact()(x), model(x))
    assert pruner.widths["0"] < 6
