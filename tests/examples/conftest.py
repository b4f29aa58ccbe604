"""The examples are scripts: they are found beside each other, as when they are run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the examples, whose modules and those of the papers can be imported."""
    for name in ("matplotlib", "scipy", "tabulate", "torchmetrics", "tqdm"):
        pytest.importorskip(name)
    examples = Path(__file__).parents[2] / "examples"
    for path in (examples / "papers", examples):
        monkeypatch.syspath_prepend(str(path))
    return examples


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets trainings of a few steps end without a better score, which fit would warn of."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:No weights of this training"))
