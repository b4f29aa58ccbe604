"""A self-contained HTML page of text, tables and figures (figures need matplotlib)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from pyg_stkd.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report"]

# Whatever is given, titles, captions and cells, is text and not HTML.
_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText }
h1 { font-size: clamp(1.5rem, 5vw, 2.2rem); line-height: 1.2 }
.wide { overflow-x: auto } .wide table { min-width: min(40rem, 6rem * var(--columns)) }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #8886; text-align: left }
figure { margin: 1.5rem 0 } img { max-width: 100%; background: #fff } figcaption { opacity: .75 }
</style></head><body>
<h1>{{ title }}</h1>
{% for part in parts %}
{% if part.text %}
<p>{{ part.text }}</p>
{% elif part.columns %}
<div class="wide" style="--columns: {{ part.columns | length }}"><table>
<thead><tr>{% for column in part.columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
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
