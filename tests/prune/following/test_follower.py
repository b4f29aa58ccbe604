"""Tests of pyg_stkd/prune/following/follower.py: tensors, sizes and numbers while a model runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following.calls.call import tensors_of
from pyg_stkd.prune.following.calls.labels import Axis
from pyg_stkd.prune.following.calls.widths import Width
from pyg_stkd.prune.following.follower import Follower

X = torch.randn(14, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two parameters of one's own, and code that is given."""

    def __init__(self, code: Callable[[Any, Tensor], Any], **numbers: Any) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8, 3))
        vars(self).update(numbers)
        self.code = code

    def forward(self, x: Tensor) -> Any:
        return self.code(self, x)


@pytest.fixture(name="run")
def _run(unfollowed: Any) -> Callable[..., Any]:
    """Runs the code of a net under a follower, which it returns."""

    def run(code: Callable[[Any, Tensor], Any], **numbers: Any) -> Follower:
        net = Net(code, **numbers).double().eval()
        follower = Follower(unfollowed(net), net)
        with torch.no_grad(), follower.module_hooks(), follower:
            out = net(X.double())
        follower.returns(tensors_of(out))
        follower.mark_natural()
        follower.finish()
        return follower

    return run


def rows(run: Follower, name: str, dim: int) -> list[int]:
    return [*map(run.ports.find, run.ports.owned[name][dim])]


def whys(run: Follower) -> dict[str, str]:
    """Returns why the columns of the first matrix are kept, but for the nature of outputs."""
    columns = set(rows(run, "w", 1))
    return {
        reason.why: reason.kind
        for reason in run.reasons
        if not reason.is_natural and columns & set(map(run.ports.find, reason.channels))
    }


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


def test_sizes_of_channels_are_widths_and_others_are_numbers(run: Any) -> None:
    seen: dict[str, Any] = {}

    def code(net: Any, x: Tensor) -> Tensor:
        h = x @ net.w
        seen.update(last=h.size(-1), named=h.size(dim=1), rows=h.size(0), shape=h.shape)
        seen.update(inputs=x.size(-1), dims=h.dim(), count=h.numel())
        return h @ net.v

    run(code)
    assert seen == {
        "last": 8, "named": 8, "rows": 14, "shape": torch.Size([14, 8]), "inputs": 6, "dims": 2,
        "count": 14 * 8,
    }  # fmt: skip
    for width in (seen["last"], seen["named"], seen["shape"][1]):
        assert isinstance(width, Width)
        assert width.at(lambda source: 5) == 5
    assert [type(seen[name]) for name in ("rows", "inputs", "dims", "count")] == [int] * 4


def test_what_one_matrix_gives_the_next_takes(run: Any) -> None:
    found = run(lambda net, x: (x @ net.w).relu() @ net.v)
    assert rows(found, "w", 1) == rows(found, "v", 0)
    assert found.ports.is_free(found.ports.owned["w"][1])
    assert not found.ports.is_free(found.ports.owned["w"][0])
    assert not found.ports.is_free(found.ports.owned["v"][1])
    assert whys(found) == {}
    assert {reason.why for reason in found.reasons} >= {"the model returns them"}
    assert dict(found.ports.axes).keys() == {"w", "v"}


def test_values_that_are_read_keep_their_channels(run: Any) -> None:
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


def test_reasons_say_which_function_and_line_of_the_code(run: Any) -> None:
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


def test_last_functions_of_outputs_are_natural_but_not_before_parameters(run: Any) -> None:
    last = run(lambda net, x: (x @ net.w).log_softmax(-1))
    assert whys(last) == {}
    before = run(lambda net, x: (x @ net.w).log_softmax(-1) @ net.v)
    assert list(whys(before)) == ["its result depends on channels that are gone"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (lambda net, h: h / h.size(-1) ** 0.5, "a number is made of the width"),
        (lambda net, h: h / float(h.shape[1]), "a number is made of the width"),
        (
            lambda net, h: h.view(-1, net.hidden) / net.hidden**0.5,
            "a number is made of self.hidden",
        ),
        (
            lambda net, h: (h / net.hidden**0.5).view(-1, net.hidden),
            "a number is made of self.hidden",
        ),
    ],
)
def test_numbers_made_of_widths_keep_their_channels(run: Any, code: Any, why: str) -> None:
    found = run(lambda net, x: code(net, x @ net.w) @ net.v, hidden=8)
    assert whys(found) == {why: "number"}
    assert not found.ports.is_free(found.ports.owned["w"][1])


