"""Self-contained HTML reports of tables and figures (figures need matplotlib)."""

from __future__ import annotations

import base64
import io
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch_geometric.typing
from jinja2 import Environment

import pyg_stkd
from pyg_stkd import checks
from pyg_stkd.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Gap", "Interval", "Report", "gap", "interval", "machine", "write_atomic"]

# Whatever is given, titles, captions and cells, is text and not HTML.
_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: left }
figure { margin: 1.5rem 0 } img { max-width: 100% } figcaption { color: #555 }
</style></head><body>
<h1>{{ title }}</h1>
{% for part in parts %}
{% if part.text %}
<p>{{ part.text }}</p>
{% elif part.columns %}
<table>
<thead><tr>{% for column in part.columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% elif part.picture %}
<figure><img alt="{{ part.caption }}" src="data:image/png;base64,{{ part.picture }}">
<figcaption>{{ part.caption }}</figcaption></figure>
{% endif %}
{% endfor %}
</body></html>
"""
)


class Report:
    r"""A page of text, tables and figures in one HTML file that needs nothing else.

    Args:
        title (str): The heading of the page.

    Example:
        >>> report = Report("Students")
        >>> report.table([{"model": "GAT", "F1": 0.9}], caption="One run.")
        >>> "<td>GAT" in report.html()
        True
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[dict[str, Any]] = []

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append({"text": text})

    def table(self, rows: Sequence[dict[str, Any]], caption: str = "") -> None:
        """Add a table: a row for each dictionary, a column for each key."""
        if caption:
            self.text(caption)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [["" if (x := row.get(key)) is None else x for key in columns] for row in rows]
        self._parts.append({"columns": columns, "rows": cells})

    def figure(self, figure: Figure, caption: str = "") -> None:
        """Add a matplotlib figure, embedded as a picture."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
        picture = base64.b64encode(buffer.getvalue()).decode()
        self._parts.append({"picture": picture, "caption": caption})

    def html(self) -> str:
        """Return the page."""
        return _PAGE.render(title=self.title, parts=self._parts)

    def save(self, path: str | Path) -> None:
        """Write the page, under a temporary name first."""
        write_atomic(path, self.html().encode())


@dataclass(frozen=True)
class Interval:
    r"""A mean and the interval that holds the true one at a confidence of 95 %.

    A format applies to each of the three numbers.

    Args:
        mean (float): The mean.
        low (float): The lower end.
        high (float): The upper end.

    Example:
        >>> str(Interval(1.5, 0.25, 2.75)), f"{Interval(0.5, 0.25, 0.75):.0%}"
        ('1.50 (0.25 to 2.75)', '50% (25% to 75%)')
    """

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        mean, low, high = (format(x, spec or ".2f") for x in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"

    def __str__(self) -> str:
        return format(self, "")

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean is told from 0 at this confidence."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Gap:
    r"""What a method gains over the student alone, and the share of the teacher's lead that it is.

    Args:
        gain (Interval): The mean paired difference to the student alone.
        closed (Interval): The share of the gap to the teacher, 1 for all of it; NaN without one.
            It says little where :obj:`lead` does not exclude 0.
        lead (Interval): The gap itself, teacher less student alone.
    """

    gain: Interval
    closed: Interval
    lead: Interval


def interval(values: Sequence[float]) -> Interval:
    r"""Return the mean of values and its 95 % interval by Student's t.

    Args:
        values (list of float): At least two, such as paired differences, one a seed.

    Raises:
        TypeError: If one is no number.
        ValueError: If there are fewer than two, or one is not finite.

    Example:
        >>> print(interval([1.0, 2.0, 3.0]))
        2.00 (-0.48 to 4.48)
    """
    values = [checks.number("values", value) for value in values]
    if len(values) < 2:
        raise ValueError(f"'values' must be at least two (got {len(values)})")
    mean = statistics.fmean(values)
    half = _student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def gap(teacher: Sequence[float], alone: Sequence[float], method: Sequence[float]) -> Gap:
    r"""Return what a method gains over the student alone, paired by seed, with 95 % intervals.

    The share of the gap closed is the ratio of means :math:`r = \bar{d} / \bar{g}` of the gains
    :math:`d` and the gaps :math:`g`; its interval is that of the mean of :math:`d - r g`, divided
    by :math:`\bar{g}` (the delta method), so that the spread of the teachers counts too.

    Args:
        teacher (list of float): Scores of the teachers, one a seed.
        alone (list of float): Scores of the student alone, of the same seeds in the same order.
        method (list of float): Scores of the method, likewise.

    Raises:
        TypeError: If a score is no number.
        ValueError: If the numbers of scores differ, there are fewer than two, or one is not finite.

    Example:
        >>> found = gap(teacher=[90.0, 92.0], alone=[80.0, 81.0], method=[88.0, 89.5])
        >>> print(found.gain)
        8.25 (5.07 to 11.43)
        >>> print(f"{found.closed:.0%}")
        79% (61% to 96%)
    """
    sizes = [len(scores) for scores in (teacher, alone, method)]
    if len(set(sizes)) > 1:
        raise ValueError(f"'teacher', 'alone' and 'method' must have the same seeds (got {sizes})")
    gains = [m - a for m, a in zip(method, alone, strict=True)]
    leads = [t - a for t, a in zip(teacher, alone, strict=True)]
    gain, lead = interval(gains), interval(leads)
    if lead.mean == 0:
        return Gap(gain, Interval(math.nan, math.nan, math.nan), lead)
    share = gain.mean / lead.mean
    rest = interval([d - share * g for d, g in zip(gains, leads, strict=True)])
    half = (rest.high - rest.low) / 2 / abs(lead.mean)
    return Gap(gain, Interval(share, share - half, share + half), lead)


@lru_cache
def _student_t(freedom: int, probability: float = 0.975) -> float:
    """Return a quantile of Student's t.

    Example:
        >>> [round(_student_t(n), 3) for n in (1, 2, 9, 1000)]
        [12.706, 4.303, 2.262, 1.962]
    """
    # With t = sqrt(n) tan(u) the density is that of cos(u)^(n - 1): smooth, on a short range.
    steps = 2000
    norm = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def below(u: float) -> float:
        points = [math.cos(u * i / steps) ** (freedom - 1) for i in range(steps + 1)]
        total = points[0] + points[-1] + 4 * sum(points[1:-1:2]) + 2 * sum(points[2:-1:2])
        return 0.5 + norm * total * u / steps / 3  # Simpson's rule

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def machine() -> dict[str, str | int | bool]:
    r"""Return the hardware and the versions that a figure was measured with.

    Example:
        >>> machine()["torch"] == torch.__version__
        True
    """
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": name,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda or "none",
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "torch_scatter": torch_geometric.typing.WITH_TORCH_SCATTER,
        "torch_sparse": torch_geometric.typing.WITH_TORCH_SPARSE,
        "pyg_stkd": pyg_stkd.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
