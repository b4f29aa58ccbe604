from __future__ import annotations

from pathlib import Path

import pytest

from pyg_stkd.report import Report, write_atomic


def test_a_report_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    report = Report("A < B")
    report.text("1 & 2")
    report.table([{"model": "<GAT>", "F1": "0.9"}, {"items": 7, "model": None}], caption="a > b")
    report.figure(figure, caption="curve")
    report.save(tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text()
    assert "<title>A &lt; B</title>" in page
    assert "<p>1 &amp; 2</p>" in page
    assert "<p>a &gt; b</p>" in page
    assert "<tr><th>model</th><th>F1</th><th>items</th></tr>" in page
    assert "<tr><td>&lt;GAT&gt;</td><td>0.9</td><td></td></tr>" in page
    assert "<tr><td></td><td></td><td>7</td></tr>" in page
    assert "<figcaption>curve</figcaption>" in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
