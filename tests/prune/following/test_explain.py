from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.following.explain import Explanation, Row, explain, refusal, tell
from pyg_stkd.prune.structure.ports import Ports
from pyg_stkd.prune.structure.reasons import FREED_BY, Reason

ROW = Row("lin", 3, "convs.0, softmax, net.py:3", "it mixes channels", "a rule", False)
NATURAL = Row("out", 2, "", "the model's outputs", "", True)


def test_the_table_prints_with_columns_in_line() -> None:
    lines = str(Explanation((ROW, NATURAL))).splitlines()
    assert lines[0].split() == ["kept", "channels", "where", "why", "what", "would", "free", "it"]
    for word in ("channels", "where", "why"):
        start = lines[0].index(word)
        assert all(line[start - 1] == " " for line in lines)
    assert lines[1].startswith("lin   3         convs.0, softmax, net.py:3  it mixes channels")
    assert str(Explanation(())) == "All channels can be pruned."
    assert len(Explanation((ROW,))) == 1


def test_the_first_reason_of_each_unit_counts() -> None:
    ports = Ports(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)))
    units = dict(ports.axes)["0"]
    ports.reasons[:] = [
        Reason("0", "f", "a.py:1", units[:1], "first"),
        Reason("0", "g", "a.py:2", units[:3], "second", "width"),
    ]
    rows = {row.why: row for row in explain(ports) if row.name == "0"}
    assert {why: row.channels for why, row in rows.items()} == {"first": 1, "second": 2}
    assert rows["second"].where == "0, g, a.py:2"
    assert rows["second"].freed_by == FREED_BY["width"]


def test_what_is_not_natural_warns_or_raises() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell(Explanation((NATURAL,)), strict=True)
    match = r"lin \(it mixes channels, convs.0, softmax, net.py:3\)$"
    with pytest.warns(UserWarning, match=r"These channels are kept, see explain\(\): " + match):
        tell(Explanation((NATURAL, ROW)), strict=False)
    with pytest.raises(ValueError, match=r"'strict' allows no channels .*\(got: lin"):
        tell(Explanation((ROW,)), strict=True)


class Normed(nn.Module):
    """Inputs are normalised first; a branch of them is kept, and what follows on it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.kept, self.behind = nn.BatchNorm1d(3), nn.Linear(3, 6), nn.LayerNorm(6)
        self.a, self.out = nn.Linear(3, 8), nn.Linear(14, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        kept = self.behind(self.kept(x).softmax(dim=-1))
        return self.out(torch.cat([self.a(x).relu(), kept], dim=-1))


def test_what_takes_kept_channels_has_a_row() -> None:
    with pytest.warns(UserWarning, match=r"see explain\(\): kept \(its result depends.*\)$"):
        pruner = Pruner(Normed(), Random(0), keep=0.9, example=(torch.randn(9, 3),))
    rows = {row.name: row for row in pruner.explain()}
    assert set(rows) == {"norm", "kept", "behind", "out"}  # "a" is pruned, what it takes or not
    for name, channels in (("norm", 3), ("behind", 6)):
        assert rows[name].why.startswith("inputs, and what is made of kept channels")
        assert rows[name].channels == channels
        assert rows[name].is_natural
    pruner.step()


def test_a_refusal_names_modules_places_reasons_and_remedies() -> None:
    others = [Row(f"lins.{i}", 4, "f, net.py:9", "sizes", "shapes", False) for i in range(5)]
    assert refusal(Explanation((NATURAL, ROW, *others))).splitlines() == [
        "",
        "  lin: it mixes channels (convs.0, softmax, net.py:3); what would free it: a rule",
        "  lins.0, lins.1, lins.2 and 2 more: sizes (f, net.py:9); what would free it: shapes",
        "  out: the model's outputs",
    ]
    many = [Row(str(i), 4, "", f"reason {i}", "", False) for i in range(9)]
    lines = refusal(Explanation(tuple(many))).splitlines()
    assert lines[-2:] == ["  4: reason 4", "  and 4 reasons more"]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.a(x).view(-1, 4, 2).tanh().flatten(1))

    with pytest.raises(ValueError, match="'model' must have channels that can be pru") as error:
        Pruner(Net(), Random(0), example=(torch.randn(9, 3),))
    first, second, third = str(error.value).splitlines()
    assert first.endswith("(got Net, whose inputs, outputs and ignored modules are kept)")
    assert second.startswith("  a: it fails with fewer channels: RuntimeError: shape '[-1, 4, 2]'")
    assert "(Tensor.view, " in second
    assert "following/test_explain.py:" in second
    assert second.endswith(f"; what would free it: {FREED_BY['width']}")
    assert third == "  out: the model returns them"


def test_buffers_of_inputs_are_kept_by_nature() -> None:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x - self.mean).relu())

    pruner = Pruner(Standardised(), Random(0), keep=0.8, example=(torch.randn(5, 3),), strict=True)
    assert set(pruner.widths) == {"a"}
    assert all(row.is_natural for row in pruner.explain())
