"""Pages that are written from what the tests and the benchmarks know."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch_geometric.nn
from torch import nn

from pyg_stkd.prune import Pruner, Random
from pyg_stkd.prune.structure.registry import find_rule

__all__ = ["kept_page", "layers_page", "result_title"]

ROOT = Path(__file__).parents[1]
NETS = ROOT / "tests" / "prune" / "following" / "kept_nets.py"
ZOO = ROOT / "benchmarks" / "results" / "zoo.json"
# The parts of torch_geometric.nn, and what of them is no layer.
PARTS = {
    "conv": "Convolutions",
    "norm": "Norms",
    "pool": "Pools",
    "aggr": "Aggregations",
    "dense": "Dense layers",
    "attention": "Attention",
}
BASES = {"MessagePassing": "the base of all", "Aggregation": "the base of all"}
UNTRIED = {
    "WLConv": "hashes of colours, without channels",
    "MultiAggregation": "as the aggregations in it",
}


def kept_page() -> str:
    """The nets of which something is kept, with what explain() says, as reStructuredText."""
    cases = _load(NETS).CASES
    blocks = []
    for case in cases:
        title, _, text = inspect.cleandoc(case.net.__doc__).partition("\n\n")
        title = title.rstrip(".")
        blocks += [title, "-" * len(title), "", text, "", *_code(case.net), *_rows(case.net)]
        if case.freed is not None:
            blocks += ["Free is:", "", *_code(case.freed)]
    return "\n".join([*blocks, ""])


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


def _code(net: type[nn.Module]) -> list[str]:
    own = [vars(net)[name] for name in ("__init__", "forward") if name in vars(net)]
    text = "\n\n".join(textwrap.dedent(inspect.getsource(function)) for function in own)
    return [".. code-block:: python", "", *textwrap.indent(text, "   ").splitlines(), ""]


def _rows(net: type[nn.Module]) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = Pruner(net(), Random(0), example=(_load(NETS).INPUTS,))
    lines = ["``pruner.explain()`` has:", ""]
    for row in pruner.explain():
        where = f" (``{row.where}``)" if row.where else ""
        help_ = f"; free by {row.freed_by}" if row.freed_by else ""
        lines.append(f"- ``{row.name}``: {_plain(row.why)}{where}{help_}")
    return [*lines, ""]


def layers_page() -> str:
    """All layers of PyG and whether they are pruned, by the last run of the zoo."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(ZOO.read_text(encoding="utf-8")):
        if row["family"] == "layers of PyG":
            rows.setdefault(row["model"].split(",")[0], []).append(row)
    lines = []
    for part, title in PARTS.items():
        lines += [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1", ""]
        lines += _cells("layer", "how", "state", "what is kept, and why")
        module = getattr(torch_geometric.nn, part)
        for name in sorted(module.__all__):
            layer = getattr(module, name)
            if inspect.isclass(layer) and issubclass(layer, nn.Module):
                lines += _cells(f"``{name}``", *_state(name, layer, rows.get(name, [])))
        lines.append("")
    return "\n".join([*lines, ""])


def _state(
    name: str, layer: type[nn.Module], rows: Sequence[dict[str, Any]]
) -> tuple[str, str, str]:
    """How the channels of a layer are found, whether they go, and what of them stays."""
    if name in BASES:
        return "", "", BASES[name]
    if not rows:
        return "", "not tried", UNTRIED.get(name, "")
    how = "rule" if find_rule(layer) is not None else "followed"
    ran = [row for row in rows if not row["reason"].startswith("does not run")]
    if not ran:
        return how, "not tried", _plain(rows[0]["reason"].removeprefix("does not run: "))
    pruned = [row for row in ran if row["pruned"]]
    kept = [part for row in pruned for part in row.get("kept", [])]
    names: dict[str, list[str]] = {}
    for part in kept:
        names.setdefault(_plain(part["why"]), []).append(f"``{part['name']}``")
    listed = [f"{_some(of)}: {why}" for why, of in names.items()]
    if not pruned:
        why = ran[0]["reason"].partition("are kept)")[2].lstrip("; ")
        return how, "kept", _plain(why or ran[0]["reason"])
    return how, "pruned in part" if kept else "pruned", "; ".join(listed[:3])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    text = " ".join(text.split())
    text = text if len(text) <= 160 else f"{text[:160]} ..."
    return "".join(f"\\{c}" if c in "\\`*_|<>" else c for c in text)


def _cells(*cells: str) -> list[str]:
    first, *rest = (cell or "\\ " for cell in cells)
    return [f"   * - {first}", *(f"     - {cell}" for cell in rest)]


def result_title(page: Path) -> str:
    """Return the title that a page starts with, or of a benchmark what it says of itself."""
    script = next((ROOT / "benchmarks").rglob(f"{page.stem}.py"), None)
    text = page.read_text(encoding="utf-8")
    if script is not None:
        text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or page.stem
    return re.split(r"[.:](?:\s|$)", text, maxsplit=1)[0]
