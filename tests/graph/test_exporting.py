from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyg_stkd.graph import is_exporting, is_transforming, wants_plain
from pyg_stkd.graph.exporting import _is_exporting

ANSWERS: list[tuple[bool, bool, bool]] = []


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        ANSWERS.append((is_exporting(), is_transforming(), wants_plain()))
        return x * 2


@pytest.fixture(autouse=True)
def forget() -> None:
    ANSWERS.clear()


def test_neither_in_plain_code() -> None:
    Asks()(torch.ones(2))
    assert ANSWERS == [(False, False, False)]


@pytest.mark.skipif(_is_exporting is bool, reason="this torch cannot tell")
def test_export() -> None:
    torch.export.export(Asks(), (torch.ones(2),), strict=False)
    assert set(ANSWERS) == {(True, False, True)}


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, x: torch.func.vmap(f)(x),
        lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
    ],
)
def test_transforms(transform: object) -> None:
    model = Asks()
    transform(model, torch.ones(2))  # type: ignore[operator]
    assert set(ANSWERS) == {(False, True, True)}
    model(torch.ones(2))
    assert ANSWERS[-1] == (False, False, False)
