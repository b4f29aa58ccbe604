"""The code of a page as a script: what a reader would paste, and nothing that is printed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "docs"))
from scripts import main, script_of


def test_a_script_is_the_code_without_prompts_and_output(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text("Words.\n\n>>> def f(x):\n...     return 2 * x\n>>> f(3)\n6\n", "utf-8")
    assert script_of(page) == "def f(x):\n    return 2 * x\nf(3)\n"


def test_every_page_with_code_becomes_a_module(tmp_path: Path) -> None:
    main(tmp_path / "pages")
    written = {
        path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "pages").iterdir()
    }
    assert {"quickstart_page", "pruning_page", "traffic_page", "mlp_page"} <= written.keys()
    for name, code in written.items():
        compile(code, name, "exec")
        assert ">>>" not in code


@pytest.mark.parametrize("text", ["", "Words, no code.\n"])
def test_a_page_without_code_has_no_script(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.rst"
    page.write_text(text, "utf-8")
    assert script_of(page) == ""
