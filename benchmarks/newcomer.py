"""The path of a newcomer, timed: from a fresh clone to a distilled, pruned and exported model.

    python benchmarks/newcomer.py              # --write stores
    python benchmarks/newcomer.py --torch 2.13.0   # with that torch, not the newest

Each step is what the README and docs/own_model.rst say: clone, an environment of its own, `pip
install .`, and the code of the page, section by section, in one Python. At the end the exported
program is loaded in a Python that cannot import this package, and must give the pruned model's
outputs. Wall time; nothing but pip's cache is there beforehand. Writes newcomer.*
"""

from __future__ import annotations

import argparse
import doctest
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import write

ROOT = Path(__file__).parents[1]
PAGE = Path("docs/own_model.rst")
# Prints the title and the seconds of a section before the next one starts.
CLOCK = """
print("step", json.dumps([{title!r}, time.perf_counter() - _last]))
_last = time.perf_counter()
"""
CHECK = """
import sys, torch
sys.modules["pyg_stkd"] = None
x, edge_index, expected = torch.load("expected.pt", weights_only=True)
program = torch.export.load("pruned.pt2").module()
torch.testing.assert_close(program(x, edge_index), expected)
"""


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield the title and the code of each section of a page."""
    parts = re.split(r"^(\S.*)\n(?:-+|=+)\n", text, flags=re.MULTILINE)[1:]
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        code = "".join(e.source for e in doctest.DocTestParser().get_examples(body))
        for block in re.findall(r"\.\. code-block:: python\n\n((?: {3}.*\n|\n)+)", body + "\n"):
            code += "".join(line[3:] + "\n" for line in block.splitlines() if line)
        if code:
            yield title, code


def script(page: Path) -> str:
    """Return the code of a page as a script that tells how long each section took."""
    body = "".join(code + CLOCK.format(title=title) for title, code in sections(page.read_text()))
    saved = "torch.save([x, edge_index, pruned(x, edge_index).detach()], 'expected.pt')\n"
    return "import json, time\n_last = time.perf_counter()\n" + body + saved


def timed(title: str, command: list[str], folder: Path) -> tuple[str, float, str]:
    """Run a command; return its title, seconds and output."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{title}: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return title, time.perf_counter() - start, done.stdout


def path(folder: Path, torch: str | None) -> list[tuple[str, float]]:
    """Walk the path in an empty folder; return its steps and their seconds."""
    clone, python = folder / "pyg_stkd", folder / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    own = [f"torch=={torch}"] if torch else []
    steps = [
        timed("git clone", ["git", "clone", "-q", str(ROOT), str(clone)], folder),
        timed("python -m venv", [sys.executable, "-m", "venv", str(folder / "env")], folder),
        timed(
            "pip install .[export,safe], torch with it",
            [*pip, f"{clone}[export,safe]", *own],
            folder,
        ),
    ]
    (folder / "mine.py").write_text(script(clone / PAGE))
    page = timed("the page", [str(python), "mine.py"], folder)
    told = [json.loads(line[5:]) for line in page[2].splitlines() if line.startswith("step ")]
    starting = page[1] - sum(seconds for _, seconds in told)
    steps += [("start and end of Python", starting, ""), *((*step, "") for step in told)]
    (folder / "check.py").write_text(CHECK)
    steps.append(timed("its outputs, without this package", [str(python), "check.py"], folder))
    return [(title, seconds) for title, seconds, _ in steps]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--torch", help="the version of torch (default: the newest)")
    parser.add_argument("--write", action="store_true", help="store the results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = path(Path(folder), args.torch)
    steps.append(("in all", sum(seconds for _, seconds in steps)))
    rows = [{"step": title, "seconds": f"{seconds:.1f}"} for title, seconds in steps]
    for row in rows:
        print(row)
    if args.write:
        note = (
            "Run `python benchmarks/newcomer.py --write`. From a fresh clone to a distilled, "
            "pruned and exported model, by docs/own_model.rst; wall time. How long packages take "
            "to download is the network's."
        )
        write("newcomer", rows, dict(steps), note)


if __name__ == "__main__":
    main()
