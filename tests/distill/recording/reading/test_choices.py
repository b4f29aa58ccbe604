from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.nn import ASAPooling, EdgePooling, PANConv, PANPooling, SAGPooling, TopKPooling
from torch_geometric.nn.pool.select import SelectOutput

from pyg_stkd.distill.recording.reading.choices import (
    Choice,
    choice_of,
    chooses,
    common_rows,
    rows_of,
)
from pyg_stkd.distill.recording.recorder import Recorder

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])


@pytest.mark.parametrize("pool", [TopKPooling, SAGPooling, ASAPooling])
def test_what_a_pool_took(pool: type[nn.Module]) -> None:
    model = nn.ModuleDict({"pool": pool(4, ratio=0.5)})
    recorder = Recorder(model, ["pool"])
    recorder.start()
    out = model["pool"](torch.randn(6, 4), EDGES)
    (choice,) = recorder.choices
    assert choice.sources == 6
    assert torch.equal(choice.nodes, out[4])
    assert recorder.stop()["pool"][0].choices == (choice,)
    assert recorder.choices == ()


def test_what_merges_nodes_says_of_none() -> None:
    pool = EdgePooling(4)
    assert chooses(pool)
    out = pool(torch.randn(6, 4), EDGES, torch.zeros(6, dtype=torch.long))
    assert choice_of(out) == Choice(-1, None)
    merged = SelectOutput(torch.arange(4), 4, torch.tensor([0, 0, 1, 1]), 2)
    assert choice_of(merged) == Choice(4, None)
    assert not any(map(chooses, PANConv(4, 4, 1).modules()))
    assert any(map(chooses, PANPooling(4).modules()))


def test_nodes_are_in_the_order_of_their_clusters() -> None:
    given = SelectOutput(torch.tensor([5, 1, 3]), 6, torch.tensor([2, 0, 1]), 3)
    assert choice_of(given).nodes.tolist() == [1, 3, 5]


def test_pools_one_after_the_other() -> None:
    first, second = Choice(6, torch.tensor([5, 3, 1, 0])), Choice(4, torch.tensor([2, 0]))
    assert rows_of([first, second], 6) is None  # up again, as in a U-Net
    assert rows_of([first, second], 4).tolist() == [5, 3, 1, 0]
    assert rows_of([first, second], 2).tolist() == [1, 5]
    for chosen, rows in (
        ([first], 3),
        ([first, Choice(3, torch.tensor([0]))], 1),  # of something that nobody saw
        ([Choice(6, None)], 6),
        ([first, Choice(4, None)], 4),
        ([Choice(6, torch.arange(6))], 6),  # all of them, in another order or not
    ):
        with pytest.raises(LookupError):
            rows_of(chosen, rows)


@pytest.mark.parametrize("seed", range(5))
def test_common_nodes(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(20)
    ours, theirs = torch.randperm(20)[:8], torch.randperm(20)[:12]
    nodes, s, t = common_rows(ours, theirs)
    assert set(nodes.tolist()) == set(ours.tolist()) & set(theirs.tolist())
    assert torch.equal(x[ours][s], x[nodes])
    assert torch.equal(x[theirs][t], x[nodes])
    for a, b in ((ours, None), (None, ours)):
        nodes, s, t = common_rows(a, b)
        assert torch.equal((x if a is None else x[a])[s], x[nodes])
        assert torch.equal((x if b is None else x[b])[t], x[nodes])
    assert common_rows(None, None) is None
