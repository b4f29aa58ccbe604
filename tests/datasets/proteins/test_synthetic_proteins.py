from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GATConv
from torch_geometric.nn.models import MLP
from torch_geometric.utils import degree

from pyg_stkd.datasets import SyntheticProteins
from pyg_stkd.datasets.proteins import synthetic_proteins

SIZES = synthetic_proteins.PPI_SIZES


def same(a: Data, b: Data) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("x", "y", "edge_index"))


def test_sizes_are_those_of_ppi() -> None:
    assert len(SIZES) == 24
    assert (sum(SIZES[:20]), sum(SIZES[20:22]), sum(SIZES[22:])) == (44906, 6514, 5524)


def test_full_size() -> None:
    dataset = SyntheticProteins("test")
    assert len(dataset) == 2
    for data, num_nodes in zip(dataset, (3224, 2300), strict=True):
        assert data.x.shape == (num_nodes, 50)
        assert data.y.shape == (num_nodes, 121)
        assert (data.x.dtype, data.y.dtype, data.edge_index.dtype) == (
            torch.float32,
            torch.float32,
            torch.int64,
        )
        assert data.edge_index.is_contiguous()
        assert data.validate()
        assert data.is_undirected()
        assert data.is_coalesced()
        assert not data.has_self_loops()
        # PPI has 27.87 edges a node; tissue networks spread by 1.1 to 1.4 of the mean, median 16
        deg = degree(data.edge_index[1], num_nodes)
        assert data.num_edges == 2 * int(27.87 * num_nodes / 2)
        assert 1.0 < float(deg.std() / deg.mean()) < 1.7
        assert 12 < float(deg.median()) < 21
        assert float(deg.max()) > 200
        # the shares of proteins without features, and of labels
        assert 0.37 < float((data.x == 0).all(dim=1).float().mean()) < 0.43
        assert set(data.y.unique().tolist()) == {0.0, 1.0}
        assert 30 < float(data.y.sum(dim=1).mean()) < 45
        assert float(data.y.mean(dim=0).min()) < 0.12
        assert float(data.y.mean(dim=0).max()) > 0.6


@pytest.mark.parametrize("scale", [1e-9, 0.01, 0.04])
def test_scale(scale: float) -> None:
    for data, size in zip(SyntheticProteins("train", scale), SIZES, strict=False):
        assert data.num_nodes == max(16, round(scale * size))
        assert data.num_edges <= data.num_nodes * (data.num_nodes - 1) / 2
        assert data.is_undirected()
        assert data.is_coalesced()
        assert not data.has_self_loops()


def test_num_graphs() -> None:
    for total, counts in ((3, (1, 1, 1)), (36, (30, 3, 3))):
        found = tuple(
            len(SyntheticProteins(split, 0.005, num_graphs=total))
            for split in ("train", "val", "test")
        )
        assert found == counts
    large = SyntheticProteins("train", 0.02, num_graphs=31)
    assert [data.num_nodes for data in large][24:26] == [35, 28]  # sizes repeat, graphs do not
    assert not torch.equal(large[0].x, large[24].x)


def test_graphs_depend_on_seed_scale_and_index_alone() -> None:
    graphs = [
        data for split in ("train", "val", "test") for data in SyntheticProteins(split, 0.01, 3)
    ]
    synthetic_proteins._Task.of.cache_clear()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002  global states must not matter
    for index, data in enumerate(SyntheticProteins("train", 0.01, 3, num_graphs=26)):
        if index < 22:
            assert same(data, graphs[index])
    assert not same(graphs[0], SyntheticProteins("train", 0.01, 4, num_graphs=3)[0])


def test_transform() -> None:
    dataset = SyntheticProteins("val", 0.01, transform=lambda data: data.num_nodes)
    assert list(dataset) == [32, 33]


