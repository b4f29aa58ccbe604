"""What is kept says why, with a line of the code, and the change that the page advises frees it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pyg_stkd.prune import Pruner, Random


def nets() -> ModuleType:
    """Loads the nets that the page of the documentation shows too."""
    path = Path(__file__).parent / "kept_nets.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


CASES, INPUTS = nets().CASES, nets().INPUTS


def pruned(build: Any) -> Pruner:
    torch.manual_seed(0)
    return Pruner(build(), Random(0), keep=0.8, example=(INPUTS,))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.net.__name__)
@pytest.mark.filterwarnings("ignore:These channels are kept")
def test_reasons(case: Any) -> None:
    pruner = pruned(case.net)
    rows = [row for row in pruner.explain() if row.name == case.kept]
    assert len(rows) == 1
    assert case.why in rows[0].why
    assert set(pruner.widths) == {"b"}  # one layer that is kept blocks no other
    pruner.step()
    torch.testing.assert_close(pruner.compact().eval()(INPUTS), pruner.model.eval()(INPUTS))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.freed], ids=lambda case: case.net.__name__
)
def test_what_frees_them(case: Any) -> None:
    pruner = pruned(case.freed)
    assert all(row.is_natural for row in pruner.explain())
    assert any(case.kept in name.split("+") for name in pruner.widths)
    pruner.step()
    small = pruner.compact().eval()
    torch.testing.assert_close(small(INPUTS), pruner.model.eval()(INPUTS))
