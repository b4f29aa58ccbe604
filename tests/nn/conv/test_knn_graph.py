from __future__ import annotations

import pytest
import torch

from pyg_stkd.functional.neighbours.knn import knn_graph
from pyg_stkd.functional.neighbours.knn_pair import knn_pair
from pyg_stkd.nn.conv.knn_graph import KNNGraph


@pytest.mark.parametrize("loop", [True, False])
def test_is_the_function(loop: bool) -> None:
    module = KNNGraph(3, loop=loop)
    x, batch = torch.randn(20, 4), torch.tensor([0] * 8 + [1] * 12)
    assert torch.equal(module(x, batch), knn_graph(x, 3, batch, loop))
    assert torch.equal(module(x), knn_graph(x, 3, None, loop))
    assert repr(module) == f"KNNGraph(k=3, loop={loop})"
    assert not module.state_dict()


def test_pairs() -> None:
    module, x, y = KNNGraph(3), torch.randn(20, 4), torch.randn(6, 4)
    batches = torch.tensor([0] * 8 + [1] * 12), torch.tensor([0, 0, 1, 1, 1, 1])
    assert torch.equal(module((x, y)), knn_pair(x, y, 3))
    assert torch.equal(module((x, y), batches), knn_pair(x, y, 3, *batches))
    with pytest.raises(ValueError, match=r"'x' must be a tensor or a pair .*\(got 3 items\)"):
        module((x, y, y))
    with pytest.raises(TypeError, match=r"'batch' must be a tensor where 'x' is one \(got tuple"):
        module(x, batches)


def test_bad_k() -> None:
    with pytest.raises(ValueError, match=r"'k' must be at least 1 \(got 0\)"):
        KNNGraph(0)
    for k in (2.5, True):
        with pytest.raises(TypeError, match=rf"'k' must be an integer \(got {k}\)"):
            KNNGraph(k)  # type: ignore[arg-type]
