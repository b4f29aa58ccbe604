"""Every figure that README and docs give stands in the results that they name.

A paragraph, a row of a table or an item of a list that names a page of ``benchmarks/results`` gives
no figure that is not on one of these pages, rounded; so does a table with the paragraph before it.
The pages themselves are written from raw results (``--redraw``).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.rst"))]
PAGES += sorted((ROOT / "docs").glob("*.md"))
NAMED = re.compile(r"benchmarks/results/([\w-]+)\.(?:md|json|txt)")
REDRAWN = {
    "lsp_table2_few": "lsp_table2",
    "lsp_table2_labels": "lsp_table2",
    "lsp_table2_labels_scale1": "lsp_table2",
    "lsp_table4_modelnet10_vox24": "lsp_shapes",
    "lsp_table4_synthetic": "lsp_shapes",
    "lsp_table5_modelnet10_vox24": "lsp_shapes",
    "lsp_table5_synthetic": "lsp_shapes",
    "lsp_table6_synthetic": "lsp_shapes",
    "mlp_citeseer": "mlp",
    "mlp_cora": "mlp",
    "modelnet10_vox24": "papers/modelnet",
    "modelnet_synthetic": "papers/modelnet",
    "ppi_pcg": "papers/ppi",
    "ppi_synthetic": "papers/ppi",
    "ppi_synthetic_paper": "papers/ppi",
    "proteins": "proteins",
    "proteins_trials": "proteins",
    "prune_few_labels": "papers/prune_traffic",
    "prune_metr_la_week": "papers/prune_traffic",
    "prune_synthetic": "papers/prune_traffic",
    "traffic_metr_la_week": "papers/traffic",
    "traffic_synthetic": "papers/traffic",
    "views_proteins": "views",
    "views_shapes": "views",
    "views_traffic": "views",
}
# A figure has a decimal point, or a sign of what it measures behind it.
FIGURE = re.compile(r"(?<![\w./-])(\d[\d,]*\.\d+|\d[\d,]*(?=x\b| ?%| points| mph))")
NUMBER = re.compile(r"(?<![\w/])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
# Links, code and versions are no results.
NOT_SAID = re.compile(r"\]\([^)]*\)|``[^`]+``|`[^`]+`|arXiv:\S+|version \d[\d.]*|https?://\S+")


def blocks(text: str) -> Iterator[str]:
    """Yield paragraphs; a table belongs to the paragraph before it."""
    before = ""
    for part in re.split(r"\n\s*\n", text):
        table = part.lstrip().startswith("|")
        if before and not table:
            yield before
            before = ""
        before = f"{before}\n\n{part}" if table else part
    yield before


def value(text: str) -> float:
    return float(text.replace(",", ""))


def pages_with_claims() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            if NAMED.search(block):
                yield page, block


CLAIMS = list(pages_with_claims())


def known(names: set[str]) -> list[float]:
    """Return all numbers of some pages of results, and of their remarks."""
    found: list[float] = []
    for name in names:
        for kind in ("md", "txt"):
            path = ROOT / "benchmarks" / "results" / f"{name}.{kind}"
            if path.exists():
                found += map(value, NUMBER.findall(path.read_text(encoding="utf-8")))
    return found


def untraced(block: str) -> list[str]:
    numbers = known(set(NAMED.findall(block)))
    said = NOT_SAID.sub(" ", block)
    missing = []
    for match in FIGURE.finditer(said):
        text = match.group(1)
        half = 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9
        if not any(abs(number - value(text)) <= half for number in numbers):
            missing.append(text)
    return missing


@pytest.mark.parametrize(
    ("page", "block"), CLAIMS, ids=[f"{p.name}-{i}" for i, (p, _) in enumerate(CLAIMS)]
)
def test_figures_stand_in_the_results_that_are_named(page: Path, block: str) -> None:
    assert untraced(block) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_results_that_are_named_are_there(page: Path) -> None:
    for name in set(NAMED.findall(page.read_text(encoding="utf-8"))):
        assert (ROOT / "benchmarks" / "results" / f"{name}.md").exists()


def test_a_wrong_figure_is_found() -> None:
    right = next(b for p, b in CLAIMS if p.name == "README.md" and "mlp_cora" in b)
    assert untraced(right) == []
    assert untraced(right + " It closes 12345.6 points.") == ["12345.6"]


def test_the_figures_of_the_readme_name_their_results() -> None:
    section = PAGES[0].read_text(encoding="utf-8").split("\n## What to expect\n")[1]
    unnamed = [
        (block.strip()[:60], FIGURE.findall(said))
        for block in blocks(section.split("\n## ")[0])
        if not NAMED.search(block) and FIGURE.search(said := NOT_SAID.sub(" ", block))
    ]
    assert unnamed == []


@pytest.mark.full
@pytest.mark.parametrize("name", REDRAWN)
def test_pages_are_written_from_raw_results(name: str, tmp_path: Path) -> None:
    stored = ROOT / "benchmarks" / "results" / name
    for path in (stored.with_suffix(".json"), stored.with_suffix(".txt")):
        if path.exists():
            shutil.copy(path, tmp_path)
    folder = "benchmarks/reproduce" if name.startswith("lsp_") else "examples"
    script = ROOT / folder / f"{REDRAWN[name]}.py"
    command = [sys.executable, str(script), "--redraw", str(tmp_path / f"{name}.json")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    page = tmp_path / f"{name}.md"
    assert page.read_text() == stored.with_suffix(".md").read_text()
