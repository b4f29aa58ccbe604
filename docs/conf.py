"""Sphinx configuration. API pages are written from each package's ``__all__`` at build time."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

from figures import FIGURES, write_figures  # noqa: E402
from sphinx.ext import autosummary  # noqa: E402
from tables import kept_page, layers_page, result_title  # noqa: E402

import pyg_stkd  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pyg_stkd"
author = "pyg_stkd contributors"
copyright = author
version = release = pyg_stkd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["folded.css"]
html_title = f"pyg_stkd {release}"

autosummary_generate = False  # one page a package, written below
# A first sentence does not end at "(Eq. 3)".
autosummary.WELL_KNOWN_ABBREVIATIONS = (*autosummary.WELL_KNOWN_ABBREVIATIONS, "Eq.", "Eqs.")
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # of torch's and PyG's classes, whose markup is not ours
autodoc_mock_imports = ["lightning", "matplotlib", "torchmetrics"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shapes", "Inputs", "Outputs"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
# Result tables are cut out of other pages: they may start at any level of heading.
suppress_warnings = ["myst.header", "myst.xref_missing"]


def public_modules() -> list[str]:
    """Lists the package, its sub-packages and its top-level modules, shortest path first."""
    names = ["pyg_stkd", "pyg_stkd.prune.masked.schedule"]
    for module in pkgutil.walk_packages(pyg_stkd.__path__, "pyg_stkd."):
        private = any(part.startswith("_") for part in module.name.split("."))
        if not private and module.name.count(".") == 1:
            names.append(module.name)
    return sorted(names, key=lambda name: (name.count("."), name))


def load(name: str) -> ModuleType:
    """Imports a module, with stand-ins for the optional packages."""
    from sphinx.ext.autodoc.mock import mock

    with mock(autodoc_mock_imports):
        return importlib.import_module(name)


def api_page(name: str, module: ModuleType, done: dict[int, str]) -> str:
    """Writes one page: a table of the public names, then each of them in full.

    A name that an earlier page documents (``done``) is listed with a link to it.
    """
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", ""]
    lines += [f".. currentmodule:: {name}", ""]
    own, links = [], []
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.ismodule(value) or public.startswith("__"):
            continue
        home = done.setdefault(id(value), f"{name}.{public}")
        if home == f"{name}.{public}":
            own.append((public, value))
        else:
            links.append((public, home))
    if own:
        lines += [".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {public}" for public, _ in own]
    lines += [""]
    for public, home in links:
        lines += [f"- :obj:`{public} <{home}>` (documented as ``{home}``)"]
    for public, value in own:
        kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
        lines += ["", f".. auto{kind}:: {public}"]
        if kind == "class":
            lines += ["   :members:"]
            shown = any(base is not object and base.__name__[0] != "_" for base in value.__bases__)
            lines += ["   :show-inheritance:"] if shown else []
    return "\n".join([*lines, ""])


def write(path: Path, text: str) -> None:
    """Writes a page unless it is already there, so that unchanged pages are not built again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_api(folder: Path) -> None:
    """Writes an API page for each public module and an index of them."""
    folder.mkdir(exist_ok=True)
    done: dict[int, str] = {}
    modules = {name: load(name) for name in public_modules()}
    pages = [name for name, module in modules.items() if getattr(module, "__all__", None)]
    for name in sorted(pages, key="pyg_stkd".__eq__):  # last: its names are at home elsewhere
        write(folder / f"{name}.rst", api_page(name, modules[name], done))
    for path in folder.glob("*.rst"):
        if path.stem not in {*pages, "index"}:
            path.unlink()
    text = ["API", "===", "", ".. autosummary::", "", *(f"   {p}" for p in pages), ""]
    text += [".. toctree::", "   :maxdepth: 1", "   :hidden:", "", *(f"   {p}" for p in pages)]
    write(folder / "index.rst", "\n".join([*text, ""]))


def add_figure(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Shows the figure of a loss below its first sentence."""
    short = name.rpartition(".")[2]
    if what == "class" and short in FIGURES:
        at = lines.index("") if "" in lines else len(lines)
        drawn = FIGURES[short].__doc__ or ""
        lines[at:at] = ["", f".. image:: /_figures/{short}.svg", f"   :alt: {drawn}", ""]


def write_results(folder: Path) -> None:
    """Copies the tables and plots of the benchmarks next to an index of them."""
    source = ROOT / "benchmarks" / "results"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pages = sorted(source.glob("*.md")) if source.is_dir() else []
    for path in [*source.glob("*.png"), *source.glob("*.svg")]:
        shutil.copy2(path, folder / path.name)
    for path in pages:
        picture = path.with_suffix(".png")
        shown = f"\n![The same as a picture]({picture.name})\n" if picture.exists() else ""
        text = path.read_text(encoding="utf-8")
        write(folder / path.name, f"# {result_title(path)}\n\n{text}{shown}")
    text = [".. toctree::", "   :maxdepth: 1", "", *(f"   {path.stem}" for path in pages), ""]
    empty = ["No results are stored yet: ``make bench`` writes them.", ""]
    title = ["Tables", "======", ""]
    write(folder / "index.rst", "\n".join([*title, *(text if pages else empty)]))


def write_tables(folder: Path) -> None:
    """Writes what pages include of the tests and of the zoo."""
    folder.mkdir(exist_ok=True)
    write(folder / "kept.txt", kept_page())
    write(folder / "layers.txt", layers_page())


def setup(app: Sphinx) -> None:
    """Writes the generated pages before Sphinx looks for sources."""
    app.connect("builder-inited", lambda _: write_api(DOCS / "api"))
    app.connect("builder-inited", lambda _: write_results(DOCS / "_results"))
    app.connect("builder-inited", lambda _: write_tables(DOCS / "_tables"))
    app.connect("builder-inited", lambda _: write_figures(DOCS / "_figures"))
    app.connect("autodoc-process-docstring", add_figure)
