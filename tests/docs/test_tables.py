"""Titles of the pages of results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))
from tables import result_title  # noqa: E402


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("zoo", "Models pruned and distilled unedited"),
        ("zoo_taps", None),
        ("lsp_step", None),
        ("gat", None),
        ("mlp_cora", "From a GCN to an MLP on cora"),
    ],
)
def test_a_benchmark_says_itself_what_its_page_is_of(name: str, title: str | None) -> None:
    page = ROOT / "benchmarks" / "results" / f"{name}.md"
    found = result_title(page)
    assert title is None or found.startswith(title)
    starts = page.read_text(encoding="utf-8").startswith(found)
    assert starts == name.startswith("mlp")  # which is an example's: its page has a title
