from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

HOSTILE = [
    "<!--<script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"quoted\" & 'single'",
    "]]>",
    "\u2028\u2029",
    "{{ 7 * 7 }}{% raw %}",
]


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def results(text: str) -> dict[str, object]:
    return {
        "title": text,
        "scene": [{"label": text, "pos": [[0, 0, 0]], "anchor": 0}],
        "features": {
            "teacher": {"": [[1]]},
            "student": {text: [[1]]},
            "LSP": {text: [[2]]},
        },
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_labels_neither_end_the_script_nor_start_another(text: str) -> None:
    from modelnet_page import page

    whole = page(results(text))
    assert Elements(whole).found == Elements(page(results("plain"))).found
    inside = whole[whole.index("<script>") + 8 :]
    assert inside.count("</script") == 1
    assert "<!--" not in whole
    data = json.loads(re.search(r"const DATA = (.*);\n", whole).group(1))  # type: ignore[union-attr]
    assert data["shapes"][0]["label"] == text
    assert data["rows"][1]["cells"][0] == {"caption": f"epoch {text}", "distances": [[2]]}
