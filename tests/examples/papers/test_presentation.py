from __future__ import annotations

from pathlib import Path


def test_spread() -> None:
    from presentation import spread

    assert spread([0.5]) == "50.00"
    assert spread([0.5, 0.7]) == "60.00 ± 14.14"
    assert spread([1.0], 1, 1.0) == "1.0"


def test_one_architecture_has_one_latency() -> None:
    from presentation import typical_latency

    times = [(10, 1.0), (10, 9.0), (20, 5.0), (10, 2.0)]
    results = [{"parameters": size, "latency_ms": ms} for size, ms in times]
    assert typical_latency(results) == {10: 2.0, 20: 5.0}


def test_remarks_beside_the_results_are_shown(tmp_path: Path) -> None:
    from matplotlib.figure import Figure
    from presentation import present

    stem = tmp_path / "results.json"
    rows = [{"model": "teacher", "F1": "97.50"}]
    figures = {"scores": (Figure(), "Scores of every seed.")}
    text = present(stem, "Title", "A note.", {"Scores": rows}, figures, {"torch": "2.13"})
    assert text.splitlines()[0] == "Scores"
    assert "| teacher | 97.50 |" in text
    whole = f"A note.\n\n{text}\n\nMeasured with torch 2.13.\n"
    assert stem.with_suffix(".md").read_text() == whole
    (tmp_path / "results.txt").write_text("Widths are\na quarter.\n")
    present(stem, "Title", "A note.", {"Scores": rows}, figures, {"torch": "2.13"})
    for suffix in (".md", ".html"):
        assert "A note. Widths are a quarter." in stem.with_suffix(suffix).read_text()
    assert (tmp_path / "results-scores.png").stat().st_size > 0
    assert "Scores of every seed." in stem.with_suffix(".html").read_text()


def test_labels_are_escaped(tmp_path: Path) -> None:
    from matplotlib.figure import Figure
    from presentation import present

    label, stem = "<script>alert(1)</script> a|b & c", tmp_path / "results.json"
    figures = {"scores": (Figure(), label)}
    text = present(stem, label, label, {label: [{label: label}]}, figures, {"torch": label})
    assert label in text  # for a terminal, as it is
    markdown = stem.with_suffix(".md").read_text()
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; a\\|b &amp; c " in markdown
    for page in (markdown, stem.with_suffix(".html").read_text()):
        assert "<script" not in page
        assert page.count("&lt;script&gt;") >= 5
