from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pyg_stkd.functional.neighbours import knn_search
from pyg_stkd.functional.neighbours.knn import knn_graph


def batch_of(sizes: Sequence[int]) -> Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def test_the_chunk_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of([140, 140, 70])
    x = torch.randn(350, 6, dtype=torch.float64)
    expected = knn_graph(x, 9, batch)
    for chunk in (2000, 1 << 14, 1 << 24):
        monkeypatch.setitem(knn_search._CHUNK, "cpu", chunk)
        assert torch.equal(knn_graph(x, 9, batch), expected)


def test_the_search_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of([300, 90])
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(390, 3).round(decimals=1).to(dtype)
        expected = knn_graph(x, 9, batch)
        with monkeypatch.context() as patch:
            patch.setattr(knn_search, "num_groups", lambda n, k: 0)
            assert torch.equal(knn_graph(x, 9, batch), expected)


def test_the_operator_keeps_its_promises() -> None:
    for x, batch in (
        (torch.randn(40, 3), None),
        (torch.randn(6, 40).t(), batch_of([30, 10])),  # not contiguous
    ):
        torch.library.opcheck(torch.ops.pyg_stkd.knn_graph, (x, 4, batch, True))
