"""One page of all bars of scale and production: each benchmark stores its own part.

    python benchmarks/scale.py          # write results/scale.md anew from results/scale.json

A part is written by the command that it names: ``teacher_cache.py``, ``large_graph.py``,
``compiled.py``, ``precision.py``, ``deployed.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness import RESULTS
from tabulate import tabulate

from pyg_stkd.report import machine, write_atomic

PATH = RESULTS / "scale.json"


def store(part: str, rows: Sequence[dict[str, Any]], command: str, note: str, raw: Any) -> None:
    """Put the rows of one benchmark, with the command and the machine, into the page."""
    parts = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    about = {"command": command, "note": note, "machine": machine()}
    parts[part] = {**about, "rows": list(rows), "raw": raw}
    text = json.dumps(dict(sorted(parts.items())), indent=1)
    write_atomic(PATH, f"{text}\n".encode())
    write_atomic(PATH.with_suffix(".md"), page(parts).encode())


def page(parts: dict[str, Any]) -> str:
    """Return all parts as Markdown."""
    blocks = []
    for name, part in sorted(parts.items()):
        info = part["machine"]
        where = f"{info['cpu']}, {info['threads']} thread(s)"
        versions = f"torch {info['torch']}, PyG {info['torch_geometric']}"
        table = tabulate(part["rows"], headers="keys", tablefmt="github", disable_numparse=True)
        blocks += [
            f"## {name}",
            f"`{part['command']}`: {where}; {versions}; {info['date']}. {part['note']}",
            table,
        ]
    return "\n\n".join(blocks) + "\n"


if __name__ == "__main__":
    every = json.loads(PATH.read_text(encoding="utf-8"))
    write_atomic(PATH.with_suffix(".md"), page(every).encode())
