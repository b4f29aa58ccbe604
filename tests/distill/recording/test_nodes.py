from __future__ import annotations

import pytest
import torch

from pyg_stkd.distill.recording.nodes import as_nodes


def test_nodes_are_checked():
    cpu = torch.device("cpu")
    assert as_nodes(None, cpu) is None
    assert torch.equal(as_nodes([2, 0], cpu), torch.tensor([2, 0]))
    for bad, got in [([[0]], r"\[1, 1\] of torch.int64"), ([0.5], r"\[1\] of torch.float32")]:
        with pytest.raises(ValueError, match=rf"'nodes' must be one axis.*\(got shape {got}\)"):
            as_nodes(bad, cpu)
    for empty in (torch.tensor([]).long(), torch.tensor([False])):
        with pytest.raises(ValueError, match=r"at least one node \(got none\)"):
            as_nodes(empty, cpu)
    with pytest.raises(IndexError, match=r"not be negative \(got -1\)"):
        as_nodes([0, -1], cpu)
