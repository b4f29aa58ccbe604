from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from pyg_stkd.nn.sequence.cheb_filter import cheb_filter
from pyg_stkd.nn.sequence.operators.graph_operator import propagate
from pyg_stkd.nn.sequence.operators.spectral_operators import cheb_operator

cheb_filter_module = sys.modules["pyg_stkd.nn.sequence.cheb_filter"]
EDGES = torch.tensor([[0, 1, 2, 3, 3, 1, 0], [1, 2, 0, 0, 1, 2, 0]])
WEIGHT = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.double)


@pytest.mark.parametrize("propagation", ["dense", "sparse"])
@pytest.mark.parametrize(("first", "width"), [(0, 2), (1, 2), (1, 1)])
def test_first_and_second_derivatives(propagation: str, first: int, width: int) -> None:
    operator = cheb_operator(EDGES, WEIGHT, 5, dtype=torch.double, propagation=propagation)
    count = 3 - first if width == 2 else 1  # a narrower output is propagated itself
    weights = [torch.randn(width, 2).double().requires_grad_() for _ in range(count)]
    bias = torch.randn(width, dtype=torch.double, requires_grad=True)
    x = torch.randn(1, 2, 5, 2, dtype=torch.double, requires_grad=True)

    def run(x: torch.Tensor, bias: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return cheb_filter(operator, x, weights, bias, first)

    matrix = operator.to_dense()
    terms = [torch.eye(5).double(), matrix, 2 * matrix @ matrix - torch.eye(5).double()]
    expected = bias + sum(terms[first + k] @ x @ w.t() for k, w in enumerate(weights))
    torch.testing.assert_close(run(x, bias, *weights), expected)
    assert gradcheck(run, (x, bias, *weights))
    assert gradgradcheck(run, (x, bias, *weights))


@pytest.mark.parametrize(("first", "count"), [(0, 3), (1, 1), (1, 2)])
@pytest.mark.parametrize("batch", [(2, 3), (1, 1), (0, 4)])
def test_wide_signals_are_filtered_slice_by_slice(
    first: int, count: int, batch: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As columns are, which narrow signals and dense matrices have; in the order of the input."""
    operator = cheb_operator(EDGES, WEIGHT, 5, dtype=torch.double, propagation="sparse")
    weights = [torch.randn(6, 4).double().requires_grad_() for _ in range(count)]
    bias = torch.randn(6, dtype=torch.double, requires_grad=True)
    x = torch.randn(*batch, 5, 4, dtype=torch.double, requires_grad=True)
    seen: list[int] = []

    def note(x: torch.Tensor, *args: Any) -> torch.Tensor:
        seen.append(x.dim())
        return propagate(x, *args)

    monkeypatch.setattr(cheb_filter_module, "propagate", note)

    def run(x: torch.Tensor, bias: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return cheb_filter(operator, x, weights, bias, first)

    results = []
    for least, dim in ((32, 2), (4, 3)):
        monkeypatch.setattr(cheb_filter_module, "_WIDE", least)
        out = run(x, bias, *weights)
        results.append([out, *torch.autograd.grad(out.sin().sum(), (x, bias, *weights))])
        assert set(seen) == {dim}
        seen.clear()
    torch.testing.assert_close(*results)
    if batch == (2, 3):
        assert gradcheck(run, (x, bias, *weights))
        assert gradgradcheck(run, (x, bias, *weights))
