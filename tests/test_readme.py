"""What README.md shows of pruning runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.nn import GCNConv

README = Path(__file__).parents[1] / "README.md"


def test_pruning_a_net_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text(encoding="utf-8").partition("## Pruning a net of your own")[2]
    found = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert found is not None
    generator = torch.Generator().manual_seed(0)
    x, edge_index = torch.eye(34), torch.randint(34, (2, 100), generator=generator)
    names: dict[str, Any] = {"torch": torch, "GCNConv": GCNConv, "x": x, "edge_index": edge_index}
    exec(found.group(1), names)
    net, small = names["net"].eval(), names["small"].eval()
    assert type(small) is type(net)
    assert small.conv1.out_channels < 64
    assert sum(p.numel() for p in small.parameters()) <= 0.5 * sum(
        p.numel() for p in names["Net"]().parameters()
    )
    torch.testing.assert_close(small(x, edge_index), net(x, edge_index))
    assert "conv2" in capsys.readouterr().out  # what the model returns is kept
