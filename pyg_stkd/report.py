"""Self-contained HTML reports of tables and figures (needs matplotlib and tabulate)."""

from __future__ import annotations

import base64
import io
import os
import platform
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch_geometric.typing
from tabulate import tabulate

import pyg_stkd
from pyg_stkd.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "machine", "write_atomic"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: left }}
figure {{ margin: 1.5rem 0 }} img {{ max-width: 100% }} figcaption {{ color: #555 }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


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
        self._parts: list[str] = []

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, rows: Sequence[dict[str, Any]], caption: str = "") -> None:
        """Add a table: a row for each dictionary, a column for each key."""
        if caption:
            self.text(caption)
        self._parts.append(tabulate(rows, headers="keys", tablefmt="html", disable_numparse=True))

    def figure(self, figure: Figure, caption: str = "") -> None:
        """Add a matplotlib figure, embedded as a picture."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
        data = base64.b64encode(buffer.getvalue()).decode()
        self._parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def html(self) -> str:
        """Return the page."""
        return _PAGE.format(title=escape(self.title), body="\n".join(self._parts))

    def save(self, path: str | Path) -> None:
        """Write the page, under a temporary name first."""
        write_atomic(path, self.html().encode())


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
