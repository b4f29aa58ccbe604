"""The rows of the distiller's benchmark are medians over processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("tabulate")
from distiller import row_of


def test_a_row_is_the_median_over_processes_and_tells_their_spread() -> None:
    processes = [
        {
            "cpu": {
                "forwards": [0.05, 0.06, 0.07],
                "by hand": [0.1, 0.1, 0.2],
                "distiller": [0.1 + beyond, 0.1 + beyond, 0.9],  # the odd turn counts for nothing
            },
            "faults": {"by hand": 20_000.0 + number, "distiller": 18_000.0},
        }
        for number, beyond in enumerate((0.002, 0.001, 0.009))
    ]
    row = row_of("PPI's size, attention, as it comes", processes)
    assert row["graph"] == "PPI's size"
    assert row["third loss"] == "attention"
    assert row["allocator"] == "as it comes"
    assert row["by hand"] == "100.000 ms"
    assert row["distiller"] == "102.000 ms"
    assert row["beyond forwards"] == "52.000 ms (51.000 to 59.000)"
    assert row["beyond by hand"] == "2.000 ms (1.000 to 9.000)"
    assert row["share"] == "2.0 % (1.0 to 9.0)"
    assert row["page faults"] == "20,001 and 18,000"
