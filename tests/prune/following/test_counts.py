"""Tests of pyg_stkd/prune/following/counts.py: sizes and attributes that count channels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following.calls.widths import Width

X = torch.randn(14, 6, generator=torch.Generator().manual_seed(0))


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
def test_numbers_made_of_widths_keep_their_channels(
    run: Any, code: Any, why: str, whys: Any
) -> None:
    found = run(lambda net, x: code(net, x @ net.w) @ net.v, hidden=8)
    assert whys(found) == {why: "number"}
    assert not found.ports.is_free(found.ports.owned["w"][1])


def test_numbers_that_are_sizes_in_calls_are_attributes(run: Any, rows: Any) -> None:
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


def test_new_tensors_as_wide_as_an_attribute_have_its_channels(
    run: Any, rows: Any, whys: Any
) -> None:
    def code(net: Any, x: Tensor) -> Tensor:
        start = x.new_zeros(x.size(0), net.hidden)
        return (start + x @ net.w) @ net.v

    found = run(code, hidden=8)
    assert whys(found) == {}
    assert found.ports.is_free(found.ports.owned["w"][1])
    ((_, name, channels),) = found.ports.attributes
    assert name == "hidden"
    assert [*map(found.ports.find, channels)] == rows(found, "w", 1)


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