def test_numbers_that_are_sizes_in_calls_are_attributes(run: Any) -> None:
    found = run(lambda net, x: (x @ net.w).reshape(-1, net.hidden) @ net.v, hidden=8, other=8)
    ((place, name, channels),) = found.ports.attributes
    assert (place, name) == ("", "hidden")
    assert [*map(found.ports.find, channels)] == rows(found, "w", 1)
    heads = run(lambda net, x: (x @ net.w).view(-1, 2, net.each).flatten(1) @ net.v, each=4)
    ((_, name, channels),) = heads.ports.attributes
    assert (name, len(channels)) == ("each", 4)
    line = rows(heads, "w", 1)
    assert line == line[:4] * 2
    assert [*map(heads.ports.find, channels)] == line[:4]


def test_numbers_that_are_compared_with_sizes_are_attributes(run: Any) -> None:
    def code(net: Any, x: Tensor) -> Tensor:
        h = x @ net.w
        assert h.size(-1) == net.hidden
        assert h.size(0) != net.other
        return h @ net.v

    found = run(code, hidden=8, other=8, flag=True, _private=8, small=1)
    assert [(name, len(line)) for _, name, line in found.ports.attributes] == [("hidden", 8)]
    assert [type(vars(found.model)[name]) for name in ("hidden", "other")] == [Width] * 2
    assert [type(vars(found.model)[name]) for name in ("flag", "_private", "small")] == [
        bool, int, int,
    ]  # fmt: skip


def test_new_tensors_as_wide_as_an_attribute_have_its_channels(run: Any) -> None:
    def code(net: Any, x: Tensor) -> Tensor:
        start = x.new_zeros(x.size(0), net.hidden)
        return (start + x @ net.w) @ net.v

    found = run(code, hidden=8)
    assert whys(found) == {}
    assert found.ports.is_free(found.ports.owned["w"][1])
    ((_, name, channels),) = found.ports.attributes
    assert name == "hidden"
    assert [*map(found.ports.find, channels)] == rows(found, "w", 1)


def test_parameters_of_which_the_size_alone_is_read_are_kept(run: Any) -> None:
    found = run(lambda net, x: x.repeat(1, net.w.size(1)))
    assert not found.ports.is_free(found.ports.owned["w"][1])
    assert "v" not in found.ports.owned


def test_channels_that_are_all_one_are_kept(run: Any) -> None:
    found = run(lambda net, x: (h := x @ net.w) @ net.v + (h + h.roll(1, -1)).square() @ net.v)
    assert "all channels of w are tied to one another" in whys(found)


def test_one_of_a_weights_dimensions_that_shrinks_makes_the_other_natural(run: Any) -> None:
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


class Scores(nn.Module):
    """Dot products over two dimensions of heads, divided by the root of the width."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.heads, self.channels, self.scaled = 2, 6, scaled
        self.query, self.value = nn.Linear(6, 12), nn.Linear(6, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).view(-1, self.heads, self.channels)
        score = (q * q).sum(-1, keepdim=True)
        if self.scaled:
            score = score / self.channels**0.5
        value = self.value(x).view(-1, self.heads, self.channels)
        return self.out((score.tanh() * value).reshape(-1, self.heads * self.channels))


def test_attributes_that_code_reads_follow_the_width(prune_followed: Any) -> None:
    pruner = prune_followed(Scores(scaled=False), (X,))
    assert set(pruner.widths) == {"query+value"}
    assert pruner.compact().channels == pruner.widths["query+value"] < 6
    assert pruner.compact().heads == 2


def test_a_scale_by_the_width_keeps_it_and_says_so() -> None:
    pattern = r"a number is made of self\.channels"
    with pytest.raises(ValueError, match=pattern):
        Pruner(Scores(scaled=True), Random(0), example=(X,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), Scores(scaled=True))
    with pytest.warns(UserWarning, match=pattern):
        pruner = Pruner(model, Random(0), keep=0.9, example=(X,))
    assert set(pruner.widths) == {"0", "2"}
    row = next(row for row in pruner.explain() if "number" in row.why)
    assert "width" in row.freed_by
    assert "number" in str(pruner.explain())
    with pytest.raises(ValueError, match=f"'strict' allows no .*{pattern}"):
        Pruner(copy.deepcopy(model), Random(0), example=(X,), strict=True)


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
