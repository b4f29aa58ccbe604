"""The epoch over blocks of a graph on disk is one over the graph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
pytest.importorskip("tabulate")
import large_graph
from large_graph import CLASSES, WIDTH, blocks, epoch, make_graph

from pyg_stkd.functional import lsp
from pyg_stkd.graph import Graph
from pyg_stkd.kernels import RBF


class Nodewise(nn.Module):
    """A student whose features of a node do not depend on its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Linear(WIDTH, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return self.head(self.conv(x))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_graph(tmp_path, 4000)
    return tmp_path


def test_blocks_hold_every_edge_once(folder: Path) -> None:
    rowptr, col = np.load(folder / "rowptr.npy"), np.load(folder / "col.npy")
    row = np.repeat(np.arange(200), np.diff(rowptr))
    found = []
    for nodes, count, graph in blocks(rowptr, col, 300):
        source, target = graph.edge_index.numpy()
        assert target.max(initial=0) < count
        assert np.unique(nodes).size == nodes.size == graph.num_nodes
        found.append(np.stack([nodes[source], nodes[target]]))
    assert len(found) > 10
    np.testing.assert_array_equal(np.concatenate(found, axis=1), np.stack([col, row]))


def test_degrees_follow_a_power_law(folder: Path) -> None:
    into = np.sort(np.diff(np.load(folder / "rowptr.npy")))[::-1]
    out = np.sort(np.bincount(np.load(folder / "col.npy"), minlength=200))[::-1]
    assert into.sum() == out.sum() == 4000
    share = np.arange(1, 201) ** -0.7
    np.testing.assert_allclose(into, np.sort(share / share.sum() * 4000)[::-1], atol=1.0)
    assert out[0] / 4000 == pytest.approx(200**-0.3, abs=0.03)
    for degree in (into, out):
        assert degree[:20].sum() > 0.3 * 4000
        assert degree[100] < 20


def test_the_loss_of_blocks_is_that_of_the_graph(folder: Path) -> None:
    torch.manual_seed(0)
    student = Nodewise()
    known = [torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("x", "teacher")]
    col, rowptr = (torch.from_numpy(np.load(folder / f"{n}.npy")).long() for n in ("col", "rowptr"))
    graph = Graph(torch.stack([col, torch.arange(200).repeat_interleave(rowptr.diff())]), 200)
    with torch.no_grad():
        features = student.conv(known[0])
        expected = lsp(features, known[1], graph, RBF(), normalize="l2").item()
    for most in (300, 10**9):
        got = epoch(folder, student, most, rate=0.0)
        assert got["edges"] == 4000
        assert got["lsp"] == pytest.approx(expected, rel=1e-4)
    assert large_graph.Student()(known[0], graph).shape == (200, CLASSES)
