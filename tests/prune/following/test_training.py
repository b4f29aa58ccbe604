"""Tests of pyg_stkd/prune/following/training.py: what train mode does alone is followed too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GAE, VGAE, BatchNorm, GCNConv

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following import run
from pyg_stkd.prune.following.training import asks_for_training, in_training

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(14, 6, generator=GENERATOR)
EDGES = torch.randint(14, (2, 40), generator=GENERATOR)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 16), BatchNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.a(x)).relu())


class Dropping(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.a(x).relu(), training=self.training))


class InProperty(Plain):
    @property
    def share(self) -> float:
        return 0.5 if self.training else 1.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.share


class InFunction(Plain):
    def forward(self, x: Tensor) -> Tensor:
        def scaled(x: Tensor) -> Tensor:
            return x * 2.0 if self.training else x

        return scaled(super().forward(x))


class Inherits(InFunction):
    pass


def called(model: Any, x: Tensor) -> Tensor:
    return model(x) * (2.0 if model.training else 1.0)


@pytest.mark.parametrize(
    ("net", "call", "asks"),
    [
        (Plain, None, False),  # its norm is another function then, but a rule speaks for it
        (Dropping, None, True),
        (InProperty, None, True),
        (InFunction, None, True),
        (Inherits, None, True),
        (Plain, called, True),
        (Plain, functools.partial(Plain.forward), False),
    ],
)
def test_whether_the_code_asks_for_the_mode(net: Any, call: Any, asks: bool) -> None:
    assert asks_for_training(net(), call) is asks
    assert asks_for_training(nn.Sequential(net()), call) is asks


def test_what_rules_speak_of_is_in_eval_mode() -> None:
    model = nn.Sequential(Dropping(), nn.Dropout(), nn.GRU(2, 2))
    model.eval()
    with in_training(model):
        modes = {name: module.training for name, module in model.named_modules()}
        assert {name for name, mode in modes.items() if mode} == {"", "0", "1"}
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(("net", "runs"), [(Plain, 1), (Dropping, 1), (InFunction, 2)])
def test_channels_are_followed_again_only_where_train_mode_is_another_function(
    net: Any, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    once: Callable[..., Any] = run._run
    monkeypatch.setattr(run, "_run", lambda *args: calls.append(args) or once(*args))
    pruner = Pruner(net(), Random(0), keep=0.7, example=(X,))
    assert set(pruner.widths) == {"a"}
    assert len(calls) == runs


class Encoder(nn.Module):
    def __init__(self, variational: bool) -> None:
        super().__init__()
        self.conv, self.mu = GCNConv(6, 16), GCNConv(16, 8)
        self.logstd = GCNConv(16, 8) if variational else None

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        x = F.dropout(self.conv(x, edge_index).relu(), 0.5, self.training)
        mu = self.mu(x, edge_index)
        return mu if self.logstd is None else (mu, self.logstd(x, edge_index))


def encoded(model: Any, *inputs: Tensor) -> Tensor:
    return model.encode(*inputs)


def test_variational_autoencoders_are_pruned_in_part() -> None:
    torch.manual_seed(0)
    model = VGAE(Encoder(True))
    pruner = Pruner(model, Random(0), keep=0.6, example=(X, EDGES), call=encoded)
    assert set(pruner.widths) == {"encoder.conv"}
    why = {row.name: row.why for row in pruner.explain()}
    assert why["encoder.mu"] == "the model returns them"
    assert why["encoder.logstd"] == "in train mode the model returns them"
    assert all(row.is_natural for row in pruner.explain())
    pruner.step()
    small = pruner.compact()
    assert small.encoder.conv.out_channels == pruner.widths["encoder.conv"] < 16
    torch.testing.assert_close(small.eval().encode(X, EDGES), model.eval().encode(X, EDGES))
    torch.testing.assert_close(
        small.kl_loss(*small.encoder(X, EDGES)), model.kl_loss(*model.encoder(X, EDGES))
    )
    optimizer = torch.optim.Adam(small.train().parameters())
    z = small.encode(X, EDGES)
    (small.recon_loss(z, EDGES) + small.kl_loss() / 14).backward()
    optimizer.step()
    plain = Pruner(GAE(Encoder(False)), Random(0), keep=0.6, example=(X, EDGES))
    assert set(plain.widths) == {"encoder.conv"}


class Branch(nn.Module):
    """Adds a branch in train mode alone, of which eval mode never hears."""

    def __init__(self, returns: bool = False) -> None:
        super().__init__()
        self.a, self.extra, self.b = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)
        self.side, self.returns = nn.Linear(16, 2), returns

    def forward(self, x: Tensor) -> Any:
        h = self.a(x)
        if self.training and not self.returns:
            h = h + F.dropout(self.extra(x), 0.3)
        out = self.b(h.relu())
        return (out, self.side(h)) if self.training and self.returns else out


@pytest.mark.parametrize("returns", [False, True])
def test_layers_of_train_mode_alone_lose_channels_too(returns: bool) -> None:
    torch.manual_seed(0)
    model = Branch(returns)
    pruner = Pruner(model, Random(0), keep=0.8, example=(X,))
    (group,) = pruner.groups
    assert group.name == ("a" if returns else "a+extra")
    assert ("side.weight" if returns else "extra.weight") in group.members
    pruner.step()
    small = pruner.compact()
    assert small.a.out_features < 16
    for training in (False, True):
        torch.manual_seed(1)
        expected = model.train(training)(X)
        torch.manual_seed(1)
        got = small.train(training)(X)
        if training and not returns:  # which drops other channels
            assert got.shape == expected.shape
        else:
            torch.testing.assert_close(got, expected)


class Mixed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h.softmax(dim=-1) if self.training else h.relu())


@pytest.mark.filterwarnings("ignore:These channels are kept")
def test_what_train_mode_mixes_is_kept_and_says_where() -> None:
    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1.0

    model = Net(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6), Mixed())
    pruner = Pruner(model, Random(0), keep=0.8, example=(X,))
    assert {"0", "2"} == set(pruner.widths)
    (row,) = [row for row in pruner.explain() if row.name == "3.a"]
    assert row.why == "in train mode its result depends on channels that are gone"
    assert "softmax" in row.where


def test_a_model_that_does_not_run_in_train_mode_is_pruned_by_its_eval_mode() -> None:
    class Raises(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("no targets")
            return super().forward(x)

    assert set(Pruner(Raises(), Random(0), keep=0.7, example=(X,)).widths) == {"a"}


def test_what_cannot_be_followed_in_train_mode_is_forgotten_and_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once: Callable[..., Any] = run._run

    def fails(follower: Any, example: Any) -> Any:
        out = once(follower, example)
        if follower.model.training:
            follower.ports.freeze([axis for _, axis in follower.ports.axes])
            raise RuntimeError("in the midst of it")
        return out

    monkeypatch.setattr(run, "_run", fails)
    pruner = Pruner(InFunction(), Random(0), keep=0.7, example=(X,))
    assert set(pruner.widths) == {"a"}
    assert all(row.is_natural for row in pruner.explain())
    assert not any(row.why.startswith("in train mode") for row in pruner.explain())
