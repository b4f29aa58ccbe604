"""Tests of pyg_stkd/prune/following/watch.py: the hooks of one module, and its rule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following.calls.widths import Width
from pyg_stkd.prune.following.follower import Follower
from pyg_stkd.prune.structure.ports import Ports

X = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])


class Spy(nn.Module):
    """Notes what a run says while it is called: a module inside another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.run: Any = None
        self.seen: list[Any] = []

    def forward(self, x: Tensor, *args: Any) -> Any:
        self.seen.append((list(self.run.modules), self.run.quiet))
        return self.inner(x, *args)


def run_of(model: nn.Module, unfollowed: Callable[..., Ports], *args: Any) -> Any:
    """Runs a model in eval mode; returns the run and what the model returned."""
    run = Follower(unfollowed(model), model.eval())
    for module in model.modules():
        if isinstance(module, Spy):
            vars(module)["run"] = run
    with torch.no_grad(), run.module_hooks(), run:
        out = model(*args)
    return run, out


def hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def test_a_watch_is_two_hooks_until_it_is_detached(unfollowed: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    run = Follower(unfollowed(model), model)
    with run.module_hooks():
        assert [hooks(module) for module in model.modules()] == [2, 2, 2]
        watch = run.watches[model[0]]
        assert watch.name == "0"
        watch.detach()
        watch.detach()
        assert hooks(model[0]) == 0
    assert [hooks(module) for module in model.modules()] == [0, 0, 0]


def test_a_run_knows_which_modules_are_running(unfollowed: Any) -> None:
    model = nn.Sequential(Spy(Spy(nn.Linear(6, 4))), Spy(nn.ReLU()))
    run, _ = run_of(model, unfollowed, X)
    seen = [model[0].seen, model[0].inner.seen, model[1].seen]
    assert seen == [[(["", "0"], 0)], [(["", "0", "0.inner"], 0)], [(["", "1"], 0)]]
    assert (run.modules, run.quiet) == ([], 0)


def test_the_names_are_right_after_an_error_too(unfollowed: Any) -> None:
    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.spy = nn.Linear(5, 4), Spy(nn.Linear(6, 4))  # the first does not fit

        def forward(self, x: Tensor) -> Tensor:
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                self.lin(x)
            return self.spy(x)

    model = Catches()
    run, _ = run_of(model, unfollowed, X)
    assert model.spy.seen == [(["", "spy"], 0)]
    assert (run.modules, run.quiet) == ([], 0)
    assert all(watch._pending == [] for watch in run.watches.values())


def test_a_rule_labels_outputs_and_nothing_is_watched_inside(unfollowed: Any) -> None:
    mlp = pyg.MLP([6, 8, 4], norm=None)
    inside: list[Any] = []
    mlp.lins[0].register_forward_pre_hook(
        lambda module, args: inside.append((hooks(module), run.quiet))
    )
    model = nn.Sequential(mlp)
    run = Follower(unfollowed(model), model.eval())
    with torch.no_grad(), run.module_hooks(), run:
        out = model(X)
        assert hooks(mlp.lins[0]) == 1 + 2  # watched again
    assert inside[0] == (1, 1)  # its own hook alone, and the run was quiet
    (axis,) = run.labels.of(out).values()
    assert axis.channels == run.ports.owned["0.lins.1.weight"][0]
    assert {id(p) for p in mlp.parameters()} <= run.used
    assert run.failed_rules == {}


def test_what_a_rule_said_that_does_not_hold_is_taken_back(unfollowed: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # The rule speaks for the linear layer inside, then for no such aggregation.
            self.lin, self.conv = nn.Linear(6, 6), pyg.EdgeConv(nn.Linear(12, 4), aggr="softmax")
            self.conv.width = 4

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.lin(x), EDGES)

    net = Net()
    run, out = run_of(net, unfollowed, X)
    assert list(run.failed_rules) == ["conv"]
    assert run.failed_rules["conv"].startswith("No rule says what becomes of channels in Softmax")
    assert isinstance(vars(net.conv)["width"], Width)  # its code is followed, so its numbers too
    assert type(vars(net.lin)["out_features"]) is int
    # The layer inside has spoken for itself, once.
    assert [name for name, _ in run.ports.axes] == ["lin", "conv.nn"]
    assert "conv" not in run.ports.outputs
    assert run.labels.of(out)[1].channels == run.ports.outputs["conv.nn"]
    columns = [*map(run.ports.find, run.ports.owned["conv.nn.weight"][1])]
    assert columns == [*map(run.ports.find, run.ports.outputs["lin"])] * 2


def test_what_returns_more_than_its_rule_says_is_kept(unfollowed: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lin = pyg.GATConv(6, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out, _ = self.conv(x, EDGES, return_attention_weights=True)
            return self.lin(out)

    run, _ = run_of(Net(), unfollowed, X)
    rows = run.ports.owned["conv.lin.weight"][0]
    assert not run.ports.is_free(rows)
    assert {(r.why, r.kind) for r in run.reasons} == {("it returns more than features", "mixes")}
    assert run.ports.is_free(run.ports.owned["lin.weight"][0])


def test_a_module_that_is_called_twice_has_one_set_of_channels(unfollowed: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(self.lin(x).relu())

    run, out = run_of(Net(), unfollowed, X)
    rows, columns = (run.ports.owned["lin.weight"][dim] for dim in (0, 1))
    assert [*map(run.ports.find, rows)] == [*map(run.ports.find, columns)]
    assert list(run.labels.of(out)) == []  # as wide as the inputs, and kept with them


class Replaces(nn.Module):
    """Calls one of its layers with other parameters, as meta learning does."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.first, self.hidden, self.out = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: p * 1.5 for name, p in self.hidden.named_parameters()}
        if not self.whole:
            weights.pop("weight")
        h = torch.func.functional_call(self.hidden, weights, (self.first(x).relu(),))
        return self.out(h.relu())


@pytest.mark.parametrize("whole", [True, False])
def test_a_layer_that_runs_with_other_parameters_is_kept(whole: bool) -> None:
    torch.manual_seed(0)
    why = "its layer runs with other parameters in their place"
    with pytest.raises(ValueError, match=f"first, hidden: {why}"):
        Pruner(Replaces(whole), Random(0), keep=0.5, example=(X,))
    chain = nn.Sequential(Replaces(whole), nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 2))
    with pytest.warns(UserWarning, match=why):
        pruner = Pruner(chain, Random(0), keep=0.9, example=(X,), rho=0.1, min_width=1)
    assert set(pruner.widths) == {"0.out", "1"}
    pruner.step()
    torch.testing.assert_close(chain.eval()(X), pruner.compact().eval()(X))


def test_its_own_parameters_are_no_others() -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(6, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.hidden(x).relu())

    def call(model: nn.Module, x: Tensor) -> Any:
        return torch.func.functional_call(model, dict(model.named_parameters()), (x,))

    pruner = Pruner(Same(), Random(0), keep=0.6, example=(X,), call=call, min_width=1)
    assert set(pruner.widths) == {"hidden"}


class Coder(nn.Module):
    """A model of two functions, which reads a parameter of its own before it calls a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.hidden = nn.Parameter(torch.randn(6, 12)), nn.Linear(12, 12)
        self.out = nn.Linear(12, 2)

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.weight).relu()

    def decode(self, z: Tensor) -> Tensor:
        return self.out(self.hidden(z).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def in_parts(model: Any, x: Tensor) -> Any:
    return model.decode(model.encode(x))


@pytest.mark.parametrize("call", [None, in_parts])
def test_masks_that_nothing_renews_are_not_made(call: Any) -> None:
    torch.manual_seed(0)
    model, why = Coder(), "weight .it is read before its module is called"
    with pytest.warns(UserWarning, match=why) if call else nullcontext():
        pruner = Pruner(model, Random(0), keep=0.6, example=(X,), call=call, rho=0.1, min_width=1)
    assert set(pruner.widths) == ({"hidden"} if call else {"weight", "hidden"})
    if call:
        (row,) = [row for row in pruner.explain() if not row.is_natural]
        assert row.freed_by == "a forward of the model in 'call', which renews masks"
    pruner.step()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        run = call or (lambda model, x: model(x))
        run(model, X).square().mean().backward()
        optimizer.step()
        torch.testing.assert_close(run(model, X), run(pruner.compact(), X))
