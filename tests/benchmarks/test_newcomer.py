"""Tests of benchmarks/newcomer.py: the code of a page, section by section, as one script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from newcomer import PAGE, ROOT, script, sections

TEXT = """Title
=====

First
-----

>>> a = 1
>>> for i in range(2):
...     a += i
>>> a
2

Second, without code
--------------------

Words.

Third
-----

.. code-block:: python

   b = a + 1

   assert b == 3

End.
"""


def test_sections_have_the_code_of_examples_and_blocks() -> None:
    code = "a = 1\nfor i in range(2):\n    a += i\na\n"
    assert list(sections(TEXT)) == [("First", code), ("Third", "b = a + 1\nassert b == 3\n")]


def test_the_script_tells_the_time_of_each_section(tmp_path, capsys) -> None:
    page = tmp_path / "page.rst"
    page.write_text(TEXT)
    timed = script(page).rpartition("torch.save")[0]  # of tensors that only the real page has
    exec(compile(timed, "page", "exec"), {})
    told = [json.loads(line[5:]) for line in capsys.readouterr().out.splitlines()]
    assert [title for title, _ in told] == ["First", "Third"]
    assert all(0 <= seconds < 10 for _, seconds in told)


def test_the_page_ends_with_an_export() -> None:
    *_, (title, code) = sections((ROOT / PAGE).read_text())
    assert title == "Export"
    assert "torch.export.save(program" in code
