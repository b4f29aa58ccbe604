"""Tests of pyg_stkd/prune/following/follower.py: tensors while a model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune.following.calls.labels import Axis
from pyg_stkd.prune.following.follower import Follower

X = torch.randn(14, 6, generator=torch.Generator().manual_seed(0))


def test_parameters_get_units_where_they_are_first_used(unfollowed: Any) -> None:
    model = nn.Module()
    model.lin, model.norm, model.twin = nn.Linear(4, 1), nn.BatchNorm1d(3), nn.Module()
    model.twin.weight = model.norm.bias
    run = Follower(unfollowed(model), model)
    assert run.ports.owned == {}
    norm = model.norm
    run.meet(
        [model.lin.weight, norm.running_mean, norm.weight, norm.bias, norm.num_batches_tracked]
    )
    assert {name: list(dims) for name, dims in run.ports.owned.items()} == {
        "lin.weight": [1],  # its only row is no channel that could go
        "norm.running_mean": [0],
        "norm.weight": [0],
        "norm.bias": [0],
    }
    # Where a channel is masked a parameter is 0; a buffer is as it ever was.
    assert run.labels.of(norm.weight) == {0: Axis(run.ports.owned["norm.weight"][0], True, False)}
    (axis,) = run.labels.of(norm.running_mean).values()
    assert (axis.zero, axis.same) == (False, True)
    count = len(run.ports.units)
    run.meet([norm.weight, torch.ones(3)])
    assert len(run.ports.units) == count


def test_a_tensor_of_several_names_has_that_of_the_module_which_uses_it(unfollowed: Any) -> None:
    model = nn.Module()
    model.norm, model.twin = nn.BatchNorm1d(3), nn.Module()
    model.twin.weight = model.norm.bias
    for running, name in ([], "norm.bias"), (["twin"], "twin.weight"), ([""], "norm.bias"):
        run = Follower(unfollowed(model), model)
        run.modules = list(running)
        run.meet([model.norm.bias])
        assert set(run.ports.owned) == {name}


def test_what_one_matrix_gives_the_next_takes(run: Any, rows: Any, whys: Any) -> None:
    found = run(lambda net, x: (x @ net.w).relu() @ net.v)
    assert rows(found, "w", 1) == rows(found, "v", 0)
    assert found.ports.is_free(found.ports.owned["w"][1])
    assert not found.ports.is_free(found.ports.owned["w"][0])
    assert not found.ports.is_free(found.ports.owned["v"][1])
    assert whys(found) == {}
    assert {reason.why for reason in found.reasons} >= {"the model returns them"}
    assert dict(found.ports.axes).keys() == {"w", "v"}


def test_values_that_are_read_keep_their_channels(run: Any, whys: Any) -> None:
    def reads(net: Any, x: Tensor) -> Tensor:
        h = x @ net.w
        return (h if h.tolist()[0][0] > 0 else -h) @ net.v

    def asks(net: Any, x: Tensor) -> Tensor:
        h = x @ net.w
        assert h.is_floating_point()
        assert h.is_contiguous()
        assert h.stride() == (8, 1)
        return h @ net.v

    assert whys(run(reads)) == {"its values are read as numbers": "mixes"}
    assert whys(quiet := run(asks)) == {}
    assert quiet.ports.is_free(quiet.ports.owned["w"][1])


def test_reasons_say_which_function_and_line_of_the_code(run: Any, rows: Any, whys: Any) -> None:
    found = run(lambda net, x: (x @ net.w).softmax(-1) @ net.v)
    (reason,) = [reason for reason in found.reasons if reason.why in whys(found)]
    assert (reason.module, reason.function) == ("", "Tensor.softmax")
    assert reason.where.startswith("following/test_follower.py:")
    assert reason.why == "its result depends on channels that are gone"
    assert set(map(found.ports.find, reason.channels)) == set(rows(found, "w", 1))
    found.keep(tuple(rows(found, "w", 1)), "they are kept already")
    assert reason.why in {r.why for r in found.reasons}
    assert "they are kept already" not in {r.why for r in found.reasons}


def test_a_rule_that_did_not_hold_is_named_with_the_reason(unfollowed: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    run = Follower(unfollowed(model), model)
    run.failed_rules["0"], units = "it takes no such input", run.ports.new(2)
    run.modules += ["", "0"]
    run.keep(units[:1], "it mixes channels", torch.softmax)
    run.modules.pop()
    run.keep(units[1:], "it mixes channels")
    inside, outside = run.reasons
    assert inside.why == "it mixes channels; its rule does not hold: it takes no such input"
    assert (inside.module, inside.function, inside.kind) == ("0", "softmax", "mixes")
    assert (outside.why, outside.module, outside.where) == ("it mixes channels", "", "")
    run.keep(units, "again")
    assert len(run.reasons) == 2


def test_last_functions_of_outputs_are_natural_but_not_before_parameters(
    run: Any, whys: Any
) -> None:
    last = run(lambda net, x: (x @ net.w).log_softmax(-1))
    assert whys(last) == {}
    before = run(lambda net, x: (x @ net.w).log_softmax(-1) @ net.v)
    assert list(whys(before)) == ["its result depends on channels that are gone"]


def test_parameters_of_which_the_size_alone_is_read_are_kept(run: Any) -> None:
    found = run(lambda net, x: x.repeat(1, net.w.size(1)))
    assert not found.ports.is_free(found.ports.owned["w"][1])
    assert "v" not in found.ports.owned


def test_channels_that_are_all_one_are_kept(run: Any, whys: Any) -> None:
    found = run(lambda net, x: (h := x @ net.w) @ net.v + (h + h.roll(1, -1)).square() @ net.v)
    assert "all channels of w are tied to one another" in whys(found)


def test_one_of_a_weights_dimensions_that_shrinks_makes_the_other_natural(
    run: Any, whys: Any
) -> None:
    # Its inputs are no channels; nothing could free them.
    found = run(lambda net, x: torch.einsum("nc,cd->nd", x, net.w.softmax(0)) @ net.v)
    assert whys(found) == {}
    assert any(reason.is_natural and "depends" in reason.why for reason in found.reasons)
    assert found.ports.is_free(found.ports.owned["w"][1])


def test_what_a_module_owns_can_be_kept_as_a_whole(unfollowed: Any) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "ab": nn.Linear(2, 3)})
    run = Follower(unfollowed(model), model)
    run.meet(list(model.parameters()))
    more = run.ports.new(2)
    run.keep_module("a", "nobody knows", more)
    free = {n: run.ports.is_free(dims[0]) for n, dims in run.ports.owned.items()}
    assert free == {"a.weight": False, "a.bias": False, "ab.weight": True, "ab.bias": True}
    assert not run.ports.is_free(more)
    assert {reason.why for reason in run.reasons} == {"nobody knows"}
    assert len(run.reasons) == 3  # rows, columns and biases


class Unknown(nn.Module):
    """A function of numpy, which nothing sees, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = torch.from_numpy(h.detach().numpy().cumsum(-1)).to(x)
        return self.c(self.b(h).relu())


def test_what_leaves_torch_is_kept_and_blocks_nothing_else(prune_followed: Any) -> None:
    with pytest.warns(UserWarning, match=r"kept.*a \(its values are read as numbers"):
        pruner = prune_followed(Unknown(), (X,), share=0.7)
    assert set(pruner.widths) == {"b"}
