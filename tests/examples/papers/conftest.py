"""The examples are scripts: they are found beside each other, as when they are run."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "papers"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("matplotlib", "tabulate", "torchmetrics", "tqdm"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return EXAMPLES
