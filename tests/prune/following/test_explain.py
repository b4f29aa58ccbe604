from __future__ import annotations

import warnings

import pytest
from torch import nn

from pyg_stkd.prune.following.explain import Explanation, Row, explain, tell
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
