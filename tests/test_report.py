from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pyg_stkd.report import Interval, Report, gap, interval, write_atomic


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


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_intervals_are_those_of_students_t(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).normal(3.0, 2.0, n)
    expected = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    found = interval(values.tolist())
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), *expected))


def test_a_gap_is_paired_by_seed() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(0, 10, 8)  # of each seed: far more than what methods differ in
    alone, teacher = 60 + level, 80 + level + rng.normal(0, 0.5, 8)
    method = alone + 15 + rng.normal(0, 0.5, 8)
    found = gap(teacher.tolist(), alone.tolist(), method.tolist())
    assert found.gain == interval((method - alone).tolist())
    assert found.lead == interval((teacher - alone).tolist())
    assert found.gain.high - found.gain.low < 2
    assert found.closed.mean == pytest.approx(found.gain.mean / found.lead.mean)
    assert found.closed.mean == pytest.approx(0.75, abs=0.03)
    assert found.closed.high - found.closed.low < 0.1


def test_the_share_of_a_gap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        alone = 60 + rng.normal(0, 1, 5)
        teacher, method = alone + 20 + rng.normal(0, 2, 5), alone + 16 + rng.normal(0, 1, 5)
        closed = gap(teacher.tolist(), alone.tolist(), method.tolist()).closed
        hits += closed.low <= 0.8 <= closed.high
    assert 0.91 < hits / 400 < 0.99


def test_errors_that_fall_are_gaps_too() -> None:
    found = gap([1.0, 1.1], [2.0, 2.2], [1.5, 1.6])
    assert found.gain.mean == pytest.approx(-0.55)
    assert found.closed.mean == pytest.approx(0.55 / 1.05)


def test_intervals_tell_from_zero() -> None:
    assert Interval(1, 0.1, 2).excludes_zero
    assert Interval(-1, -2, -0.1).excludes_zero
    assert not Interval(0.5, -0.1, 1).excludes_zero


def test_scores_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"must have the same seeds \(got \[2, 2, 1\]\)"):
        gap([1, 2], [1, 2], [1])
    with pytest.raises(ValueError, match=r"'values' must be at least two \(got 1\)"):
        gap([1], [2], [3])
    assert np.isnan(gap([1, 2], [1, 2], [3, 4]).closed.mean)  # there is no gap to close
    with pytest.raises(ValueError, match=r"'values' must be finite \(got nan\)"):
        interval([1.0, float("nan")])
