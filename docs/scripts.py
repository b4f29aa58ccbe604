"""Write the code of each page as a script, as a reader would paste it, for the type checker.

python docs/scripts.py build/tutorials
"""

from __future__ import annotations

import doctest
import sys
from pathlib import Path


def script_of(page: Path) -> str:
    """Return the examples of a page as a module, one function: each page has its own names."""
    examples = doctest.DocTestParser().get_examples(page.read_text(encoding="utf-8"))
    return "".join(example.source for example in examples)


def main(folder: Path) -> None:
    """Write a script for each page that has code."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in sorted(Path(__file__).parent.glob("*.rst")):
        if code := script_of(page):
            (folder / f"{page.stem}_page.py").write_text(code, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