def test_labels_follow_the_documented_formula() -> None:
    task = synthetic_proteins._Task.of(0)
    data = SyntheticProteins("train", 0.02, num_graphs=3)[0]
    x = data.x.double().numpy()
    nodes = range(data.num_nodes)
    around = [[i, *data.edge_index[0][data.edge_index[1] == i].tolist()] for i in nodes]

    def mean(rows: dict[int, Any], i: int, weight: dict[int, float]) -> Any:
        total = sum(weight[j] for j in around[i])
        return sum(weight[j] / total * rows[j] for j in around[i])

    uniform = dict.fromkeys(nodes, 1.0)
    views = []
    values = [{i: x[i] @ view for i in nodes} for view in task.view]
    once = {i: mean(values[-1], i, uniform) for i in nodes}
    for i in nodes:
        parts = [values[0][i]]
        for v in range(synthetic_proteins.VIEWS):
            weight = {j: math.exp(x[j] @ task.query[:, v]) for j in nodes}
            parts.append(mean(values[v + 1], i, weight))
        views.append(np.concatenate([*parts, mean(once, i, uniform)]))
    hidden = np.tanh((np.stack(views) - task.center) / task.spread @ task.inner + task.bias)
    score = hidden @ task.outer
    np.testing.assert_allclose(task.score(x, data.edge_index.numpy()), score, atol=1e-10)
    assert np.array_equal(data.y.numpy(), score > task.threshold)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"split": "valid"}, ValueError, r"'split' must be .*\(got 'valid'\)"),
        ({"scale": 0.0}, ValueError, r"'scale' must be finite and above 0 \(got 0.0\)"),
        ({"scale": math.nan}, ValueError, r"\(got nan\)"),
        ({"scale": "1"}, TypeError, r"'scale' must be a number \(got '1'\)"),
        ({"seed": -1}, ValueError, r"'seed' must be at least 0 \(got -1\)"),
        ({"seed": 1.5}, TypeError, r"'seed' must be an integer \(got 1.5\)"),
        ({"num_graphs": 2}, ValueError, r"'num_graphs' must be at least 3 \(got 2\)"),
        ({"num_graphs": True}, TypeError, r"'num_graphs' must be an integer \(got True\)"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        SyntheticProteins(**arguments)


def f1(score: Tensor, y: Tensor) -> float:
    found = score > 0.5
    return float(2 * (found & (y > 0.5)).sum() / (found.sum() + y.sum()))


def test_neighbours_tell_more_than_own_features() -> None:
    """Least squares on own features, without and with the task's own neighbourhood views."""
    task = synthetic_proteins._Task.of(0)

    def inputs(data: Data, structure: bool) -> Tensor:
        x = data.x.double()
        parts = [x, (x == 0).all(dim=1, keepdim=True).double(), torch.ones(len(x), 1)]
        if structure:
            views = (task.views(x.numpy(), data.edge_index.numpy()) - task.center) / task.spread
            parts.append(torch.from_numpy(views))
        return torch.cat(parts, dim=1).double()

    train, val = (list(SyntheticProteins(split, 0.1)) for split in ("train", "val"))
    result = []
    for structure in (False, True):
        a = torch.cat([inputs(data, structure) for data in train])
        y = torch.cat([data.y for data in train]).double()
        weight = torch.linalg.solve(a.T @ a + 10 * torch.eye(a.size(1)), a.T @ y)
        score = torch.cat([inputs(data, structure) for data in val]) @ weight
        result.append(f1(score, torch.cat([data.y for data in val])))
    own, both = result
    assert both > own + 0.1, result


class GAT(torch.nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(
            [
                GATConv(in_channels, 68, heads=2, residual=True),
                GATConv(136, 68, heads=2, residual=True),
                GATConv(136, out_channels, heads=2, concat=False, residual=True),
            ]
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for conv in self.convs[:-1]:
            x = F.elu(conv(x, edge_index))
        return self.convs[-1](x, edge_index)


@pytest.mark.full
def test_gat_beats_mlp() -> None:
    train, val = (SyntheticProteins(split, 0.05) for split in ("train", "val"))
    result = {}
    models = {
        "mlp": MLP([50, 256, 256, 121], norm=None),
        "gat": GAT(50, 121),
    }
    for name, model in models.items():
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(15):
            for data in DataLoader(train, 1, shuffle=True):
                out = model(data.x, data.edge_index) if name == "gat" else model(data.x)
                loss = F.binary_cross_entropy_with_logits(out, data.y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        model.eval()
        with torch.no_grad():
            out = [model(d.x, d.edge_index) if name == "gat" else model(d.x) for d in val]
        result[name] = f1(torch.cat(out).sigmoid(), torch.cat([data.y for data in val]))
    assert result["gat"] > result["mlp"] + 0.06, result


def test_extra_graphs_are_of_the_same_task_and_in_no_other_split() -> None:
    extra = list(SyntheticProteins("extra", 0.02, num_graphs=5))
    assert [data.num_nodes for data in extra] == [
        data.num_nodes for data in list(SyntheticProteins("train", 0.02))[:5]
    ]
    others = [g for split in ("train", "val", "test") for g in SyntheticProteins(split, 0.02)]
    others += SyntheticProteins("train", 0.02, num_graphs=60)
    assert not any(a.x.shape == b.x.shape and torch.equal(a.x, b.x) for a in extra for b in others)
    # Bit for bit the same in whichever call, and labelled by the same function.
    assert all(map(same, extra, SyntheticProteins("extra", 0.02, num_graphs=7)))
    task = synthetic_proteins._Task.of(0)
    data = SyntheticProteins("extra", 0.02, num_graphs=1)[0]
    score = task.score(data.x.double().numpy(), data.edge_index.numpy())
    assert np.array_equal(score > task.threshold, data.y.numpy() > 0)
    with pytest.raises(ValueError, match=r"'num_graphs' must be at least 1 \(got 0\)"):
        SyntheticProteins("extra", num_graphs=0)
