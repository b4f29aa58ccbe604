from __future__ import annotations

import pytest
import torch

from pyg_stkd.distill.recording.nodes import as_nodes


def test_nodes_are_checked():
    cpu = torch.device("cpu")
    assert as_nodes(None, cpu) is None
    assert torch.equal(as_nodes([2, 0], cpu), torch.tensor([2, 0]))
    with pytest.raises(ValueError, match=r"'nodes' must have one axis \(got shape \[1, 1\]\)"):
        as_nodes([[0]], cpu)
    with pytest.raises(TypeError, match=r"'nodes' must be .* \(got torch.float32\)"):
        as_nodes([0.5], cpu)
    for empty in (torch.tensor([]).long(), torch.tensor([False])):
        with pytest.raises(ValueError, match=r"at least one node \(got none\)"):
            as_nodes(empty, cpu)
    with pytest.raises(IndexError, match=r"negative indices \(got -1\)"):
        as_nodes([0, -1], cpu)
