"""What the examples show of their stored results: a table file, plots and a report."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from pyg_stkd.report import Report, gap, write_atomic

Rows = Sequence[dict[str, str]]


def conclude(
    args: argparse.Namespace,
    folder: Path,
    collect: Callable[[], Any],
    show: Callable[[Any, Path], str],
) -> None:
    """Store and show what an experiment collects, or show stored results again (``--redraw``)."""
    if args.redraw is not None:
        print(show(json.loads(args.redraw.read_text()), args.redraw))
        return
    results, path = collect(), folder / "results.json"
    write_atomic(path, json.dumps(results, separators=(",", ":")).encode())
    print(show(results, path))
    print(f"Report: {path.with_suffix('.html')}")


def present(
    stem: Path,
    title: str,
    note: str,
    tables: Mapping[str, Rows],
    figures: Mapping[str, tuple[Figure, str]],
    machine: Mapping[str, Any],
    *,
    dpi: int = 110,
) -> str:
    """Write tables, plots and report beside the raw results; return the tables as text.

    Args:
        stem (Path): The path of the raw results.
        title (str): The title of the report.
        note (str): How the figures came about. What the raw results do not tell is added from
            the text file beside them, if there is one.
        tables (dict): Rows by title.
        figures (dict): Figures with their captions, by a name for the file.
        machine (dict): What the results were measured with.
        dpi (int): Resolution of the plots. (default: :obj:`110`)
    """
    remarks = stem.with_suffix(".txt")
    if remarks.exists():
        note += " " + " ".join(remarks.read_text().split())
    measured = f"Measured with {', '.join(f'{k} {v}' for k, v in machine.items())}."
    text = "\n\n".join(f"{head}\n\n{_markdown(rows)}" for head, rows in tables.items())
    # Markdown passes HTML on, so what is written for it is escaped, as the report is.
    escaped = {
        escape(head, quote=False): [
            {_cell(key): _cell(value) for key, value in row.items()} for row in rows
        ]
        for head, rows in tables.items()
    }
    parts = [escape(note, quote=False)]
    parts += [f"{head}\n\n{_markdown(rows)}" for head, rows in escaped.items()]
    parts.append(escape(measured, quote=False))
    write_atomic(stem.with_suffix(".md"), ("\n\n".join(parts) + "\n").encode())
    report = Report(title)
    report.text(note.removeprefix(f"{title}. "))
    for head, rows in tables.items():
        report.table(rows, head)
    for name, (figure, caption) in figures.items():
        report.figure(figure, caption)
        figure.savefig(stem.with_name(f"{stem.stem}-{name}.png"), dpi=dpi)
    report.text(measured)
    report.save(stem.with_suffix(".html"))
    return text


def _markdown(rows: Rows) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _cell(text: str) -> str:
    return escape(text, quote=False).replace("|", "\\|")


def by_method(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each method, without those of tuning."""
    final: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        if "trial" not in result:
            final.setdefault(result["method"], []).append(result)
    return final


def spread(values: list[float], digits: int = 2, scale: float = 100.0) -> str:
    """Return mean and standard deviation as text."""
    mean = scale * statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {scale * statistics.stdev(values):.{digits}f}"


def compare(
    teacher: list[float], alone: list[float], method: list[float], digits: int = 2
) -> dict[str, str]:
    """Return the columns of a method's paired gain and its share of the teacher's lead.

    Each has its 95 % interval over the seeds. A gain that this cannot tell from 0 is marked, and
    there is no share of a lead that it cannot tell from 0.
    """
    teacher = teacher * len(alone) if len(teacher) == 1 else teacher
    if len(alone) < 2:
        return {"gain over alone": "", "gap closed": ""}
    found = gap(teacher, alone, method)
    mark = "" if found.gain.excludes_zero else ", not told from 0"
    return {
        "gain over alone": f"{found.gain:.{digits}f}{mark}",
        "gap closed": f"{found.closed:.0%}" if found.lead.excludes_zero else "no clear gap",
    }


def typical_latency(results: list[dict[str, Any]]) -> dict[int, float]:
    """Return the median milliseconds of each architecture, known by its number of parameters.

    What a model was trained with does not change its speed, and other work on the machine does.
    """
    times: dict[int, list[float]] = {}
    for result in results:
        times.setdefault(result["parameters"], []).append(result["latency_ms"])
    return {size: statistics.median(values) for size, values in times.items()}
