from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyg_stkd.distill import Capture, ResponseLoss
from pyg_stkd.functional import (
    lsp,
    spatial_correlation,
    temporal_correlation,
    temporal_structure,
)
from pyg_stkd.functional.nodes import check_nodes, index_of

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind here")

EDGES = torch.tensor([[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]])
BAD_NODES: list[tuple[object, type[Exception], str]] = [
    ([1], TypeError, r"'nodes' must be a tensor of indices or a boolean mask \(got list\)"),
    (torch.ones(3), TypeError, r"'nodes' must be a tensor of indices .* \(got torch.float32\)"),
    (torch.ones(1, 3).long(), IndexError, r"'nodes' must have one dimension \(got \[1, 3\]\)"),
    (torch.ones(2).bool(), IndexError, r"'nodes' as a mask must have 3 values.* \(got 2\)"),
    (torch.arange(9) < 3, IndexError, r"'nodes' as a mask must have 3 values.* \(got 9\)"),
    (torch.tensor([0, 3]), IndexError, r"'nodes' must be indices from 0 to 2 \(got 3\)"),
    (torch.tensor([-1]), IndexError, r"'nodes' must be indices from 0 to 2 \(got -1\)"),
]


def temporal_of_known(s: Tensor, t: Tensor, nodes: Tensor) -> Tensor:
    return temporal_correlation(s, None, nodes=nodes, teacher_structure=temporal_structure(t))


def response(s: Tensor, t: Tensor, nodes: Tensor) -> Tensor:
    s, t = s[..., 0], t[..., 0]
    return ResponseLoss()(Capture(s, nodes=nodes), Capture(t, owner="teacher"), t + 1)


# All that take sequences [B, T, N, C] and nodes.
CALLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "lsp": lambda s, t, nodes: lsp(s[0, 0], t[0, 0], EDGES, nodes=nodes),
    "spatial": lambda s, t, nodes: spatial_correlation(s, t, EDGES, nodes=nodes),
    "temporal": lambda s, t, nodes: temporal_correlation(s, t, nodes=nodes),
    "temporal, known": temporal_of_known,
    "response": response,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("nodes", "error", "text"), BAD_NODES)
def test_bad_nodes(call: str, nodes: Tensor, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        CALLS[call](torch.randn(2, 4, 3, 2), torch.randn(2, 4, 3, 5), nodes)


@pytest.mark.parametrize("call", CALLS)
def test_indices_and_their_mask_are_one(call: str) -> None:
    s, t = torch.randn(2, 4, 3, 2).double(), torch.randn(2, 4, 3, 5).double()
    given = [torch.tensor([0, 2]), torch.tensor([2, 0]).int(), torch.tensor([True, False, True])]
    first, *others = (CALLS[call](s, t, nodes) for nodes in given)
    assert first.item() > 0
    for other in others:
        torch.testing.assert_close(other, first)


def test_no_nodes_of_none() -> None:
    for none in (torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.bool)):
        assert index_of(none, 0).tolist() == []
    with pytest.raises(IndexError, match=r"of which there are none \(got 0\)"):
        check_nodes(torch.tensor([0]), 0)
